//! The kernel that probes run on, and what PID 1 keeps ready for all of them.

use super::Ended;
use crate::aya_load::Aya;
use crate::bpf;
use crate::btf::Btf;
use crate::record::KernelFacts;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;

/// The kernel that probes run on. Read once by PID 1, shared by all probes.
pub struct Kernel {
    facts: KernelFacts,
    btf: Result<Btf, String>,
    aya: OnceCell<Result<Aya, String>>,
    /// The program arrays of the dispatchers that PID 1 keeps, by hook.
    dispatchers: RefCell<BTreeMap<String, OwnedFd>>,
}

impl Kernel {
    /// Reads what is to be known. `setup` is what could not be set up.
    #[must_use]
    pub fn read(setup: Vec<String>) -> Self {
        let text =
            |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let bytes =
            fs::read("/sys/kernel/btf/vmlinux").map_err(|error| format!("/sys/kernel/btf/vmlinux: {error}"));
        let btf_bytes = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let facts = KernelFacts {
            release: text("/proc/sys/kernel/osrelease"),
            version: text("/proc/version"),
            lsm: text("/sys/kernel/security/lsm"),
            cmdline: text("/proc/cmdline"),
            btf_bytes,
            tainted: text("/proc/sys/kernel/tainted").parse().unwrap_or(0),
            cpus: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
            setup,
        };
        let btf = bytes.and_then(|bytes| Btf::parse_shared(&bytes).map_err(|error| error.to_string()));
        if let Ok(btf) = &btf {
            btf.warm(); // once, before the probes' processes are forked
        }
        Self { facts, btf, aya: OnceCell::new(), dispatchers: RefCell::default() }
    }

    /// Notes that a program on `hook` calls what stands in the first of `slots`.
    pub(crate) fn remember_dispatcher(&self, hook: &str, slots: OwnedFd) {
        self.dispatchers.borrow_mut().insert(hook.to_owned(), slots);
    }

    /// There are no dispatchers any more.
    pub(crate) fn forget_dispatchers(&self) {
        self.dispatchers.borrow_mut().clear();
    }

    /// Empties every slot: whatever a probe has left there goes with it.
    pub(crate) fn clear_dispatchers(&self) {
        for slots in self.dispatchers.borrow().values() {
            let _ = bpf::map_delete(slots, &0_u32.to_le_bytes());
        }
    }

    /// The program array of the dispatcher on `hook`, if there is one.
    pub(crate) fn dispatcher(&self, hook: &str) -> Option<OwnedFd> {
        self.dispatchers.borrow().get(hook)?.try_clone().ok()
    }

    /// What the guest knows about the kernel.
    #[must_use]
    pub const fn facts(&self) -> &KernelFacts {
        &self.facts
    }

    /// The kernel's own BTF.
    ///
    /// # Errors
    /// [`Ended::CouldNotTell`] when the kernel has none, or none that can be parsed.
    pub fn btf(&self) -> Result<&Btf, Ended> {
        self.btf.as_ref().map_err(|why| Ended::CouldNotTell(format!("no kernel BTF: {why}")))
    }

    /// aya, ready to load. The first call is slow: PID 1 makes it before it forks the probes that use aya.
    ///
    /// # Errors
    /// [`Ended::CouldNotTell`] when the kernel's BTF cannot be had.
    pub fn aya(&self) -> Result<&Aya, Ended> {
        let aya = self.aya.get_or_init(Aya::warm);
        aya.as_ref().map_err(|why| Ended::could_not("make aya ready", why))
    }

    /// Whether aya takes memory.
    pub(crate) fn has_aya(&self) -> bool {
        self.aya.get().is_some()
    }

    /// Gives back the memory that aya takes: no probe that follows uses it.
    pub(crate) fn drop_aya(&mut self) {
        if self.aya.take().is_some() {
            // SAFETY: takes a number.
            unsafe { libc::malloc_trim(0) };
        }
    }

    /// Major and minor version.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        let mut numbers = self
            .facts
            .release
            .split(|byte: char| !byte.is_ascii_digit())
            .map(|text| text.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}
