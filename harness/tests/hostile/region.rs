//! The memory that a guest and the harness share, made once for all inputs: to make its 16 MiB anew for each took a tenth
//! of the time.

use probes::channel::{HostEnd, Region};
use probes::protocol::REGION;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// The region, and what the last input has put where.
pub(crate) struct Shared {
    file: File,
    used: Vec<(usize, usize)>,
}

impl Shared {
    /// The process's own, empty: an input must not find what the one before it has left.
    pub(crate) fn taken() -> MutexGuard<'static, Self> {
        static SHARED: LazyLock<Mutex<Shared>> = LazyLock::new(|| Mutex::new(Shared::made()));
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.clear();
        shared
    }

    fn made() -> Self {
        let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).expect("a file");
        file.set_len(REGION as u64).expect("a region");
        Self { file, used: Vec::new() }
    }

    /// Puts bytes where the guest would.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.file.write_all_at(bytes, at as u64).expect("the region");
        self.used.push((at, bytes.len()));
    }

    /// The harness's end of it.
    pub(crate) fn host(&self) -> HostEnd {
        HostEnd::new(Region::map(&self.file).expect("a mapping"))
    }

    fn clear(&mut self) {
        for (at, length) in std::mem::take(&mut self.used) {
            self.file.write_all_at(&vec![0; length], at as u64).expect("the region");
        }
    }
}

#[test]
fn an_input_finds_nothing_of_the_one_before() {
    let (_, stream) = super::targets::TARGETS.iter().find(|(name, _)| *name == "stream").expect("the target");
    for kind in [b'r', b'f'] {
        let mut input = vec![0xff_u8; 64 << 10];
        input[0] = kind;
        super::targets::give(*stream, &input);
    }
    let mut bytes = vec![1_u8; REGION];
    Shared::taken().file.read_exact_at(&mut bytes, 0).expect("the region");
    assert_eq!(bytes.iter().position(|&byte| byte != 0), None);
}
