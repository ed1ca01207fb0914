//! An ext4 in a file, on a loop device: the smallest there can be, of 64 blocks of 4 KiB.

use super::files::index;
use super::{modules, syscall};
use crate::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::Write;

/// What a file system can do beyond what every one here can, as its super block says it (fs/ext4/ext4.h).
#[derive(Clone, Copy)]
pub struct Features {
    /// `EXT4_FEATURE_INCOMPAT_*`.
    needed: u32,
    /// `EXT4_FEATURE_RO_COMPAT_*`.
    for_writing: u32,
}

/// Nothing more.
pub const PLAIN: Features = Features { needed: 0, for_writing: 0 };
/// Files with fs-verity, which is for those that are kept as extents.
pub const VERITY: Features = Features { needed: 0x40, for_writing: 0x8000 };

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
fn image(features: Features) -> Vec<u8> {
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
            (52, 0xffff_0000),           // mounted never, checked after any number of times
            (56, 0x0001_ef53),           // the magic number; clean
            (60, 1),                     // on errors: go on
            (76, 1),                     // revision 1
            (84, 11),                    // the first inode that is not reserved
            (88, 256),                   // bytes of an inode
            (96, 0x2 | features.needed), // needed: types in entries
            (100, 0x1 | 0x2 | 0x40 | features.for_writing), // sparse copies, large files, large inodes
            (0x15c, 0x0020_0020),        // of which so much is used
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

/// Mounts an image of its own at `path`; gives the device's name. It goes with the mount.
///
/// # Errors
/// The errno of writing the image, of making the device or of mounting it.
pub fn mounted(
    image_at: &str,
    path: &str,
    options: Option<&str>,
    features: Features,
) -> Result<CString, Errno> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(image_at)?;
    file.write_all(&image(features))?;
    let (name, writer) = on_loop(&file)?;
    // Since 6.8 a kernel without CONFIG_BLK_DEV_WRITE_MOUNTED mounts no device that somebody has open for writing
    // (6.8 block/bdev.c, bdev_may_open).
    let device = File::open(&name)?;
    drop(writer);
    std::fs::create_dir_all(path)?;
    let result = mount(Some(name.as_str()), path, Some("ext4"), MsFlags::empty(), options);
    release(&device)?;
    result?;
    CString::new(name).map_err(|_| Errno::EINVAL)
}

/// Puts a file on a free loop device; gives its name and the device, opened.
pub(super) fn on_loop(file: &File) -> Result<(String, File), Errno> {
    modules::load(&["loop"])?;
    let number = control(&File::open("/dev/loop-control")?, GET_FREE, 0)?;
    let name = format!("/dev/loop{number}");
    let device = OpenOptions::new().read(true).write(true).open(&name)?;
    control(&device, SET_FILE, index(file))?;
    Ok((name, device))
}

/// Takes the file off again, as soon as nobody uses the device.
pub(super) fn release(device: &File) -> Result<(), Errno> {
    control(device, CLEAR, 0).map(drop)
}
