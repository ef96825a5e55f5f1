//! Where and with what the measurements were made.

use std::fs::read_to_string;

use crate::peer::python;

/// The versions of everything that is measured, as built.
const LOCK: &str = include_str!("../../Cargo.lock");

/// A list of properties and their values.
pub(crate) fn description() -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").map_or_else(unknown, in_gigabytes);
    let mut list = vec![
        (
            "processor",
            field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
        ),
        ("cores", cores.to_string()),
        ("memory", memory),
        ("kernel", kernel()),
        ("date", jiff::Timestamp::now().strftime("%F").to_string()),
    ];
    if hypervisor() {
        list.insert(2, ("virtual machine", "yes".to_owned()));
    }
    for package in [
        "wormhole-rs",
        "ipc-channel",
        "unix-ipc",
        "tiny-nix-ipc",
        "procspawn",
        "serde_json",
    ] {
        list.push((package, version(LOCK, package).unwrap_or_else(unknown)));
    }
    list.push((
        "Python",
        python::version().unwrap_or_else(|| "none".to_owned()),
    ));
    list
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The value of the first line `name: value` of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn in_gigabytes(kilobytes: String) -> String {
    match kilobytes.trim_end_matches(" kB").parse::<u64>() {
        Ok(number) => format!("{} GB", (number >> 19).div_ceil(2)),
        Err(_) => kilobytes,
    }
}

fn kernel() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| unknown(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

fn hypervisor() -> bool {
    field("/proc/cpuinfo", "flags").is_some_and(|flags| flags.contains("hypervisor"))
}

/// The version of a package in a lock file: the latest, if a peer has another one of its own.
fn version(lock: &str, package: &str) -> Option<String> {
    let (_, rest) = lock.rsplit_once(&format!("name = \"{package}\"\nversion = \""))?;
    Some(rest.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_that_were_built() {
        let package = |version| format!("[[package]]\nname = \"a\"\nversion = \"{version}\"\n");
        let lock = &[package("1.1.4"), package("1.2.3")].concat();
        assert_eq!(version(lock, "a").as_deref(), Some("1.2.3"));
        assert_eq!(version(lock, "b"), None);
        assert!(version(LOCK, "ipc-channel").is_some());
    }

    #[test]
    fn memory_is_rounded() {
        assert_eq!(in_gigabytes("24683012 kB".to_owned()), "24 GB");
    }
}
