//! Errno values as the kernel gives them, including those that no C library knows.
//!
//! The verifier and the trampoline code return `ENOTSUPP` (524), which `nix` folds into "unknown"; a record must say
//! which one it was.

use std::fmt;

/// An errno.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(i32);

/// include/linux/errno.h: kernel-internal, yet seen by users of bpf(2).
const ENOTSUPP: i32 = 524;

impl Errno {
    /// Operation not permitted.
    pub const EPERM: Self = Self(libc::EPERM);
    /// No such file or directory.
    pub const ENOENT: Self = Self(libc::ENOENT);
    /// Interrupted.
    pub const EINTR: Self = Self(libc::EINTR);
    /// Try again.
    pub const EAGAIN: Self = Self(libc::EAGAIN);
    /// Out of memory.
    pub const ENOMEM: Self = Self(libc::ENOMEM);
    /// Permission denied.
    pub const EACCES: Self = Self(libc::EACCES);
    /// Bad address; from the trampoline code of old kernels: no room for what it has to call.
    pub const EFAULT: Self = Self(libc::EFAULT);
    /// Device or resource busy.
    pub const EBUSY: Self = Self(libc::EBUSY);
    /// File exists.
    pub const EEXIST: Self = Self(libc::EEXIST);
    /// Invalid argument.
    pub const EINVAL: Self = Self(libc::EINVAL);
    /// No space left; from the verifier: the log buffer was too small.
    pub const ENOSPC: Self = Self(libc::ENOSPC);

    /// Argument list too long; from bpf(2): the kernel does not know all of the attribute.
    pub const E2BIG: Self = Self(libc::E2BIG);
    /// Value too large.
    pub const EOVERFLOW: Self = Self(libc::EOVERFLOW);
    /// No more disk space for this user.
    pub const EDQUOT: Self = Self(libc::EDQUOT);
    /// No such system call.
    pub const ENOSYS: Self = Self(libc::ENOSYS);

    /// From the number, which may be negative as programs return it.
    #[must_use]
    pub const fn from_raw(number: i32) -> Self {
        Self(number.saturating_abs())
    }

    /// The positive number.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The calling thread's last error.
    #[must_use]
    pub fn last() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    /// The result of a system call that returns -1 and sets errno on failure.
    ///
    /// # Errors
    /// The errno.
    pub fn result<T: PartialOrd + Default>(value: T) -> Result<T, Self> {
        if value < T::default() { Err(Self::last()) } else { Ok(value) }
    }

    /// The symbolic name, `EPERM`.
    #[must_use]
    pub fn name(self) -> String {
        match self.0 {
            ENOTSUPP => "ENOTSUPP".to_owned(),
            number => {
                let known = nix::errno::Errno::from_raw(number);
                if known == nix::errno::Errno::UnknownErrno {
                    format!("errno {number}")
                } else {
                    format!("{known:?}")
                }
            }
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl std::error::Error for Errno {}

impl From<nix::errno::Errno> for Errno {
    fn from(errno: nix::errno::Errno) -> Self {
        Self(errno as i32)
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::Errno;

    #[test]
    fn names_are_symbolic_also_for_what_only_the_kernel_knows() {
        assert_eq!(Errno::from_raw(-1).name(), "EPERM");
        assert_eq!(Errno::from_raw(524).name(), "ENOTSUPP");
        assert_eq!(Errno::from_raw(4095).name(), "errno 4095");
        assert_eq!(Errno::from(nix::errno::Errno::EACCES), Errno::EACCES);
    }
}
