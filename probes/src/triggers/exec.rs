//! Executing a program, in a child.

use super::children::in_child;
use super::{Act, act};
use crate::errno::Errno;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

const PATH: &std::ffi::CStr = c"/tmp/leaves";
/// Where the program is loaded.
const BASE: u64 = 0x40_0000;
/// Size of a program header, and of the ELF header and one of these (elf(5)).
const HEADER: u64 = 56;
const HEADS: u64 = 64 + HEADER;
const PAGE: usize = 4096;
/// `mov eax, 60; xor edi, edi; syscall`: exit(0).
const CODE: [u8; 9] = [0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];

/// `execve(2)` of a static program that only leaves. The child stays named until it has left.
///
/// # Errors
/// The errno of writing the program.
pub fn execve() -> Result<Act, Errno> {
    write_program("/tmp/leaves", &CODE)?;
    act(|arm| {
        let result = in_child(|| {
            arm.during(|| {
                let argv = [PATH.as_ptr(), std::ptr::null()];
                let envp = [std::ptr::null()];
                // SAFETY: a terminated path and two terminated lists, all alive across the call.
                Errno::result(unsafe { libc::execve(PATH.as_ptr(), argv.as_ptr(), envp.as_ptr()) }).map(drop)
            })
        });
        arm.name_nobody(); // a child that came through could not do it
        result
    })
}

/// Writes a program that only leaves.
pub(crate) fn write_leaver(path: &str) -> Result<(), Errno> {
    write_program(path, &CODE)
}

/// Writes a program that makes the empty file `/asked` and leaves.
pub(super) fn write_loader(path: &str) -> Result<(), Errno> {
    // mov eax, 2; lea rdi, [rip+name]; mov esi, O_CREAT; mov edx, 0600; syscall; then as in `CODE`
    let mut code =
        vec![0xb8, 2, 0, 0, 0, 0x48, 0x8d, 0x3d, 21, 0, 0, 0, 0xbe, 0x40, 0, 0, 0, 0xba, 0x80, 1, 0, 0];
    code.extend([0x0f, 0x05]);
    code.extend(CODE);
    code.extend(b"/asked\0");
    write_program(path, &code)
}

fn write_program(path: &str, code: &[u8]) -> Result<(), Errno> {
    write_executable(path, &program(code))
}

/// Writes a file that may be executed.
pub(crate) fn write_executable(path: &str, content: &[u8]) -> Result<(), Errno> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(path)?;
    file.write_all(content)?;
    Ok(()) // closed: a program open for writing cannot be executed (ETXTBSY)
}

/// A program that only leaves.
pub(crate) fn leaver() -> Vec<u8> {
    program(&CODE)
}

/// The smallest static x86-64 program: one header, one segment, one system call.
fn program(code: &[u8]) -> Vec<u8> {
    elf(BASE, code, None)
}

/// The same as an interpreter. It fills its page: the kernel clears what is left of one, also of one that is read-only (5.10
/// fs/binfmt_elf.c, load_elf_interp).
pub(crate) fn interpreter() -> Vec<u8> {
    let mut page = CODE.to_vec();
    page.resize(PAGE - usize::try_from(HEADS).unwrap_or(0), 0);
    program(&page)
}

/// A program that has an interpreter, which is a static program; it runs instead.
pub(crate) fn interpreted(interpreter: &str) -> Vec<u8> {
    elf(2 * BASE, &CODE, Some(interpreter))
}

/// A program that is loaded at `base`.
fn elf(base: u64, code: &[u8], interpreter: Option<&str>) -> Vec<u8> {
    let headers = 1 + u16::from(interpreter.is_some());
    let heads = HEADS + if interpreter.is_some() { HEADER } else { 0 };
    let name = interpreter.map(|name| [name.as_bytes(), b"\0"].concat()).unwrap_or_default();
    let end = heads + code.len() as u64;
    let size = end + name.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 62] {
        elf.extend(half.to_le_bytes()); // ET_EXEC, EM_X86_64
    }
    elf.extend(1_u32.to_le_bytes());
    for word in [base + heads, 64, 0] {
        elf.extend(word.to_le_bytes()); // entry, program headers, section headers
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, headers, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let mut header = |what: [u32; 2], words: [u64; 6]| {
        elf.extend(what.into_iter().flat_map(u32::to_le_bytes));
        elf.extend(words.into_iter().flat_map(u64::to_le_bytes));
    };
    if interpreter.is_some() {
        header([3, 4], [end, base + end, base + end, size - end, size - end, 1]); // PT_INTERP, readable
    }
    header([1, 5], [0, base, base, size, size, 0x1000]); // PT_LOAD, readable and executable
    elf.extend(code);
    elf.extend(name);
    elf
}

#[cfg(test)]
mod tests {
    use super::{CODE, HEADS, program};

    #[test]
    fn the_entry_point_lies_behind_the_headers() {
        let elf = program(&CODE);
        assert_eq!(elf.len(), usize::try_from(HEADS).unwrap() + CODE.len());
        assert_eq!(&elf[24..32], &(0x40_0000 + HEADS).to_le_bytes());
        let out = tempdir();
        let path = out.join("leaves");
        std::fs::write(&path, &elf).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert!(std::process::Command::new(&path).status().unwrap().success());
        std::fs::remove_dir_all(out).unwrap();
    }

    fn tempdir() -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("conform-elf-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}
