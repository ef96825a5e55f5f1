//! `wormholectl run` and `wormholectl take`: values that programs are started with.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use serde_json::Value;
use wormhole::{
    JobError, Listener, PoolOptions, Raw, Receiver, Sender, channel, inherit, spawn_command,
};

use crate::support::{
    DEADLINE, Place, bash, ctl, eventually, give, program, raw, run, sender, start, strays,
    with_path,
};

/// Kills a child that is left, and waits for it.
struct Reaped(Child);

impl Reaped {
    #[track_caller]
    fn code(mut self) -> Option<i32> {
        eventually("the end", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Run as a program of its own, by the test after it.
#[test]
#[ignore = "a part of another test"]
fn program_that_inherits() {
    let (name, rx, tx): (String, Receiver<u32>, Sender<String>) = inherit().unwrap();
    for number in &rx {
        tx.send(format!("{name} {}", number.unwrap())).unwrap();
    }
}

#[test]
fn a_program_gets_a_value_and_the_ends_of_channels() {
    let place = Place::new();
    let results = Listener::<String>::bind(place.join("results")).unwrap();
    let program = std::env::current_exe().unwrap();
    let mut command = ctl(["run", "--value", r#"["worker",1,0]"#]);
    // Not in the order of the value.
    command.args([
        "--sender",
        &place.at("results"),
        "--receiver",
        &place.at("jobs"),
        "--",
    ]);
    command
        .arg(program)
        .args(["handing::program_that_inherits", "--exact", "--ignored"]);
    let running = start(command);
    let jobs = sender(place.join("jobs")).cast::<u32>();
    let (rx, _) = results.accept_timeout(DEADLINE).unwrap();
    for number in [1, 2] {
        jobs.send(number).unwrap();
        assert_eq!(
            rx.recv_timeout(DEADLINE).unwrap(),
            format!("worker {number}")
        );
        assert!(!place.join("jobs").exists(), "there is one client");
    }
    drop(jobs);
    let end = rx.recv_timeout(DEADLINE);
    assert!(matches!(end, Err(wormhole::Error::Disconnected)), "{end:?}");
    assert_eq!(running.end().code(), 0);
}

#[test]
fn the_program_has_the_streams_the_status_and_nothing_else() {
    let (tx, rx) = channel::<u32>().unwrap();
    let mut command = ctl([
        "run",
        "--sender",
        "fd:9",
        "--fd",
        "/dev/null",
        "--",
        "bash",
        "-c",
    ]);
    command.arg("cat; ls /proc/self/fd | sort -n | tr '\\n' ' '; echo $WORMHOLE_FD; exit 7");
    give(&mut command, tx.try_into().unwrap(), 9);
    let ended = run(command, b"input\n");
    assert_eq!(ended.code(), 7, "{ended:?}");
    let (input, fds) = ended.out.split_once('\n').unwrap();
    // The streams, the value, and the directory itself.
    let mut expected = vec![0, 1, 2, 3, 4];
    expected.extend(strays());
    let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
    assert_eq!(
        (input, fds),
        ("input", &*format!("{} 3\n", expected.join(" ")))
    );
    assert!(matches!(
        rx.recv_timeout(DEADLINE),
        Err(wormhole::Error::Disconnected)
    ));
}

#[test]
fn what_cannot_be_run_has_the_status_that_shells_give() {
    run(ctl(["run", "--", "/nonexistent/program"]), b"")
        .failed(127, "cannot run /nonexistent/program");
    run(ctl(["run", "--", "/dev/null"]), b"")
        .failed(126, "cannot run /dev/null: Permission denied");
    run(ctl(["run", "--value", "nope", "--", "true"]), b"").failed(6, "the message: not JSON");
    run(ctl(["run", "--sender", "/nonexistent", "--", "true"]), b"").failed(1, "nobody listens");
    run(ctl(["run", "--receiver", "fd:9", "--", "true"]), b"")
        .failed(1, "descriptor 9 is not open");
    run(ctl(["run"]), b"").failed(2, "COMMAND");
    let place = Place::new();
    let late = ctl([
        "run",
        "--receiver",
        &place.at("a"),
        "--timeout",
        "0.05",
        "--",
        "true",
    ]);
    run(late, b"").failed(4, "nobody connected to ");
    assert!(!place.join("a").exists());
}

#[test]
fn a_signal_kills_the_program_itself() {
    let ended = run(ctl(["run", "--", "bash", "-c", "kill -9 $$"]), b"");
    assert_eq!(ended.code(), 137);
}

#[test]
fn a_value_is_taken_once_and_printed() {
    let place = Place::new();
    for (options, text) in [
        ("", "null"),
        (
            "--value '{\"n\":12345678901234567890123}'",
            "{\"n\":12345678901234567890123}",
        ),
    ] {
        let script = format!(
            "wormholectl run {options} -- bash -c 'wormholectl take; echo $?; wormholectl take; echo $?'"
        );
        let ended = run(bash(&script, place.path()), b"");
        assert_eq!(
            (ended.code(), &*ended.out),
            (0, &*format!("{text}\n0\n1\n"))
        );
        assert!(
            ended
                .err
                .contains("nothing to inherit: the channel is empty"),
            "{ended:?}"
        );
    }
    run(ctl(["take"]), b"").failed(
        1,
        "nothing to inherit: the environment variable WORMHOLE_FD is not set",
    );
    let script = "WORMHOLE_FD=9 wormholectl take";
    run(bash(script, place.path()), b"").failed(1, "nothing to inherit");
}

#[test]
fn descriptors_of_a_value_go_to_a_command() {
    let mut command = Command::new("bash");
    command.args([
        "-c",
        r#"exec wormholectl take -- bash -c '
        read -r text
        echo "$text $LISTEN_FDS $((LISTEN_PID - $$)) ${WORMHOLE_FD-unset}" >&4
        cat <&3 >&4
    '"#,
    ]);
    with_path(&mut command);
    let place = Place::new();
    fs::write(place.join("in"), "content").unwrap();
    let input = OwnedFd::from(fs::File::open(place.join("in")).unwrap());
    let (mut read, write) = std::io::pipe().unwrap();
    let value = Raw::from_parts(r#"{"in":0,"out":1}"#.into(), vec![input, write.into()]).unwrap();
    let child = Reaped(spawn_command(command, value).unwrap());
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "{\"in\":0,\"out\":1} 2 0 unset\ncontent");
    assert_eq!(child.code(), Some(0));
}

#[test]
fn without_a_command_the_descriptors_of_a_value_are_closed() {
    let place = Place::new();
    fs::write(place.join("in"), "content").unwrap();
    let script = "wormholectl run --fd in -- wormholectl take";
    run(bash(script, place.path()), b"").failed(7, "the value has 1 descriptor");
}

#[test]
fn a_worker_of_a_pool_may_be_written_in_bash() {
    let place = Place::new();
    let workers = crate::recipes::scripts();
    let [squares, lines] = &*workers else {
        panic!("{workers:?}")
    };
    let (job, results, child) = worker(&place, "squares", squares);
    for (text, result) in [
        ("3", r#"{"Ok":9}"#),
        (
            "\"x\"",
            r#"{"Err":{"message":"not a number","place":null,"backtrace":null}}"#,
        ),
        ("-12", r#"{"Ok":144}"#),
    ] {
        job.send(raw(text)).unwrap();
        assert_eq!(results.recv_timeout(DEADLINE).unwrap().text(), result);
    }
    drop(job);
    assert!(matches!(
        results.recv_timeout(DEADLINE),
        Err(wormhole::Error::Disconnected)
    ));
    assert_eq!(child.code(), Some(0));

    let (job, results, child) = worker(&place, "lines", lines);
    for count in [0, 3, 1000] {
        fs::write(place.join("file"), "a line\n".repeat(count)).unwrap();
        let file = fs::File::open(place.join("file")).unwrap();
        job.send(Raw::from_parts("{\"file\":0}".into(), vec![file.into()]).unwrap())
            .unwrap();
        let result = results.recv_timeout(DEADLINE).unwrap();
        assert_eq!(result.text(), format!("{{\"Ok\":{count}}}"));
    }
    drop(job);
    assert_eq!(child.code(), Some(0));
}

#[test]
fn a_pool_of_rust_works_with_scripts() {
    let place = Place::new();
    let squares = crate::recipes::scripts()[0];
    // One job that takes long.
    let script = squares.replacen("if [[", "[[ $job != 0 ]] || exec sleep 5\n    if [[", 1);
    assert_ne!(script, squares);
    let path = program(&place, "squares", &script);
    let mut pool = PoolOptions::new(2)
        .command::<Value, i64>(move || {
            let mut command = Command::new(&path);
            with_path(&mut command);
            command
        })
        .unwrap();

    let jobs: Vec<_> = (1..=50).map(Value::from).collect();
    let results = pool.map(jobs).map(|(_, result)| result);
    let results: Result<Vec<_>, _> = results.collect();
    assert_eq!(
        results.unwrap(),
        (1..=50).map(|number| number * number).collect::<Vec<_>>()
    );

    let failed = pool.submit("four".into()).unwrap();
    let (id, result) = pool.recv_timeout(DEADLINE).unwrap();
    assert_eq!(id, failed);
    let failed = result.unwrap_err();
    assert!(
        matches!(&failed, JobError::Panicked { message, .. } if message == "not a number"),
        "{failed:?}"
    );

    let long = pool.submit(0.into()).unwrap();
    pool.cancel(long).unwrap();
    let (id, result) = pool.recv_timeout(DEADLINE).unwrap();
    assert_eq!((id, result.unwrap_err()), (long, JobError::Cancelled));
    let next = pool.submit(7.into()).unwrap();
    let (id, result) = pool.recv_timeout(DEADLINE).unwrap();
    assert_eq!((id, result.unwrap()), (next, 49));
    assert!(pool.finish().unwrap().is_empty());
}

#[test]
fn a_worker_that_is_killed_closes_its_results() {
    let place = Place::new();
    let script = &crate::recipes::scripts()[0];
    let (job, results, mut child) = worker(&place, "squares", script);
    job.send(raw("3")).unwrap();
    assert_eq!(
        results.recv_timeout(DEADLINE).unwrap().text(),
        r#"{"Ok":9}"#
    );
    child.0.kill().unwrap();
    // Its pipeline goes on until there are no more jobs, and leaves then.
    drop(job);
    assert!(matches!(
        results.recv_timeout(DEADLINE),
        Err(wormhole::Error::Disconnected)
    ));
}

/// Starts a script as a pool does.
fn worker(place: &Place, name: &str, script: &str) -> (Sender<Raw>, Receiver<Raw>, Reaped) {
    let path = program(place, name, script);
    let (job, jobs) = channel().unwrap();
    let (result, results) = channel::<Raw>().unwrap();
    let mut command = Command::new(path);
    with_path(&mut command);
    let child = Reaped(spawn_command(command, (jobs, result)).unwrap());
    (job, results, child)
}
