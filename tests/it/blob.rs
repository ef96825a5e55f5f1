//! Bulk data in sealed memory, shared by real processes and made by hostile ones.

use std::error::Error as _;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::fcntl::{FallocateFlags, FcntlArg, FdFlag, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use serde::{Deserialize, Serialize};
use wormhole::{Blob, Error, Options, Receiver, Sender, channel};

use crate::support::{
    DescriptorLimit, Forked, Random, forked, in_own_process, open_fds, os_error, packet, pipe,
    raw_send, two_way_pair,
};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    number: u32,
    data: Blob,
    more: Vec<Blob>,
}

fn noise(len: usize) -> Vec<u8> {
    let mut random = Random::new(len as u64);
    let bytes = std::iter::from_fn(|| Some(random.next().to_le_bytes()));
    bytes.flatten().take(len).collect()
}

fn reopened(fd: impl AsFd) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    File::options().read(true).write(true).open(path)
}

/// A memfd with some seals.
fn memfd(contents: &[u8], flags: MFdFlags, seals: SealFlag) -> OwnedFd {
    let fd = memfd_create(
        c"test",
        flags | MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    );
    let mut file = File::from(fd.unwrap());
    file.write_all(contents).unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    file.into()
}

fn immutable() -> SealFlag {
    SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

#[test]
fn a_blob_goes_to_another_process_and_back() {
    in_own_process(|| {
        let before = open_fds();
        let (tx, jobs) = channel::<Message>().unwrap();
        let (answer, rx) = channel::<Message>().unwrap();
        let child = forked(|| {
            for _ in 0..5 {
                let mut message = jobs.recv().unwrap();
                let reversed: Vec<u8> = message.data.iter().rev().copied().collect();
                message.more.push(Blob::from_bytes(&reversed).unwrap());
                answer.send(message).unwrap();
            }
        });
        for len in [0, 1, 4095, 4096, 1_000_000] {
            let data = Blob::from_bytes(&noise(len)).unwrap();
            let mapped = Blob::build(len, |bytes| bytes.copy_from_slice(&noise(len))).unwrap();
            assert_eq!(data, mapped);
            let message = Message {
                number: 5,
                data,
                more: vec![mapped],
            };
            tx.by_ref().send(&message).unwrap();
            let answer = rx.recv().unwrap();
            assert_eq!(answer.data, message.data);
            assert_eq!(answer.more.len(), 2);
            assert_eq!(answer.more[0].len(), len);
            assert!(answer.more[1].iter().rev().eq(message.data.iter()));
        }
        child.join();
        drop((tx, jobs, answer, rx));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn one_blob_is_shared_by_eight_processes() {
    in_own_process(|| {
        let before = open_fds();
        let blob = Blob::from_bytes(&noise(3_000_000)).unwrap();
        let inode = |blob: &Blob| {
            let stat = nix::sys::stat::fstat(blob).unwrap();
            (stat.st_dev, stat.st_ino)
        };
        let (tx, rx) = channel::<Blob>().unwrap();
        let readers: Vec<_> = (0..8)
            .map(|_| {
                forked(|| {
                    let received = rx.recv().unwrap();
                    assert_eq!(inode(&received), inode(&blob)); // the same memory, not a copy
                    assert!(*received == noise(3_000_000));
                })
            })
            .collect();
        for _ in &readers {
            tx.by_ref().send(&blob).unwrap();
        }
        readers.into_iter().for_each(Forked::join);
        drop((tx, rx, blob));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_hundred_megabytes_fit_a_message_however_small_its_limit() {
    in_own_process(|| {
        const LEN: usize = 100_000_000;
        let (tx, rx) = Options::new()
            .max_message_len(16)
            .buffer(1)
            .channel::<Blob>()
            .unwrap();
        let blob = Blob::build(LEN, |bytes| {
            for (number, chunk) in bytes.chunks_mut(1000).enumerate() {
                chunk[0] = u8::try_from(number % 256).unwrap();
            }
        })
        .unwrap();
        // One after the other could not be if their bytes travelled.
        for _ in 0..3 {
            tx.by_ref().try_send(&blob).unwrap();
        }
        drop(blob);
        let reader = forked(|| {
            for blob in rx.iter().take(3) {
                let blob = blob.unwrap();
                assert_eq!(blob.len(), LEN);
                let firsts = blob.chunks(1000).enumerate();
                assert!(
                    firsts
                        .into_iter()
                        .all(|(n, chunk)| usize::from(chunk[0]) == n % 256)
                );
            }
        });
        reader.join();
    });
}

#[test]
fn an_empty_blob_is_a_blob() {
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<Blob>().unwrap();
        let built = Blob::build(0, |bytes| assert!(bytes.is_empty())).unwrap();
        for blob in [Blob::from_bytes(b"").unwrap(), built] {
            assert!(blob.is_empty());
            tx.by_ref().send(&blob).unwrap();
            let received = rx.recv().unwrap();
            assert!(received.is_empty());
            assert_eq!(received, blob);
            assert!(reopened(&received).unwrap().write(b"x").is_err());
            assert_eq!(received.clone().as_ref(), b"");
        }
        drop((tx, rx));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_blob_is_bytes() {
    in_own_process(|| {
        fn is_shareable<T: Send + Sync + Clone + Eq>(_: &T) {}
        let blob = Blob::from_bytes(b"0123456789").unwrap();
        is_shareable(&blob);
        let before = open_fds();
        let clone = blob.clone();
        assert_eq!(open_fds(), before);
        assert_eq!(clone.as_ptr(), blob.as_ptr());
        drop(blob);
        assert_eq!(&clone[2..4], b"23");
        assert_eq!(clone.as_ref().len(), 10);
        assert_eq!(format!("{clone:?}"), "Blob { len: 10 }");
        assert_ne!(clone, Blob::from_bytes(b"").unwrap());
        let flags = fcntl(&clone, FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
        // Gone with its last owner, memory included.
        let address = format!("{:x}-", clone.as_ptr() as usize);
        let maps = || fs::read_to_string("/proc/self/maps").unwrap();
        assert!(maps().contains(&address));
        drop(clone);
        assert!(!maps().contains(&address));
    });
}

#[test]
fn nobody_can_change_a_blob() {
    in_own_process(|| {
        let (tx, rx) = channel::<Blob>().unwrap();
        let contents = noise(10_000);
        let made = [
            Blob::from_bytes(&contents).unwrap(),
            Blob::build(10_000, |bytes| bytes.copy_from_slice(&contents)).unwrap(),
        ];
        for blob in made {
            tx.by_ref().send(&blob).unwrap();
            let received = rx.recv().unwrap();
            let is_denied = |result: io::Result<()>| {
                let error = result.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(nix::libc::EPERM), "{error}");
            };
            // Neither who made it nor who received it, through any descriptor of it.
            let duplicate = |blob: &Blob| File::from(blob.as_fd().try_clone_to_owned().unwrap());
            for file in [
                duplicate(&blob),
                duplicate(&received),
                reopened(&blob).unwrap(),
                reopened(&received).unwrap(),
            ] {
                is_denied(file.write_at(b"x", 0).map(drop));
                is_denied(file.write_at(b"x", 10_000).map(drop));
                is_denied(file.set_len(0));
                is_denied(file.set_len(20_000));
                let punch =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                is_denied(fallocate(&file, punch, 0, 4096).map_err(Into::into));
                let seal = fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SEAL));
                is_denied(seal.map(drop).map_err(Into::into));
                let mapped = map_writable(&file);
                is_denied(mapped.map(drop).map_err(Into::into));
            }
            assert!(*blob == contents && *received == contents);
        }
    });
}

/// Maps a page for writing, shared with whoever else has it, and never touches it.
fn map_writable(fd: impl AsFd) -> Result<*mut std::ffi::c_void, rustix::io::Errno> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: nothing is mapped over, and what is mapped is not used.
    #[allow(unsafe_code, reason = "no safe way to map memory")]
    unsafe {
        mmap(
            std::ptr::null_mut(),
            4096,
            protection,
            MapFlags::SHARED,
            fd,
            0,
        )
    }
}

/// The same message, for a receiver that expects a blob, with any descriptor in its place.
#[derive(Serialize, Deserialize)]
struct AnyFd(#[serde(with = "wormhole::fd")] OwnedFd);

fn hostile() -> Vec<(&'static str, OwnedFd, &'static str)> {
    let plain = MFdFlags::empty();
    let without = |seal| memfd(b"12345", plain, immutable().difference(seal));
    let regular = {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"12345").unwrap();
        file
    };
    let in_memory = {
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.write_all(b"12345").unwrap();
        file
    };
    let mut list = vec![
        (
            "a memfd without seals",
            memfd(b"12345", plain, SealFlag::empty()),
            "sealed against writing",
        ),
        (
            "one that can be written to",
            without(SealFlag::F_SEAL_WRITE),
            "sealed against writing",
        ),
        (
            "one whose present mappings can be written to",
            memfd(
                b"12345",
                plain,
                immutable().difference(SealFlag::F_SEAL_WRITE)
                    | SealFlag::from_bits_retain(nix::libc::F_SEAL_FUTURE_WRITE),
            ),
            "sealed against writing",
        ),
        (
            "one that shrinks",
            without(SealFlag::F_SEAL_SHRINK),
            "sealed against shrinking",
        ),
        (
            "one that grows",
            without(SealFlag::F_SEAL_GROW),
            "sealed against growing",
        ),
        (
            "only the seal of seals",
            memfd(b"12345", plain, SealFlag::F_SEAL_SEAL),
            "sealed against writing",
        ),
        (
            "/dev/zero",
            File::open("/dev/zero").unwrap().into(),
            "not a memfd",
        ),
        (
            "/dev/null",
            File::open("/dev/null").unwrap().into(),
            "not a memfd",
        ),
        ("a regular file", regular.into(), "not a"),
        (
            "a file in memory",
            in_memory.into(),
            "sealed against writing",
        ),
        (
            "a directory",
            File::open("/").unwrap().into(),
            "not a memfd",
        ),
        ("a pipe", pipe().0.into(), "not a memfd"),
        ("a socket", two_way_pair().0, "not a memfd"),
    ];
    let sealed = memfd(b"12345", plain, immutable());
    let write_only = File::options()
        .write(true)
        .open(format!("/proc/self/fd/{}", sealed.as_raw_fd()))
        .unwrap();
    list.push((
        "one that cannot be read",
        write_only.into(),
        "cannot map a blob",
    ));
    let huge = memfd_create(
        c"test",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_HUGETLB,
    );
    match huge {
        Ok(huge) => {
            let huge = File::from(huge);
            huge.set_len(1 << 30).unwrap();
            fcntl(&huge, FcntlArg::F_ADD_SEALS(immutable())).unwrap();
            list.push((
                "huge pages that are not there",
                huge.into(),
                "made of huge pages",
            ));
        }
        Err(error) => eprintln!("skipped: no huge pages: {error}"),
    }
    // More than there are addresses.
    let file = File::from(memfd(b"", plain, SealFlag::empty()));
    file.set_len(i64::MAX as u64).unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(immutable())).unwrap();
    list.push(("more than can be mapped", file.into(), "cannot map a blob"));
    list
}

#[test]
fn what_is_not_sealed_memory_is_a_typed_error_and_closed() {
    in_own_process(|| {
        let (tx, mut rx) = channel::<Blob>().unwrap();
        rx.set_max_blob_len(u64::MAX); // what is too long is to fail for what it is
        let fds = Sender::<AnyFd>::try_from(tx.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let good = Blob::from_bytes(b"good").unwrap();
        let before = open_fds();
        for (name, fd, expected) in hostile() {
            fds.send(AnyFd(fd.try_clone().unwrap())).unwrap();
            tx.by_ref().send(&good).unwrap();
            let error = rx.recv().expect_err(name);
            assert!(matches!(error, Error::Decode { .. }), "{name}: {error:?}");
            assert!(error.to_string().contains(expected), "{name}: {error}");
            assert_eq!(rx.recv().unwrap(), good, "after {name}");

            let error = Blob::try_from(fd).expect_err(name);
            assert!(
                matches!(error, Error::NotABlob { .. } | Error::Io { .. }),
                "{name}: {error:?}"
            );
            assert!(error.to_string().contains(expected), "{name}: {error}");
        }
        // The text may lie as well.
        for text in ["0", "\"0\"", "-1", "1", "null", "[]"] {
            raw_send(&tx, &packet(text.as_bytes()), &[]);
            assert!(matches!(rx.recv(), Err(Error::Decode { .. })), "{text}");
        }
        assert_eq!(
            rx.try_recv().map(drop).unwrap_err().to_string(),
            "cannot receive now: nothing is waiting"
        );
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn sealed_memory_of_other_programs_is_a_blob() {
    in_own_process(|| {
        let plain = MFdFlags::empty();
        let all = immutable() | SealFlag::F_SEAL_SEAL;
        for seals in [immutable(), all] {
            let blob = Blob::try_from(memfd(b"12345", plain, seals)).unwrap();
            assert_eq!(&*blob, b"12345");
        }
        let exec = SealFlag::from_bits_retain(nix::libc::F_SEAL_EXEC);
        for (mode, no_exec) in [
            (0o700, plain),
            (
                0o600,
                MFdFlags::from_bits_retain(nix::libc::MFD_NOEXEC_SEAL),
            ),
        ] {
            let fd = memfd(b"12345", no_exec, SealFlag::empty());
            let file = File::from(fd);
            file.set_permissions(PermissionsExt::from_mode(mode))
                .unwrap();
            fcntl(&file, FcntlArg::F_ADD_SEALS(all | exec)).unwrap();
            assert_eq!(&*Blob::try_from(OwnedFd::from(file)).unwrap(), b"12345");
        }
        // One with nothing in it yet reads as zeros. It costs addresses only.
        let sparse = File::from(memfd(b"", plain, SealFlag::empty()));
        let len = usize::try_from(1_u64 << 40).unwrap_or(1 << 30);
        sparse.set_len(len as u64).unwrap();
        fcntl(&sparse, FcntlArg::F_ADD_SEALS(immutable())).unwrap();
        let blob = Blob::try_from(OwnedFd::from(sparse)).unwrap();
        assert_eq!(blob.len(), len);
        assert_eq!((blob[0], blob[len / 2], blob[len - 1]), (0, 0, 0));
        // The offset of a descriptor means nothing.
        let mut moved = File::from(memfd(b"12345", plain, immutable()));
        moved.rewind().unwrap();
        moved.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(&*Blob::try_from(OwnedFd::from(moved)).unwrap(), b"12345");
    });
}

#[test]
fn a_sender_that_can_still_write_cannot_seal() {
    in_own_process(|| {
        let fd = memfd(&[7; 4096], MFdFlags::empty(), SealFlag::empty());
        let writable = map_writable(&fd).unwrap();
        let sealed = fcntl(&fd, FcntlArg::F_ADD_SEALS(immutable()));
        assert_eq!(sealed, Err(nix::Error::EBUSY));
        assert!(matches!(
            Blob::try_from(fd.try_clone().unwrap()),
            Err(Error::NotABlob { .. })
        ));
        // SAFETY: just this was mapped, and nobody uses it.
        #[allow(unsafe_code, reason = "no safe way to unmap memory")]
        unsafe { munmap(writable, 4096) }.unwrap();
        fcntl(&fd, FcntlArg::F_ADD_SEALS(immutable())).unwrap();
        assert_eq!(&*Blob::try_from(fd).unwrap(), [7; 4096]);
    });
}

#[test]
fn a_fork_while_a_blob_is_filled_cannot_change_it() {
    in_own_process(|| {
        let (stop, stopped) = channel::<()>().unwrap();
        let before = open_fds();
        let mut child = None;
        let blob = Blob::build(5_000_000, |bytes| {
            bytes.fill(3);
            child = Some(forked(|| {
                stopped.recv().unwrap(); // with the memory mapped, writable
                bytes.fill(4);
            }));
        })
        .unwrap();
        stop.send(()).unwrap();
        child.unwrap().join();
        assert_eq!(blob.len(), 5_000_000);
        assert!(blob.iter().all(|&byte| byte == 3));
        assert!(reopened(&blob).unwrap().write(b"x").is_err());
        drop(blob);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_blob_that_cannot_be_made_is_an_error_and_leaves_nothing() {
    in_own_process(|| {
        let before = open_fds();
        let cause = |result: Result<Blob, Error>| match result.unwrap_err() {
            Error::Io { source, .. } => source.raw_os_error(),
            error => panic!("{error:?}"),
        };
        let never = |_: &mut [u8]| panic!("there is nothing to fill");
        let overcommit = fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap();
        let beyond_the_machine = if overcommit == "1\n" {
            usize::MAX
        } else {
            usize::try_from(1_u64 << 45).unwrap_or(usize::MAX)
        };
        let mut lens = vec![usize::MAX, beyond_the_machine];
        // With 32 bits a machine may have that much.
        if cfg!(target_pointer_width = "64") {
            lens.push(isize::MAX as usize);
        }
        for len in lens {
            assert_eq!(cause(Blob::build(len, never)), Some(nix::libc::ENOMEM));
        }
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            Blob::build(1000, |_| panic!("as it should"))
        }));
        assert!(panicked.is_err());

        let limit = DescriptorLimit::new();
        assert_eq!(cause(Blob::from_bytes(b"x")), Some(nix::libc::EMFILE));
        assert_eq!(cause(Blob::build(1, never)), Some(nix::libc::EMFILE));
        drop(limit);

        // Beyond this limit the kernel would kill the process.
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, 1000, hard).unwrap();
        assert_eq!(cause(Blob::from_bytes(&[1; 1001])), Some(nix::libc::EFBIG));
        assert_eq!(cause(Blob::build(1001, never)), Some(nix::libc::EFBIG));
        assert_eq!(Blob::from_bytes(&[1; 1000]).unwrap().len(), 1000);
        assert_eq!(Blob::build(1000, |_| ()).unwrap().len(), 1000);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn out_of_descriptors_or_addresses_on_receive_is_an_error_that_passes() {
    in_own_process(|| {
        let (tx, rx): (Sender<Blob>, Receiver<Blob>) = channel().unwrap();
        let blob = Blob::from_bytes(&noise(100_000)).unwrap();
        for _ in 0..3 {
            tx.by_ref().send(&blob).unwrap();
        }
        let before = open_fds();
        let limit = DescriptorLimit::new();
        assert!(matches!(rx.recv(), Err(Error::FdsLost)));
        drop(limit);
        let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
        rx.try_recv().unwrap(); // the thread's buffers
        setrlimit(Resource::RLIMIT_AS, 1, hard).unwrap();
        let refused = rx.recv();
        setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
        let expected = format!("cannot map a blob: {}", os_error(nix::Error::ENOMEM));
        assert!(refused.unwrap_err().to_string().contains(&expected));
        tx.by_ref().send(&blob).unwrap();
        assert_eq!(rx.recv().unwrap(), blob);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_blob_outside_a_message_cannot_be_written_as_text() {
    let blob = Blob::from_bytes(b"x").unwrap();
    let error = serde_json::to_string(&blob).unwrap_err();
    assert!(error.to_string().contains("wormhole send"), "{error}");
    assert!(error.source().is_none());
    assert!(serde_json::from_str::<Blob>("0").is_err());
}

/// A sealed memfd of a length that has used no memory yet.
fn sparse(len: i64) -> OwnedFd {
    let plain = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = File::from(memfd(b"", plain, SealFlag::empty()));
    file.set_len(len.unsigned_abs()).unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(immutable())).unwrap();
    file.into()
}

#[test]
fn blobs_longer_than_the_limit_are_refused_before_they_are_mapped() {
    in_own_process(|| {
        let (tx, rx) = Options::new()
            .max_blob_len(1000)
            .channel::<Vec<Blob>>()
            .unwrap();
        let fds = tx.clone().cast::<Vec<AnyFd>>();
        let before = open_fds();
        // As long as anything that can be mapped at all.
        let longest = i64::try_from(isize::MAX).unwrap().min(1 << 46);
        let mut hostile = vec![sparse(longest)];
        hostile.extend((0..2).map(|_| sparse(600)));
        for fds_of_message in [vec![0], vec![1, 2]] {
            let message = fds_of_message
                .iter()
                .map(|&at: &usize| hostile[at].try_clone().unwrap());
            fds.send(message.map(AnyFd).collect()).unwrap();
            let error = rx.recv().unwrap_err();
            assert!(matches!(error, Error::Decode { .. }), "{error}");
            let len = if fds_of_message == [0] { longest } else { 1200 };
            let expected = format!("blobs of {len} bytes are longer than the limit of 1000 bytes");
            assert!(error.to_string().contains(&expected), "{error}");
        }
        fds.send(vec![AnyFd(sparse(999)), AnyFd(sparse(1))])
            .unwrap();
        assert_eq!(
            rx.recv()
                .unwrap()
                .iter()
                .map(|blob| blob.len())
                .sum::<usize>(),
            1000
        );
        // The limit is that of one message, and of this handle.
        let mut patient = rx.clone();
        patient.set_max_blob_len(2000);
        fds.send(vec![AnyFd(sparse(1500))]).unwrap();
        assert_eq!(patient.recv().unwrap()[0].len(), 1500);
        drop(hostile);
        assert_eq!(open_fds(), before);

        let (tx, rx) = channel::<Blob>().unwrap();
        tx.cast::<AnyFd>()
            .send(AnyFd(sparse((1 << 30) + 1)))
            .unwrap();
        let error = rx.recv().unwrap_err();
        assert!(
            error
                .to_string()
                .contains("longer than the limit of 1073741824 bytes"),
            "{error}"
        );
    });
}

#[test]
fn a_blob_that_fails_half_way_leaves_nothing() {
    in_own_process(|| {
        let before = open_fds();
        let failed: Result<Blob, std::io::Error> = Blob::try_build(10, |bytes| {
            bytes[0] = 1;
            Err(std::io::Error::other("as the test wants it"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "as the test wants it");
        let read = Blob::from_reader(File::open("/proc/self/mem").unwrap());
        assert!(matches!(read, Err(Error::Io { .. })));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_blob_of_unknown_length_is_what_was_written() {
    let mut writer = wormhole::BlobWriter::new().unwrap();
    let mut expected = Vec::new();
    for number in 0..10_000_u32 {
        writer.write_all(&number.to_le_bytes()).unwrap();
        expected.extend(number.to_le_bytes());
    }
    let blob = writer.finish().unwrap();
    assert_eq!(*blob, *expected);
    let (tx, rx) = channel::<Blob>().unwrap();
    tx.send(blob).unwrap();
    assert_eq!(*rx.recv().unwrap(), *expected);
    assert!(
        wormhole::BlobWriter::new()
            .unwrap()
            .finish()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_memfd_becomes_a_blob_by_being_sealed() {
    let plain = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd(b"12345", plain, SealFlag::empty());
    let other = File::from(fd.try_clone().unwrap());
    let blob = Blob::seal(fd).unwrap();
    assert_eq!(&*blob, b"12345");
    assert!(other.set_len(3).is_err(), "sealed for all who have it");
    assert_eq!(
        &*Blob::seal(other.into()).unwrap(),
        b"12345",
        "twice does no harm"
    );
    let unsealable = memfd(b"12345", plain, SealFlag::F_SEAL_SEAL);
    assert!(matches!(
        Blob::seal(unsealable),
        Err(Error::NotABlob { .. })
    ));
    let file = File::open("/dev/null").unwrap();
    assert!(matches!(
        Blob::seal(file.into()),
        Err(Error::NotABlob { .. })
    ));
}

#[test]
fn no_child_is_forked_while_a_blob_is_being_filled() {
    in_own_process(|| {
        let mut refused = None;
        let blob = Blob::build(1, |bytes| {
            bytes[0] = 1;
            refused = wormhole::spawn((), |()| ()).err();
        });
        assert!(matches!(refused, Some(Error::Io { .. })), "{refused:?}");
        assert_eq!(*blob.unwrap(), [1]);
        wormhole::spawn((), |()| ()).unwrap().join().unwrap();
    });
}
