//! Where this program's code lies, and whether another process runs the same program.

use std::ffi::{c_int, c_void};
use std::fmt::Write;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use crate::error::{Error, Result};

/// The running copy of a program.
pub(super) const EXECUTABLE: &str = "/proc/self/exe";

/// What of this process's memory is the program itself, without its libraries.
#[derive(Debug, Default)]
struct Program {
    /// How far it lies from where its file says: another distance in each process.
    bias: usize,
    code: Vec<Range<usize>>,
    /// The note by which its linker tells one build from another, if there is one.
    build_id: String,
    /// Where its headers are.
    headers: usize,
}

fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(look)
}

#[allow(unsafe_code, reason = "asks the dynamic loader, which speaks C")]
fn look() -> Program {
    let mut program = Program::default();
    // SAFETY: `first` takes what it is given here for what it is, a `Program`.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut program).cast()) };
    program
}

/// Takes down the first object, and asks for no other.
// KERNEL: dl_iterate_phdr(3): the first object is the main program. In static ones it is the only one.
#[allow(unsafe_code, reason = "asks the dynamic loader, which speaks C")]
unsafe extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, to: *mut c_void) -> c_int {
    // SAFETY: the loader passes a valid `info`.
    let info = unsafe { &*info };
    // SAFETY: this is what `look` passes.
    let program = unsafe { &mut *to.cast::<Program>() };
    // SAFETY: so many headers are there, for as long as the program runs.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let bias = address(info.dlpi_addr);
    program.bias = bias;
    program.headers = info.dlpi_phdr.addr();
    for header in headers {
        let start = bias.wrapping_add(address(header.p_vaddr));
        let len = address(header.p_memsz);
        match header.p_type {
            libc::PT_LOAD if header.p_flags & libc::PF_X != 0 => {
                program.code.push(start..start.saturating_add(len));
            }
            libc::PT_NOTE if program.build_id.is_empty() => {
                let start = std::ptr::with_exposed_provenance::<u8>(start);
                // SAFETY: the notes of a program are a part of it that is loaded and never written to.
                let notes = unsafe { std::slice::from_raw_parts(start, len) };
                program.build_id = build_id(notes).unwrap_or_default();
            }
            _ => {}
        }
    }
    1
}

/// An address, or a size, of the loader's: a word wide.
#[allow(
    clippy::unnecessary_fallible_conversions,
    reason = "the type depends on the machine"
)]
fn address(word: impl TryInto<usize>) -> usize {
    word.try_into().unwrap_or(usize::MAX)
}

/// Finds the build's id among notes, see `elf(5)`.
fn build_id(mut notes: &[u8]) -> Option<String> {
    const NT_GNU_BUILD_ID: u32 = 3;
    let word = |notes: &mut &[u8]| {
        let (word, rest) = notes.split_first_chunk::<4>()?;
        *notes = rest;
        Some(u32::from_ne_bytes(*word))
    };
    let padded = |len: u32| Some(usize::try_from(len).ok()?.next_multiple_of(4));
    loop {
        let (name_len, len, kind) = (word(&mut notes)?, word(&mut notes)?, word(&mut notes)?);
        let (name, rest) = notes.split_at_checked(padded(name_len)?)?;
        if name == b"GNU\0" && kind == NT_GNU_BUILD_ID {
            let mut hex = String::new();
            for byte in rest.get(..usize::try_from(len).ok()?)? {
                let _ = write!(hex, "{byte:02x}");
            }
            return Some(hex);
        }
        notes = rest.get(padded(len)?..)?;
    }
}

/// What tells this program from all others: its build id, or else its file.
pub(super) fn identity() -> Result<String> {
    let build_id = &program().build_id;
    if !build_id.is_empty() {
        return Ok(format!("build {build_id}"));
    }
    let file = fs::metadata(EXECUTABLE)
        .map_err(|source| Error::io("look at this program's own file (/proc/self/exe)", source))?;
    Ok(format!(
        "file {} {} {} {}",
        file.dev(),
        file.ino(),
        file.len(),
        file.mtime()
    ))
}

/// Whether this process runs with more rights than the user who started it.
#[allow(unsafe_code, reason = "no safe way to look at the auxiliary vector")]
pub(super) fn is_privileged() -> bool {
    // SAFETY: looks up a number.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) };
    secure != 0
}

/// Whether `/proc/self/exe` is not this program but the loader that was told to load it.
pub(super) fn is_run_by_a_loader() -> bool {
    headers_by_the_kernel().is_some_and(|headers| headers != program().headers)
}

