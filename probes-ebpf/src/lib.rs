//! What the BPF programs share: reading the globals that the loader sets, finding out who is running, the result map.
//!
//! A global is a `static` that the object keeps in `.rodata`. The loader overwrites it before the map behind it is
//! frozen, so that the verifier knows its value as a constant: a field offset that comes from the running kernel's BTF
//! may then be added to a trusted pointer as if it had been in the instruction.
#![no_std]

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, maps::Array};

pub mod layout;

/// `-EPERM`, as a hook returns it.
pub const MINUS_EPERM: i32 = -1;

/// Reads a global as the loader has set it.
#[inline(always)]
pub fn global<T: Copy>(of: &'static T) -> T {
    // SAFETY: a reference is valid to read from. Volatile, because the value in the source is not the one that the
    // program will find.
    unsafe { core::ptr::read_volatile(of) }
}

/// Whether the task that made the kernel call the hook belongs to the process `tgid`.
#[inline(always)]
#[must_use]
pub fn runs_in(tgid: &'static u32) -> bool {
    bpf_get_current_pid_tgid() >> 32 == u64::from(global(tgid))
}

/// Reads a pointer-sized field at a known offset by walking a pointer that the verifier trusts, as C does.
///
/// # Safety
/// `base` is a pointer that the verifier knows the type of, and `offset` is where that type has a 64-bit field.
#[inline(always)]
#[must_use]
pub unsafe fn walk(base: u64, offset: &'static u32) -> u64 {
    // SAFETY: by the caller's promise; the verifier checks it again and the kernel catches a fault.
    unsafe { core::ptr::read_volatile((base + u64::from(global(offset))) as *const u64) }
}

/// The only element of a result map. Written without atomics: the one process that counts runs one system call at a
/// time.
#[inline(always)]
pub fn results<T>(map: &'static Array<T>) -> Option<&'static mut T> {
    // SAFETY: the kernel keeps an array's element in place; a program does not run twice at the same time for one task.
    map.get_ptr_mut(0).map(|element| unsafe { &mut *element })
}

/// Declares what every object needs besides its programs: the licence section and, because `core` wants one, a handler
/// for panics that no program contains.
#[macro_export]
macro_rules! object {
    () => {
        /// Helpers marked GPL-only may be called.
        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
            loop {}
        }
    };
}
