//! `spawn_fresh` in programs that are linked in other ways than this one: static, at a fixed address, with coverage.
//!
//! Each is a small program that the compiler links to the library as it was built for these tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::{DEADLINE, output_within};

/// A program that has another thread, starts children in all ways, and says how they ended.
const PROGRAM: &str = r#"
use std::process::id;
use std::thread;

use wormhole::{Error, Pool, PoolOptions, Sender, channel, process, spawn, spawn_fresh};

#[cfg(in_init_array)]
wormhole::init_tests!();

fn main() -> Result<(), Error> {
    process::init();
    println!("parent {}", id());
    let forked = spawn((), |()| id())?;
    println!("forked {}", forked.join()?);

    let (waits, wait) = std::sync::mpsc::channel::<()>();
    let other = thread::spawn(move || wait.recv());
    let (tx, rx) = channel()?;
    let child = spawn_fresh((20, tx), |(number, tx): (u32, Sender<String>)| {
        tx.send(format!("child of {}", std::os::unix::process::parent_id())).unwrap();
        (id(), number + 1)
    })?;
    assert_eq!(rx.recv()?, format!("child of {}", id()));
    assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    let (pid, number) = child.join()?;
    println!("fresh {pid} {number}");

    let child = spawn_fresh((), |()| -> u32 { panic!("no idea") })?;
    println!("error {}", child.join().unwrap_err().to_string().split_once(' ').unwrap().0);
    let mut pool: Pool<u64, u64> = PoolOptions::new(2).fresh().run(|n| n * n)?;
    let sum: u64 = pool.map(0..10).map(|(_, square)| square.unwrap()).sum();
    println!("sum {sum}");
    drop(waits);
    let _ = other.join();
    Ok(())
}
"#;

/// A built program, in a directory of its own.
struct Program {
    directory: TempDir,
    path: PathBuf,
}

/// Builds the program with these options of the compiler. `None`, and why, where this machine lacks what that takes.
fn built(options: &[&str]) -> Option<Program> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("program");
    let source = directory.path().join("program.rs");
    fs::write(&source, PROGRAM).unwrap();
    let mut errors = String::new();
    for library in libraries() {
        let mut compile = Command::new(compiler());
        compile.arg(&source).arg("-o").arg(&path);
        compile.args(["--edition=2024", "--check-cfg=cfg(in_init_array)"]);
        compile.arg(format!("--extern=wormhole={}", library.display()));
        let dependencies = library.parent().unwrap().display();
        compile
            .arg(format!("-Ldependency={dependencies}"))
            .args(options);
        let output = output_within(DEADLINE, compile);
        if output.status.success() {
            return Some(Program { directory, path });
        }
        errors = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    // What the compiler says of a C library that is there for dynamic linking only, and of a missing runtime.
    let lacks = [
        "cannot find -lc",
        "unable to find library -lc",
        "profiler_builtins",
    ];
    let is_lacking = lacks.iter().any(|text| errors.contains(text));
    assert!(is_lacking && std::env::var_os("CI").is_none(), "{errors}");
    eprintln!("skipped: {options:?} cannot be built here: {errors}");
    None
}

/// The compiler that belongs to the cargo which builds these tests.
fn compiler() -> PathBuf {
    let beside = Path::new(env!("CARGO")).with_file_name("rustc");
    if beside.exists() {
        beside
    } else {
        "rustc".into()
    }
}

/// The library as it was built for these tests, and as it was built at other times, the latest first.
fn libraries() -> Vec<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let is_library = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.starts_with("libwormhole-") && name.ends_with(".rlib")
    };
    let entries = fs::read_dir(test.parent().unwrap()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths.filter(is_library).collect();
    found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().modified().unwrap()));
    found
}

impl Program {
    /// Runs it, and gives the process ids of itself, of its forked child, and of its fresh one.
    fn run(&self) -> [u32; 3] {
        let mut command = Command::new(&self.path);
        let profiles = self.directory.path().join("%p.profraw");
        command
            .env("LLVM_PROFILE_FILE", profiles)
            .env("RUST_BACKTRACE", "0");
        let output = output_within(DEADLINE, command);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let said = |word: &str| {
            let lines = text.lines();
            let line = lines.filter_map(|line| line.strip_prefix(word)).next();
            line.unwrap_or_else(|| panic!("{word}: {text}"))
                .trim()
                .to_owned()
        };
        assert_eq!(
            (said("error"), said("sum")),
            ("child".to_owned(), "285".to_owned())
        );
        let fresh = said("fresh");
        let fresh = fresh.strip_suffix(" 21").expect(&text).to_owned();
        [said("parent"), said("forked"), fresh].map(|pid| pid.parse().unwrap())
    }
}

/// Whether a program has a fixed address, and whether the dynamic loader loads it.
fn kind(path: &Path) -> (bool, bool) {
    let bytes = fs::read(path).unwrap();
    let half = |at: usize| u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap());
    // elf(5): `e_type`; the program's headers, of which the first word says of what kind they are.
    let (headers, size, count) = match bytes[4] {
        2 => (0x20, half(0x36), half(0x38)),
        _ => (0x1c, half(0x2a), half(0x2c)),
    };
    let (executable, interpreter) = (2, 3_u32);
    let first = u32::from_ne_bytes(bytes[headers..headers + 4].try_into().unwrap());
    let mut headers = (0..usize::from(count)).map(|number| {
        let at = usize::try_from(first).unwrap() + number * usize::from(size);
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    });
    (
        half(0x10) == executable,
        headers.any(|kind| kind == interpreter),
    )
}

/// Builds the program of that kind and runs it.
fn fresh_children_start(options: &[&str], is_fixed: bool, is_dynamic: bool) {
    let Some(program) = built(options) else {
        return;
    };
    assert_eq!(kind(&program.path), (is_fixed, is_dynamic), "{options:?}");
    let [parent, forked, fresh] = program.run();
    assert!(parent != forked && parent != fresh);
}

const STATIC: &str = "-Ctarget-feature=+crt-static";
const FIXED: &str = "-Crelocation-model=static";

#[test]
fn fresh_children_of_a_position_independent_program() {
    fresh_children_start(&[], false, true);
    // Whose builds have no ids.
    fresh_children_start(&["-Clink-arg=-Wl,--build-id=none"], false, true);
}

#[test]
#[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
fn fresh_children_of_a_program_at_a_fixed_address() {
    fresh_children_start(&[FIXED], true, true);
}

#[test]
#[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
fn fresh_children_of_a_static_program() {
    if cfg!(target_env = "gnu") {
        fresh_children_start(&[STATIC], false, false);
        fresh_children_start(&[STATIC, FIXED], true, false);
    }
}

#[test]
#[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
fn fresh_children_of_a_program_that_starts_them_before_main() {
    fresh_children_start(&["--cfg=in_init_array"], false, true);
    if cfg!(target_env = "gnu") {
        fresh_children_start(&["--cfg=in_init_array", STATIC, FIXED], true, false);
    }
}

#[test]
#[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
fn the_coverage_of_a_fresh_child_is_written() {
    let Some(program) = built(&["-Cinstrument-coverage"]) else {
        return;
    };
    let [parent, forked, fresh] = program.run();
    let written = |pid: u32| {
        let profile = program.directory.path().join(format!("{pid}.profraw"));
        // It begins with "\xfflprofr\x81", the last byte first where the machine is little-endian.
        fs::read(profile).is_ok_and(|bytes| bytes[..8].windows(6).any(|part| part == b"rforpl"))
    };
    assert!(written(parent) && written(fresh));
    // Which ends without exit handlers, as the documentation says.
    assert!(!written(forked));
}
