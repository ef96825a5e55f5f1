//! The program of each language: whether it can run here, and how it is started.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use wormhole::spawn_command;

/// The environment variable that tells the program in Rust its role.
pub(crate) const ROLE: &str = "TEST_PROGRAM";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Language {
    Rust,
    Python,
    Go,
    C,
}

pub(crate) use Language::{C, Go, Python, Rust};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the programs in Go and C are built, and what `go` needs to build one.
fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Whether programs in these languages can run here. If not the test says so and is skipped; in CI it fails.
///
/// To be called before a test starts a process of its own: what has to be built is built by the one that asks first.
pub(crate) fn can_run(languages: &[Language]) -> bool {
    languages.iter().all(|language| {
        let missing = match language {
            Rust => return true,
            Python => &MISSING_PYTHON,
            Go => &MISSING_GO,
            C => &MISSING_C,
        };
        let missing = missing.get_or_init(|| language.find_what_is_missing());
        if let Some(missing) = missing {
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            // Not `eprintln`, which nobody sees unless the test fails.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED a test between languages: {missing}"
            );
        }
        missing.is_none()
    })
}

static MISSING_PYTHON: OnceLock<Option<String>> = OnceLock::new();
static MISSING_GO: OnceLock<Option<String>> = OnceLock::new();
static MISSING_C: OnceLock<Option<String>> = OnceLock::new();

/// What `go` is run with: without the network, and writing nowhere but into cargo's target directory.
pub(crate) fn go(folder: impl AsRef<Path>) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(root().join(folder))
        .env("GOCACHE", scratch().join("go-cache"))
        .env("GOPATH", scratch().join("go-path"))
        .env("GOPROXY", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-buildvcs=false")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0")
        .env("GO111MODULE", "on")
        .stdin(Stdio::null());
    command
}

fn go_program() -> PathBuf {
    scratch().join("peer-go")
}

fn c_program() -> PathBuf {
    scratch().join("peer-c")
}

/// Builds a program with a command that is told where to put it. Others may run or build it at the same time.
fn build(mut command: Command, program: &Path) {
    let built = program.with_extension(std::process::id().to_string());
    let output = command.arg("-o").arg(&built).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    fs::rename(built, program).unwrap();
}

/// The compiler, with what makes every mistake in memory and every undefined operation the end of the program.
fn cc() -> Command {
    let client = root().join("clients/c");
    let mut command = Command::new("cc");
    command
        .args([
            "-std=c99",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-O1",
            "-g",
        ])
        .args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
        .arg("-I")
        .arg(&client)
        .arg("-I")
        .arg(client.join("tests"))
        .arg(root().join("tests/languages/clients/peer.c"));
    command
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", root().join("clients/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    command
}

fn go_is_new_enough() -> bool {
    let Ok(output) = go("tests/languages/clients/go")
        .args(["env", "GOVERSION"])
        .output()
    else {
        return false;
    };
    // "go1.19.8"
    let text = String::from_utf8_lossy(&output.stdout);
    let minor = text.trim().strip_prefix("go1.").unwrap_or_default();
    let minor = minor.split(|c: char| !c.is_ascii_digit()).next();
    minor.is_some_and(|minor| minor.parse().is_ok_and(|minor: u32| minor >= 19))
}

fn succeeds(command: &mut Command) -> bool {
    let output = command.stdout(Stdio::null()).stderr(Stdio::null());
    output.status().is_ok_and(|status| status.success())
}

impl Language {
    fn find_what_is_missing(self) -> Option<String> {
        match self {
            Rust => None,
            Python => {
                let check = "import sys; sys.exit(sys.version_info < (3, 9))";
                let found = succeeds(python().args(["-c", check]));
                (!found).then(|| "there is no python3 here, of version 3.9 or later".to_owned())
            }
            Go => {
                if !go_is_new_enough() {
                    return Some("there is no go here, of version 1.19 or later".to_owned());
                }
                let mut command = go("tests/languages/clients/go");
                command.arg("build");
                build(command, &go_program());
                None
            }
            C => {
                if !succeeds(Command::new("cc").arg("--version")) {
                    return Some("there is no cc here".to_owned());
                }
                build(cc(), &c_program());
                None
            }
        }
    }

    /// What it calls itself.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Rust => "rust",
            Python => "python",
            Go => "go",
            C => "c",
        }
    }

    /// The command that plays a role: the program with its arguments, and its environment.
    pub(crate) fn command(self, role: &str) -> (Vec<String>, HashMap<String, String>) {
        let path = |path: PathBuf| path.into_os_string().into_string().unwrap();
        let mut environment = HashMap::new();
        let command = match self {
            Rust => {
                environment.insert(ROLE.to_owned(), role.to_owned());
                let this = path(std::env::current_exe().unwrap());
                let test = [
                    "clients::peer::program",
                    "--exact",
                    "--nocapture",
                    "--test-threads=1",
                ];
                std::iter::once(this)
                    .chain(test.map(str::to_owned))
                    .collect()
            }
            Python => {
                let python = python();
                for (name, value) in python.get_envs() {
                    let text = |text: &std::ffi::OsStr| text.to_str().unwrap().to_owned();
                    environment.insert(text(name), text(value.unwrap()));
                }
                let program = path(root().join("tests/languages/clients/peer.py"));
                vec!["python3".to_owned(), program, role.to_owned()]
            }
            Go => vec![path(go_program()), role.to_owned()],
            C => vec![path(c_program()), role.to_owned()],
        };
        (command, environment)
    }

    /// Starts the program in a role, and hands it a value.
    pub(crate) fn start(self, role: &str, args: impl Serialize) -> Program {
        let (words, environment) = self.command(role);
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .envs(environment)
            .env_remove("WORMHOLE_FD")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Program {
            what: format!("{role} in {self:?}"),
            child: spawn_command(command, args).unwrap(),
        }
    }
}

/// A program that runs. It must be told to end or waited for.
#[must_use]
pub(crate) struct Program {
    what: String,
    child: Child,
}

impl Program {
    pub(crate) fn succeeds(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{}: {status}", self.what);
    }

    pub(crate) fn kill(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGKILL).unwrap();
        let status = self.child.wait().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(9), "{}: {status}", self.what);
    }
}
