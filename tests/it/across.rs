//! What real processes do with a channel, beyond the ten guarantees.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Serialize};
use wormhole::{Error, Sender, channel};

use crate::support::{becomes_ready, forked, in_own_process, open_fds, until_asleep};

#[test]
fn a_waiting_sender_goes_on_as_soon_as_there_is_room() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (sent, wait_for_sent) = channel::<()>().unwrap();
        let sends: [&dyn Fn(); 2] = [&|| tx.send(1).unwrap(), &|| {
            tx.send_timeout(1, Duration::from_secs(3600)).unwrap();
        }];
        for send in sends {
            while tx.try_send(0).is_ok() {}
            let sender = forked(|| {
                send();
                sent.send(()).unwrap();
            });
            until_asleep(sender.pid);
            // Room for a few messages, in a queue that stays nearly full.
            for _ in 0..3 {
                assert_eq!(rx.recv().unwrap(), 0);
            }
            wait_for_sent
                .recv_timeout(crate::support::DEADLINE / 2)
                .unwrap();
            sender.join();
        }
    });
}

#[test]
fn blocking_calls_block_whatever_flags_another_process_sets() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let foreign: [&dyn Fn(); 2] = [
            &|| {
                for fd in [tx.as_fd(), rx.as_fd()] {
                    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
                }
            },
            &|| {
                let millisecond = TimeVal::new(0, 1000);
                for fd in [tx.as_fd(), rx.as_fd()] {
                    fcntl(fd, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
                    setsockopt(&fd, sockopt::ReceiveTimeout, &millisecond).unwrap();
                    setsockopt(&fd, sockopt::SendTimeout, &millisecond).unwrap();
                }
            },
        ];
        for set_flags in foreign {
            set_flags();
            let receiver = forked(|| assert_eq!(rx.recv().unwrap(), 7));
            until_asleep(receiver.pid);
            tx.send(7).unwrap();
            receiver.join();

            while tx.try_send(0).is_ok() {}
            let sender = forked(|| tx.send(8).unwrap());
            until_asleep(sender.pid);
            assert_eq!(rx.iter().map(Result::unwrap).find(|&n| n != 0), Some(8));
            sender.join();
        }
    });
}

#[test]
fn both_ends_can_be_polled() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let now = Duration::ZERO;
        assert!(becomes_ready(&tx, PollFlags::POLLOUT, now));
        assert!(!becomes_ready(&rx, PollFlags::POLLIN, now));
        let child = forked(|| tx.send(1).unwrap());
        assert!(becomes_ready(
            &rx,
            PollFlags::POLLIN,
            crate::support::DEADLINE
        ));
        child.join();
        assert_eq!(rx.try_recv().unwrap(), 1);
        while tx.try_send(1).is_ok() {}
        assert!(!becomes_ready(&tx, PollFlags::POLLOUT, now));
        drop(tx);
        rx.try_iter().for_each(drop);
        assert!(becomes_ready(&rx, PollFlags::POLLIN, now));
        assert!(matches!(rx.try_recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn descriptors_and_ends_travel_between_processes() {
    in_own_process(|| {
        #[derive(Serialize, Deserialize)]
        struct Request {
            #[serde(with = "wormhole::fd")]
            file: std::fs::File,
            reply: Sender<(u32, String)>,
        }
        let before = open_fds();
        let (tx, rx) = channel::<Request>().unwrap();
        let server = forked(|| {
            for request in &rx {
                let Request { file, reply } = request.unwrap();
                let text = std::io::read_to_string(file).unwrap();
                let pid = u32::try_from(getpid().as_raw()).unwrap();
                reply.send((pid, text)).unwrap();
            }
        });
        drop(rx);
        for number in 0..100 {
            let path = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(&path, format!("file {number}")).unwrap();
            let file = std::fs::File::open(&path).unwrap();
            let (reply, answer) = channel().unwrap();
            tx.send(Request { file, reply }).unwrap();
            let (pid, text) = answer.recv().unwrap();
            assert_eq!(Pid::from_raw(i32::try_from(pid).unwrap()), server.pid);
            assert_eq!(text, format!("file {number}"));
            assert!(matches!(answer.recv(), Err(Error::Disconnected)));
        }
        // A server that dies with the request drops the reply's sender: no wait for ever.
        let (reply, answer) = channel().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        kill(server.pid, Signal::SIGSTOP).unwrap();
        tx.send(Request { file, reply }).unwrap();
        server.kill();
        assert!(matches!(answer.recv(), Err(Error::Disconnected)));
        drop((tx, answer));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_worker_pool_shares_the_work() {
    in_own_process(|| {
        let (job, jobs) = channel::<u64>().unwrap();
        let (answer, answers) = channel::<(i32, u64)>().unwrap();
        let mut job = Some(job);
        let mut workers = Vec::new();
        for _ in 0..4 {
            workers.push(forked(|| {
                job = None; // or no worker would ever see the end of the jobs
                for number in &jobs {
                    let number = number.unwrap();
                    answer.send((getpid().as_raw(), number * number)).unwrap();
                }
            }));
        }
        drop((jobs, answer));
        let job = job.unwrap();
        let feeder = forked(|| (0..5000).for_each(|number| job.send(number).unwrap()));
        drop(job);
        let (pids, squares): (Vec<_>, Vec<_>) = answers.iter().map(Result::unwrap).unzip();
        assert_eq!(squares.len(), 5000);
        assert_eq!(
            squares.iter().sum::<u64>(),
            (0..5000).map(|n| n * n).sum::<u64>()
        );
        assert!(
            pids.iter()
                .all(|&pid| workers.iter().any(|worker| worker.pid.as_raw() == pid))
        );
        feeder.join();
        workers.into_iter().for_each(|worker| worker.join());
    });
}

#[test]
fn an_end_can_be_the_output_of_another_program() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let mut printf = std::process::Command::new("printf");
        printf.arg("\\007\\0\\0\\0\\0\\0\\0\\0\"hello\"");
        printf.stdout(OwnedFd::try_from(tx).unwrap());
        assert!(printf.status().unwrap().success());
        drop(printf);
        assert_eq!(rx.recv().unwrap(), "hello");
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn a_fork_by_hand_beside_other_threads_leaves_no_lock_behind() {
    in_own_process(|| {
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    drop(channel::<u8>().unwrap());
                }
            });
            for _ in 0..1000 {
                let (tx, rx) = channel::<u32>().unwrap();
                // SAFETY: the child does what needs no other thread, and no allocation: it has sent before.
                #[allow(unsafe_code, reason = "this is about plain forks")]
                match unsafe { nix::unistd::fork() }.unwrap() {
                    nix::unistd::ForkResult::Child => {
                        drop(rx);
                        let sent = tx.try_send(7);
                        drop(tx);
                        // SAFETY: ends the process.
                        unsafe { nix::libc::_exit(sent.is_err().into()) }
                    }
                    nix::unistd::ForkResult::Parent { child } => {
                        drop(tx);
                        assert_eq!(rx.recv().unwrap(), 7);
                        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
                        nix::sys::wait::waitpid(child, None).unwrap();
                    }
                }
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}
