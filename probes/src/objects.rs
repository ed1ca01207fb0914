//! The BPF programs that are written in Rust, as objects that the guest carries with it.
//!
//! They are built from `probes-ebpf` by its script `rebuild` and committed, so that building this crate needs no BPF
//! toolchain. A test here compares hashes, so that sources and objects cannot drift apart unnoticed.

#[path = "../../probes-ebpf/src/layout.rs"]
pub mod layout;

/// An object with one program, which has the object's name, and a map `RESULTS` (see [`layout`]).
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// The name of the object and of its program.
    pub name: &'static str,
    /// The hook that the program is for, without `bpf_lsm_`.
    pub hook: &'static str,
    /// The ELF file, aligned to 8 bytes as its reader wants it.
    pub bytes: &'static [u8],
}

/// The object of a name, for a hook.
macro_rules! object {
    ($name:literal, $hook:literal) => {
        Object {
            name: $name,
            hook: $hook,
            bytes: aya::include_bytes_aligned!(concat!("../../probes-ebpf/objects/", $name, ".o")),
        }
    };
}

/// Counts openings per inode. Globals: `TARGET_TGID`, `FILE_F_INODE` (u32). Maps: `RESULTS` of [`layout::Storage`],
/// `COUNTERS` (inode storage, u64).
pub const INODE_STORAGE: Object = object!("inode_storage", "file_open");
/// Denies `mprotect` on the heap, as the documented example does. Globals (u32): `TARGET_TGID`, and the offsets
/// `VMA_VM_START`, `VMA_VM_END`, `VMA_VM_MM`, `MM_START_BRK`, `MM_BRK`. Map: `RESULTS` of [`layout::MprotectAudit`].
pub const MPROTECT_AUDIT: Object = object!("mprotect_audit", "file_mprotect");
/// [`MPROTECT_AUDIT`] with `vma->vm_mm` compared with null before it is followed.
pub const MPROTECT_AUDIT_CHECKED: Object = object!("mprotect_audit_checked", "file_mprotect");
/// Sends an event per opening. Global: `TARGET_TGID` (u32). Maps: `RESULTS` of [`layout::RingbufEvents`], `EVENTS`
/// (ring buffer of [`layout::RingbufEvent`]).
pub const RINGBUF_EVENTS: Object = object!("ringbuf_events", "file_open");
/// Answers for one family of sockets. Globals: `TARGET_TGID` (u32), `FAMILY`, `VERDICT` (i32). Map: `RESULTS` of
/// [`layout::SocketCreate`].
pub const SOCKET_CREATE: Object = object!("socket_create", "socket_create");
/// Notes who opens, when and where. Global: `TARGET_TGID` (u32). Map: `RESULTS` of [`layout::TaskIdentity`].
pub const TASK_IDENTITY: Object = object!("task_identity", "file_open");
/// Counts openings per task. Global: `TARGET_TGID` (u32). Maps: `RESULTS` of [`layout::Storage`], `COUNTERS` (task
/// storage, u64; aya has no type for it, so its loader needs `allow_unsupported_maps`).
pub const TASK_STORAGE: Object = object!("task_storage", "file_open");
/// Reads a string of the target's. Globals: `TARGET_TGID` (u32), `USER_ADDRESS` (u64). Map: `RESULTS` of
/// [`layout::UserString`].
pub const USER_STRING: Object = object!("user_string", "file_open");

/// Every object.
pub const ALL: [Object; 8] = [
    INODE_STORAGE,
    MPROTECT_AUDIT,
    MPROTECT_AUDIT_CHECKED,
    RINGBUF_EVENTS,
    SOCKET_CREATE,
    TASK_IDENTITY,
    TASK_STORAGE,
    USER_STRING,
];

/// Lets a map's element be read as such a struct.
macro_rules! plain {
    ($($name:ident),* $(,)?) => {
        $(
            // SAFETY: a `repr(C)` struct of 64-bit integers and byte arrays without padding; any bytes are a value.
            unsafe impl aya::Pod for layout::$name {}
        )*
    };
}

plain!(MprotectAudit, RingbufEvent, RingbufEvents, SocketCreate, Storage, TaskIdentity, UserString);

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use std::{collections::BTreeSet, fs, path::Path};

    const REMEDY: &str = "run probes-ebpf/rebuild build and commit what it writes";

    /// The manifest's lines of one kind, `source` or `object`, each `<sha256>  <path>` as sha256sum writes them.
    fn listed(kind: &str) -> BTreeSet<String> {
        let manifest = include_str!("../../probes-ebpf/objects/manifest.txt");
        manifest
            .lines()
            .filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))
            .map(str::to_owned)
            .collect()
    }

    fn line(bytes: &[u8], path: &str) -> String {
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{digest}  {path}")
    }

    /// The lines of every file at or below `path`, which is relative to `root`.
    fn lines_below(root: &Path, path: &str) -> Vec<String> {
        let full = root.join(path);
        if full.is_file() {
            return vec![line(&fs::read(&full).unwrap(), path)];
        }
        let names =
            fs::read_dir(&full).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.flat_map(|name| lines_below(root, &format!("{path}/{name}"))).collect()
    }

    #[test]
    fn objects_are_built_from_the_sources_next_to_them() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../probes-ebpf");
        let found: BTreeSet<_> = ["Cargo.lock", "Cargo.toml", "rebuild", "src"]
            .into_iter()
            .flat_map(|path| lines_below(&root, path))
            .collect();
        assert_eq!(
            listed("source"),
            found,
            "the sources are not those that the objects were built from: {REMEDY}"
        );
    }

    #[test]
    fn objects_are_those_of_the_manifest() {
        let found: BTreeSet<_> =
            ALL.iter().map(|object| line(object.bytes, &format!("{}.o", object.name))).collect();
        assert_eq!(listed("object"), found, "an object was changed or is not in `ALL`: {REMEDY}");
    }

    #[test]
    fn objects_are_aligned_and_name_their_hook() {
        for object in ALL {
            assert!(object.bytes.as_ptr().cast::<u64>().is_aligned(), "{} is not aligned", object.name);
            let section = format!("\0lsm/{}\0", object.hook);
            let named = object.bytes.windows(section.len()).any(|window| window == section.as_bytes());
            assert!(named, "{} has no section lsm/{}", object.name, object.hook);
        }
    }
}
