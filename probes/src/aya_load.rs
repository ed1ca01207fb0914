//! Loading the objects of [`crate::objects`] the way their users do: through aya.
//!
//! aya asks the kernel for its features and parses all of the kernel's BTF, each of which costs a slow machine some
//! tenths of a second. So PID 1 does both once ([`Aya::warm`]), if a selected probe says that it uses aya, and the
//! probes' processes inherit the result. It is some 30 MiB, whose page tables each process would copy: these probes
//! come first, and then PID 1 drops it.
//!
//! What becomes of an object is told in the same terms as of a program made by hand: a refusal by the kernel carries
//! its errno, the verifier's words are in the case's log, and the phase is that of the system call.

use crate::errno::Errno;
use crate::objects::Object;
use crate::record::Phase;
use crate::session::{Attempt, Ended};
use aya::maps::{Array, Map, MapError};
use aya::programs::{Lsm, ProgramError};
use aya::{Btf, BtfError, Ebpf, EbpfError, EbpfLoader, Endianness, Pod, VerifierLogLevel};
use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

/// aya, ready to load.
pub struct Aya {
    /// Refers to `btf`, and is dropped before it: fields go in the order of their declaration.
    loader: RefCell<EbpfLoader<'static>>,
    btf: Leaked,
}

/// A box that was leaked for the loader's sake.
struct Leaked(NonNull<Btf>);

impl Aya {
    fn btf(&self) -> &Btf {
        // SAFETY: the box lives as long as this does, and nobody changes what is in it.
        unsafe { self.btf.0.as_ref() }
    }
}

impl Drop for Leaked {
    fn drop(&mut self) {
        // SAFETY: the pointer is that of a box which nobody else owns, and the loader, which had a reference, is gone.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Aya {
    /// Finds out the kernel's features and parses its BTF.
    ///
    /// # Errors
    /// Why the kernel's BTF cannot be had.
    pub fn warm() -> Result<Self, String> {
        let path = "/sys/kernel/btf/vmlinux";
        let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let btf = Btf::parse(&bytes, Endianness::default()).map_err(|error| error.to_string())?;
        let btf = NonNull::from(Box::leak(Box::new(btf)));
        aya::features();
        // A new loader parses the BTF once more by itself and offers no way not to, which is why one is kept.
        let mut loader = EbpfLoader::new();
        // SAFETY: the box outlives the loader, which is dropped first.
        loader.btf(Some(unsafe { btf.as_ref() })).allow_unsupported_maps();
        Ok(Self { loader: RefCell::new(loader), btf: Leaked(btf) })
    }

    /// Parses an object, sets its globals and creates its maps.
    fn open(&self, object: &Object, globals: &[Global], detail: bool) -> Result<Ebpf, EbpfError> {
        let mut loader = self.loader.borrow_mut();
        loader.verifier_log_level(if detail {
            VerifierLogLevel::VERBOSE
        } else {
            VerifierLogLevel::DEBUG // as ours: no statistics, which would hold times
        });
        for &Global(name, value) in globals {
            loader.override_global(name, value, true);
        }
        let opened = loader.load(object.bytes);
        // The loader is used again, maybe for an object that lacks these.
        for &Global(name, value) in globals {
            loader.override_global(name, value, false);
        }
        opened
    }
}

/// A global of an object and the value to give it.
#[derive(Clone, Copy, Debug)]
pub struct Global(&'static str, &'static [u8]);

impl Global {
    /// A global of an integer type, its value as that type's bytes. The few bytes are never freed: the loader wants
    /// them for as long as it lives, and a probe's process is short-lived.
    #[must_use]
    pub fn new<const N: usize>(name: &'static str, bytes: [u8; N]) -> Self {
        Self(name, Vec::leak(bytes.to_vec()))
    }

    /// A global of type `u32`.
    #[must_use]
    pub fn u32(name: &'static str, value: u32) -> Self {
        Self::new(name, value.to_ne_bytes())
    }

    /// A global of type `i32`.
    #[must_use]
    pub fn i32(name: &'static str, value: i32) -> Self {
        Self::new(name, value.to_ne_bytes())
    }

    /// A global of type `u64`.
    #[must_use]
    pub fn u64(name: &'static str, value: u64) -> Self {
        Self::new(name, value.to_ne_bytes())
    }

