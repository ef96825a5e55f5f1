//! The program in Rust. It is this test binary, started by the others.

use std::os::fd::AsFd;
use std::process::Command;

use wormhole::{Blob, Error, Sender, channel, inherit, spawn_command};

use super::messages::{
    Done, Input, Letter, Parcel, Passing, Receiving, Saying, Sending, Starting, Streams, Working,
    content, file, long_text,
};
use super::programs::ROLE;

const LANGUAGE: &str = "rust";

/// What this test binary does as a program of its own.
#[test]
fn program() {
    match std::env::var(ROLE).as_deref() {
        Ok("send letters") => send_letters(),
        Ok("receive letters") => receive_letters(),
        Ok("send parcels") => send_parcels(),
        Ok("receive parcels") => receive_parcels(),
        Ok("fill") => fill(),
        Ok("hold") => hold(),
        Ok("send one and hold") => send_one_and_hold(),
        Ok("wait") => wait(),
        Ok("start") => start(),
        Ok("say") => say(),
        Ok("pass on") => pass_on(),
        Ok("work") => work(),
        Ok("receive streams") => receive_streams(),
        Ok(role) => panic!("{role}"),
        Err(_) => {} // a test among others
    }
}

fn send_letters() {
    let args: Sending<Letter> = inherit().unwrap();
    for number in 0..args.plan[0] {
        args.to.send(Letter::new(number as u64)).unwrap();
    }
    args.report.send("done".to_owned()).unwrap();
}

fn receive_letters() {
    let args: Receiving<Letter> = inherit().unwrap();
    for number in 0..args.plan[0] {
        assert_eq!(args.source.recv().unwrap(), Letter::new(number as u64));
    }
    assert!(matches!(args.source.recv(), Err(Error::Disconnected)));
    args.report.send("done".to_owned()).unwrap();
}

fn send_parcels() {
    let args: Sending<Parcel> = inherit().unwrap();
    for &size in &args.plan {
        let (reply, replies) = channel().unwrap();
        let (word, words) = channel().unwrap();
        word.send("word".to_owned()).unwrap();
        drop(word);
        let parcel = Parcel {
            name: long_text(size),
            inputs: vec![Input(file("first")), Input(file("second"))],
            reply,
            words,
            data: Blob::from_bytes(b"blob").unwrap(),
        };
        let expected = format!("{} first second beside word blob", parcel.name.len());
        args.to
            .send_with_fds(parcel, &[file("beside").as_fd()])
            .unwrap();
        assert_eq!(replies.recv().unwrap(), expected);
        assert!(matches!(replies.recv(), Err(Error::Disconnected)));
    }
    args.report.send("done".to_owned()).unwrap();
}

fn receive_parcels() {
    let args: Receiving<Parcel> = inherit().unwrap();
    for &size in &args.plan {
        let (parcel, beside) = args.source.recv_with_fds().unwrap();
        assert!(parcel.name == long_text(size), "{}", parcel.name.len());
        let word = parcel.words.recv().unwrap();
        assert!(matches!(parcel.words.recv(), Err(Error::Disconnected)));
        let [beside] = <[_; 1]>::try_from(beside).unwrap();
        let reply = format!(
            "{} {} {} {} {word} {}",
            parcel.name.len(),
            content(&parcel.inputs[0].0),
            content(&parcel.inputs[1].0),
            content(&beside.into()),
            std::str::from_utf8(&parcel.data).unwrap(),
        );
        parcel.reply.send(reply).unwrap();
    }
    assert!(matches!(args.source.recv(), Err(Error::Disconnected)));
    args.report.send("done".to_owned()).unwrap();
}

fn fill() {
    let args: Sending<Letter> = inherit().unwrap();
    while args.to.try_send(Letter::new(0)).is_ok() {}
    assert!(matches!(args.to.try_send(Letter::new(0)), Err(Error::Full)));
    args.report.send("full".to_owned()).unwrap();
    assert!(matches!(
        args.to.send(Letter::new(0)),
        Err(Error::Disconnected)
    ));
    args.report.send("disconnected".to_owned()).unwrap();
}

fn hold() {
    let args: Receiving<Letter> = inherit().unwrap();
    args.forever.recv().unwrap();
}

fn send_one_and_hold() {
    let args: Sending<Letter> = inherit().unwrap();
    args.to.send(Letter::new(1)).unwrap();
    args.forever.recv().unwrap();
}

fn wait() {
    let args: Receiving<Letter> = inherit().unwrap();
    assert_eq!(args.source.recv().unwrap(), Letter::new(1));
    args.report.send("one".to_owned()).unwrap();
    assert!(matches!(args.source.recv(), Err(Error::Disconnected)));
    args.report.send("disconnected".to_owned()).unwrap();
}

fn start() {
    let args: Starting = inherit().unwrap();
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]).envs(&args.environment);
    let value = Saying {
        to: Some(args.to),
        address: None,
    };
    let mut program = spawn_command(command, value).unwrap();
    assert!(program.wait().unwrap().success());
    assert!(matches!(args.until.recv(), Err(Error::Disconnected)));
}

fn say() {
    let args: Saying = inherit().unwrap();
    let to = match args.to {
        Some(to) => to,
        None => Sender::connect(args.address.unwrap()).unwrap(),
    };
    to.send(LANGUAGE.to_owned()).unwrap();
}

fn pass_on() {
    let args: Passing = inherit().unwrap();
    let end = args.source.recv().unwrap();
    end.send(LANGUAGE.to_owned()).unwrap();
    args.to.send(end).unwrap();
}

fn work() {
    let args: Working = inherit().unwrap();
    for job in &args.jobs {
        let job = job.unwrap();
        let done = Done {
            number: job.number,
            square: job.number * job.number,
            language: LANGUAGE.to_owned(),
        };
        args.results.send(done).unwrap();
        if job.wait {
            args.gate.recv().unwrap();
        }
    }
}

fn receive_streams() {
    let args: Receiving<Streams> = inherit().unwrap();
    let streams = args.source.recv().unwrap();
    let mut texts = Vec::new();
    for stream in [&streams.pipe.0, &streams.connection.0] {
        let flags = nix::fcntl::fcntl(stream, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        let flags = nix::fcntl::OFlag::from_bits_retain(flags);
        assert!(!flags.contains(nix::fcntl::OFlag::O_NONBLOCK));
    }
    args.report.send("reading".to_owned()).unwrap();
    for mut stream in [&streams.pipe.0, &streams.connection.0] {
        texts.push(std::io::read_to_string(&mut stream).unwrap());
    }
    args.report.send(texts.join(", ")).unwrap();
}
