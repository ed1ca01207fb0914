//! Quotas, on an ext4 in a file: the smallest there can be, of 64 blocks of 4 KiB.

use super::files::index;
use super::{Act, Arm, OK, Seen, act_seen, modules, syscall};
use crate::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::Write;

const IMAGE: &str = "/tmp/quota.ext4";
const PATH: &str = "/tmp/quota";
const BLOCK: usize = 4096;
const BLOCKS: u32 = 64;
const INODES: u32 = 32;
/// Where things are: the bitmaps of blocks and of inodes, the table of inodes, the root's entries.
const BLOCK_MAP: usize = 2;
const INODE_MAP: usize = 3;
const TABLE: usize = 4;
const ROOT: usize = 6;
/// Blocks up to the root's entries; the ten inodes that are reserved.
const USED_BLOCKS: usize = 7;
const USED_INODES: usize = 10;

/// Writes numbers of 32 bits, in pairs of place and number.
fn words(bytes: &mut [u8], words: &[(usize, u32)]) {
    for &(at, word) in words {
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
}

/// Sets the first `used` bits of a bitmap, and those behind `there`, which stand for nothing.
fn fill(map: &mut [u8], used: usize, there: usize) {
    for bit in (0..used).chain(there..BLOCK * 8) {
        map[bit / 8] |= 1 << (bit % 8);
    }
}

/// The image; the layout is that of fs/ext4/ext4.h: `ext4_super_block`, `ext4_group_desc`, `ext4_inode`,
/// `ext4_dir_entry_2`. Neither journal nor checksums.
fn image() -> Vec<u8> {
    let mut image = vec![0_u8; BLOCK * BLOCKS as usize];
    let (free_blocks, free_inodes) = (BLOCKS - 7, INODES - 10);
    words(
        &mut image[1024..],
        &[
            (0, INODES),
            (4, BLOCKS),
            (12, free_blocks),
            (16, free_inodes),
            (24, 2), // blocks of 4 KiB, and clusters
            (28, 2),
            (32, 32768), // to a group: blocks, clusters, inodes
            (36, 32768),
            (40, INODES),
            (52, 0xffff_0000),       // mounted never, checked after any number of times
            (56, 0x0001_ef53),       // the magic number; clean
            (60, 1),                 // on errors: go on
            (76, 1),                 // revision 1
            (84, 11),                // the first inode that is not reserved
            (88, 256),               // bytes of an inode
            (96, 0x2),               // needed: types in entries
            (100, 0x1 | 0x2 | 0x40), // for writing: sparse copies, large files, large inodes
            (0x15c, 0x0020_0020),    // of which so much is used
        ],
    );
    let group = &mut image[BLOCK..];
    words(group, &[(0, 2), (4, 3), (8, 4), (12, free_blocks | free_inodes << 16), (16, 1)]);
    fill(&mut image[BLOCK_MAP * BLOCK..][..BLOCK], USED_BLOCKS, BLOCKS as usize);
    fill(&mut image[INODE_MAP * BLOCK..][..BLOCK], USED_INODES, INODES as usize);
    // Inode 2: a directory of one block with two names.
    let root = &mut image[TABLE * BLOCK + 256..];
    words(root, &[(0, 0x41ed), (4, 4096), (24, 2 << 16), (28, 8), (40, 6), (128, 32)]);
    let entries = &mut image[ROOT * BLOCK..];
    words(entries, &[(0, 2), (4, 0x0201_000c), (8, u32::from(b'.'))]);
    words(entries, &[(12, 2), (16, 0x0202_0ff4), (20, 0x2e2e)]);
    image
}

/// include/uapi/linux/loop.h: LOOP_SET_FD, LOOP_CLR_FD, LOOP_CTL_GET_FREE.
const SET_FILE: usize = 0x4c00;
const CLEAR: usize = 0x4c01;
const GET_FREE: usize = 0x4c82;

fn control(file: &File, command: usize, value: usize) -> Result<libc::c_long, Errno> {
    // SAFETY: the requests take a number.
    unsafe { syscall(libc::SYS_ioctl, [index(file), command, value, 0, 0, 0]) }
}

/// Mounts the image with quotas of users; gives the device's name. It goes with the mount.
fn mounted() -> Result<CString, Errno> {
    modules::load(&["loop"])?;
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(IMAGE)?;
    file.write_all(&image())?;
    let number = control(&File::open("/dev/loop-control")?, GET_FREE, 0)?;
    let name = format!("/dev/loop{number}");
    let device = OpenOptions::new().read(true).write(true).open(&name)?;
    control(&device, SET_FILE, index(&file))?;
    std::fs::create_dir_all(PATH)?;
    let result = mount(Some(name.as_str()), PATH, Some("ext4"), MsFlags::empty(), Some("usrquota"));
    control(&device, CLEAR, 0)?;
    result?;
    CString::new(name).map_err(|_| Errno::EINVAL)
}

/// include/uapi/linux/quota.h: QCMD(Q_QUOTAON, USRQUOTA), and the number of no format.
const ON: usize = 0x8000_0200;
const NO_FORMAT: usize = 77;

/// `quotactl(2)` that switches quotas on. The kernel knows no format of that number, which it finds out last.
///
/// # Errors
/// The errno of making the file system.
pub fn switch_on() -> Result<Act, Errno> {
    let device = mounted()?;
    File::create("/tmp/quota/aquota.user")?;
    act_seen(move |arm: Arm| {
        let (device, path) = (device.as_ptr().addr(), c"/tmp/quota/aquota.user".as_ptr().addr());
        // SAFETY: numbers, and two terminated strings.
        let result =
            arm.during(|| unsafe { syscall(libc::SYS_quotactl, [ON, device, NO_FORMAT, path, 0, 0]) });
        match result {
            Err(errno) if errno.raw() == libc::ESRCH => Ok(Seen("ESRCH: no such format")),
            other => other.map(|_| OK),
        }
    })
}