    /// `TARGET_TGID`, which every object has, for this process.
    #[must_use]
    pub fn target() -> Self {
        Self::u32("TARGET_TGID", std::process::id())
    }
}

/// An object whose program is attached. Dropping it detaches.
pub struct AttachedObject {
    name: &'static str,
    ebpf: Ebpf,
}

impl AttachedObject {
    /// What the program left in `RESULTS`.
    ///
    /// # Errors
    /// [`Ended::CouldNotTell`] when the map is not what the object promises or cannot be read.
    pub fn results<T: Pod>(&self) -> Result<T, Ended> {
        let what = |error: MapError| Ended::could_not(&format!("read RESULTS of {}", self.name), error);
        let map = self.map("RESULTS")?;
        Array::<_, T>::try_from(map).map_err(what)?.get(&0, 0).map_err(what)
    }

    /// One of the object's maps.
    ///
    /// # Errors
    /// [`Ended::CouldNotTell`] when there is none of that name.
    pub fn map(&self, name: &str) -> Result<&Map, Ended> {
        self.ebpf
            .map(name)
            .ok_or_else(|| Ended::CouldNotTell(format!("object {} has no map {name}", self.name)))
    }

    /// Takes one of the object's maps out of it.
    ///
    /// # Errors
    /// As [`AttachedObject::map`].
    pub fn take_map(&mut self, name: &str) -> Result<Map, Ended> {
        self.ebpf
            .take_map(name)
            .ok_or_else(|| Ended::CouldNotTell(format!("object {} has no map {name}", self.name)))
    }

    /// The descriptor of one of the object's maps of local storage, for [`crate::bpf::map_lookup`].
    ///
    /// # Errors
    /// As [`AttachedObject::map`], and when the map is of another kind.
    pub fn storage(&self, name: &str) -> Result<BorrowedFd<'_>, Ended> {
        let (Map::InodeStorage(data) | Map::SkStorage(data) | Map::Unsupported(data)) = self.map(name)?
        else {
            return Err(Ended::CouldNotTell(format!("map {name} of {} is no local storage", self.name)));
        };
        Ok(data.fd().as_fd())
    }
}

impl Attempt<'_> {
    /// Loads an object's program and attaches it.
    ///
    /// # Errors
    /// [`Ended::Absent`] when the kernel has no such hook; [`Ended::Refused`] in the phase `open` for a map or the
    /// object's BTF, in `load` and in `attach`; [`Ended::CouldNotTell`] for what aya says without asking the kernel.
    pub fn attach_object(&mut self, object: &Object, globals: &[Global]) -> Result<AttachedObject, Ended> {
        self.at(Phase::Open);
        self.hook(object.hook)?;
        let aya = self.kernel().aya()?;
        let mut ebpf = aya.open(object, globals, self.detail()).map_err(|error| self.not_opened(&error))?;
        let could_not = |why: &str| Ended::could_not(&format!("use object {}", object.name), why);
        let program = ebpf.program_mut(object.name).ok_or_else(|| could_not("it has no such program"))?;
        let program: &mut Lsm =
            program.try_into().map_err(|error: ProgramError| could_not(&error.to_string()))?;
        self.at(Phase::Load);
        match program.load(object.hook, aya.btf()) {
            Ok(()) => self.loaded(true, ""),
            Err(ProgramError::LoadError { io_error, verifier_log }) => {
                self.loaded(false, &verifier_log.to_string());
                return Err(Ended::Refused(io_error.into()));
            }
            Err(error) => return Err(could_not(&error.to_string())),
        }
        self.at(Phase::Attach);
        if let Err(error) = program.attach() {
            let ProgramError::SyscallError(error) = error else { return Err(could_not(&error.to_string())) };
            return Err(Ended::Refused(error.io_error.into()));
        }
        Ok(AttachedObject { name: object.name, ebpf })
    }

    /// What ended the opening of an object: the kernel, about a map or the BTF, or aya.
    fn not_opened(&mut self, error: &EbpfError) -> Ended {
        let refused =
            |error: &std::io::Error| Ended::Refused(Errno::from_raw(error.raw_os_error().unwrap_or(0)));
        if let EbpfError::MapError(MapError::CreateError { io_error, .. }) = error {
            return refused(io_error);
        }
        if let EbpfError::MapError(MapError::SyscallError(error)) = error {
            return refused(&error.io_error);
        }
        if let EbpfError::BtfError(BtfError::LoadError { io_error, verifier_log }) = error {
            self.loaded(false, &verifier_log.to_string());
            return refused(io_error);
        }
        Ended::could_not("open the object", error)
    }
}