/// Where the headers of the program are that the kernel has loaded. `None` where there is no `/proc`.
// getauxval(3) will not do: glibc's loader puts there what it has loaded itself.
fn headers_by_the_kernel() -> Option<usize> {
    const WORD: usize = size_of::<usize>();
    let vector = fs::read("/proc/self/auxv").ok()?;
    let words = vector.chunks_exact(WORD).filter_map(<[u8]>::first_chunk);
    let mut words = words.map(|word| usize::from_ne_bytes(*word));
    loop {
        let (kind, value) = (words.next()?, words.next()?);
        if kind == address(libc::AT_PHDR) {
            return Some(value);
        }
    }
}

/// Where a function lies in this program, the same in every copy of it. `None` if it is no function of it.
pub(super) fn offset_of(function: usize) -> Option<u64> {
    let program = program();
    let lies_in = program.code.iter().any(|code| code.contains(&function));
    lies_in.then(|| function.wrapping_sub(program.bias) as u64)
}

/// The function at an offset that [`offset_of`] gave in a process that runs the same program. `None` if no code is
/// there.
///
/// # Safety
///
/// It was a function of type `F`.
#[allow(unsafe_code, reason = "makes a function out of a number")]
pub(super) unsafe fn function_at<F: Copy>(offset: u64) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*const ()>()) };
    let program = program();
    let address = program.bias.wrapping_add(usize::try_from(offset).ok()?);
    program.code.iter().find(|code| code.contains(&address))?;
    let function = std::ptr::with_exposed_provenance::<()>(address);
    // SAFETY: a function pointer is as wide as any, and the caller says that the type is right.
    Some(unsafe { std::mem::transmute_copy(&function) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code, reason = "this is what is tested")]
    fn a_function_is_found_again_by_its_offset() {
        fn twice(number: u32) -> u32 {
            number * 2
        }
        let function: fn(u32) -> u32 = twice;
        let offset = offset_of(function as usize).unwrap();
        // SAFETY: it was of that type.
        let found = unsafe { function_at::<fn(u32) -> u32>(offset) }.unwrap();
        assert_eq!(found(21), 42);
        // SAFETY: there is no code, so nothing is called.
        assert!(unsafe { function_at::<fn()>(u64::MAX) }.is_none());
    }

    #[test]
    fn what_is_no_code_of_this_program_has_no_offset() {
        let on_the_stack = 0_u8;
        assert_eq!(offset_of((&raw const on_the_stack).addr()), None);
        static DATA: u8 = 0;
        assert_eq!(offset_of((&raw const DATA).addr()), None);
        if !cfg!(target_feature = "crt-static") {
            assert_eq!(offset_of(libc::getpid as *const () as usize), None, "libc");
        }
        assert_eq!(offset_of(0), None);
    }

    #[test]
    fn notes_that_are_cut_short_have_no_build_id() {
        let mut notes = Vec::new();
        for (name, kind, text) in [("GNU\0", 1_u32, "abcd"), ("GNU\0", 3, "\u{1}\u{2}~")] {
            notes.extend(u32::to_ne_bytes(4));
            notes.extend(u32::to_ne_bytes(u32::try_from(text.len()).unwrap()));
            notes.extend(kind.to_ne_bytes());
            notes.extend(name.bytes().chain(text.bytes()));
        }
        assert_eq!(build_id(&notes).as_deref(), Some("01027e"));
        for len in 0..notes.len() {
            assert_eq!(build_id(&notes[..len]), None, "{len}");
        }
        assert!(!is_run_by_a_loader() && !is_privileged());
    }

    #[test]
    fn a_program_is_told_by_the_id_of_its_build_as_its_file_has_it() {
        let bytes = fs::read(EXECUTABLE).unwrap();
        // A note's three lengths and kinds, and its name.
        let note = [4_u32, 20, 3].map(u32::to_ne_bytes).concat();
        let note = [&*note, b"GNU\0"].concat();
        let at = bytes.windows(note.len()).position(|part| part == note);
        let expected = match at {
            Some(at) => bytes[at..][note.len()..][..20]
                .iter()
                .fold("build ".to_owned(), |id, byte| format!("{id}{byte:02x}")),
            None => "file ".to_owned(), // its linker writes none
        };
        let identity = identity().unwrap();
        assert!(identity.starts_with(&expected), "{identity}: {expected}");
        assert_eq!(at.is_some(), identity.len() == expected.len());
    }
}
