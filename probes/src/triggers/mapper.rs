//! A block device that the device mapper makes of another.

use super::files::index;
use super::{Act, Arm, act, ext4, modules, syscall};
use crate::errno::Errno;
use std::fs::{File, OpenOptions};

/// include/uapi/linux/dm-ioctl.h: DM_DEV_CREATE, DM_DEV_REMOVE, DM_DEV_SUSPEND, DM_TABLE_LOAD.
const CREATE: usize = 0xc138_fd03;
const REMOVE: usize = 0xc138_fd04;
const SUSPEND: usize = 0xc138_fd06;
const LOAD: usize = 0xc138_fd09;
/// The same: DM_READONLY_FLAG.
const READ_ONLY: u32 = 1;
/// The same: DM_SUSPEND_FLAG, without which DM_DEV_SUSPEND means the opposite.
const STOP: u32 = 2;
/// Bytes of `struct dm_ioctl` and of the `struct dm_target_spec` behind it.
const HEAD: usize = 312;
const TARGET: usize = 40;
const NAME: &[u8] = b"conform";

/// What dm-verity checks: one block of zeros. Its SHA-256 is the root of the tree, which needs no block of its own then
/// (6.14 drivers/md/dm-verity-target.c, `verity_ctr`).
const BLOCK: usize = 4096;
const ROOT: &str = "ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7";

/// `ioctl(2)` with a `struct dm_ioctl` of version 4.0.0 for the device of our name.
fn request(control: &File, command: usize, flags: u32, targets: &[u8]) -> Result<(), Errno> {
    let mut bytes = vec![0_u8; HEAD];
    let size = u32::try_from(HEAD + targets.len()).unwrap_or(0);
    let count = u32::from(!targets.is_empty());
    for (at, number) in [(0, 4), (12, size), (16, 312), (20, count), (28, flags)] {
        bytes[at..at + 4].copy_from_slice(&u32::to_ne_bytes(number));
    }
    bytes[48..48 + NAME.len()].copy_from_slice(NAME);
    bytes.extend(targets);
    // SAFETY: a structure that holds its own length.
    unsafe { syscall(libc::SYS_ioctl, [index(control), command, bytes.as_mut_ptr().addr(), 0, 0, 0]) }
        .map(drop)
}

/// The target: all of the device is one block, read from `device`, where the tree would follow it.
fn verity(device: &str) -> Vec<u8> {
    let mut bytes = vec![0_u8; TARGET];
    bytes[8..16].copy_from_slice(&(BLOCK as u64 / 512).to_ne_bytes());
    bytes[24..30].copy_from_slice(b"verity");
    // Version; both devices and their blocks; how many; where the tree begins; the algorithm, the root, no salt.
    bytes.extend(format!("1 {device} {device} {BLOCK} {BLOCK} 1 1 sha256 {ROOT} -").as_bytes());
    bytes.resize(bytes.len().next_multiple_of(8) + 8, 0); // ended by a zero
    bytes
}

/// The verified device, which has not begun its work.
struct Verified(File);

impl Verified {
    /// Makes it of a file.
    fn new(path: &str) -> Result<Self, Errno> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/mapper/control")?;
        let (name, device) = ext4::on_loop(&File::open(path)?)?;
        request(&control, CREATE, 0, &[])?;
        let made = Self(control);
        let loaded = request(&made.0, LOAD, READ_ONLY, &verity(&name));
        ext4::release(&device)?;
        loaded.map(|()| made)
    }
}

impl Drop for Verified {
    fn drop(&mut self) {
        // One that stays is in the way of the next of its name, which says so.
        let _ = request(&self.0, REMOVE, 0, &[]);
    }
}

/// `ioctl(2)` that has a verified device go on with its work: the kernel tells the hook whenever it does (6.14
/// drivers/md/dm-verity-target.c, `verity_preresume`), and to stop it costs less than to make another.
///
/// # Errors
/// The errno of loading the modules, of writing what is verified, or of making the device.
pub fn begin_verity() -> Result<Act, Errno> {
    modules::load(&["dm-mod", "dm-bufio", "reed_solomon", "dm-verity"])?;
    let path = "/tmp/verified";
    std::fs::write(path, [0; 2 * BLOCK])?;
    let device = Verified::new(path)?;
    act(move |arm: Arm| {
        request(&device.0, SUSPEND, STOP, &[])?;
        arm.during(|| request(&device.0, SUSPEND, 0, &[]))
    })
}
