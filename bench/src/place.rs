//! On which core a side runs. Left to itself, the scheduler puts two processes that wake each other sometimes
//! on one core and sometimes on two, which differ tenfold in time, and no ratio would mean anything.

use std::fs::read_to_string;

use anyhow::Context;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::Outcome;

/// The calling thread.
const THIS: Pid = Pid::from_raw(0);

/// Where the two sides of a measurement run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Both on the same core: the time is that of the work, one side after the other.
    Together,
    /// Each on a core of its own: the time is that of the longer work, and of waking up.
    Apart,
}

impl Place {
    /// The core of a side: the leader, 0, or another one.
    pub(crate) fn core(self, side: usize) -> Outcome<usize> {
        let allowed = sched_getaffinity(THIS)?;
        let (first, second) = cores(|core| allowed.is_set(core) == Ok(true), siblings);
        let first = first.context("no core is allowed")?;
        match (self, side) {
            (Place::Together, _) | (Place::Apart, 0) => Ok(first),
            (Place::Apart, _) => second.context("two cores are needed"),
        }
    }

    /// Binds the calling thread to the core of a side.
    pub(crate) fn settle(self, side: usize) -> Outcome<()> {
        let mut chosen = CpuSet::new();
        chosen.set(self.core(side)?)?;
        Ok(sched_setaffinity(THIS, &chosen)?)
    }
}

/// The first core that is allowed, and the next one that is not the same piece of hardware.
fn cores(
    allowed: impl Fn(usize) -> bool,
    siblings: impl Fn(usize) -> Option<String>,
) -> (Option<usize>, Option<usize>) {
    let mut allowed = (0..CpuSet::count()).filter(|core| allowed(*core));
    let first = allowed.next();
    let hardware = first.and_then(&siblings);
    let second = allowed.find(|core| hardware.is_none() || siblings(*core) != hardware);
    (first, second)
}

/// The threads of the core that this one belongs to, as the kernel lists them.
fn siblings(core: usize) -> Option<String> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_of_one_core_are_not_two_cores() {
        let pairs = |core: usize| Some(["0,1", "2,3"][core / 2].to_owned());
        assert_eq!(cores(|core| core < 4, pairs), (Some(0), Some(2)));
        assert_eq!(cores(|core| core < 2, pairs), (Some(0), None));
        assert_eq!(cores(|core| core > 4, |_| None), (Some(5), Some(6)));
    }
}
