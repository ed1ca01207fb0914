//! Android's binder: a process that serves a device of its own, and another that sends it a message.
//!
//! Every message goes one way (`TF_ONE_WAY`), so that the sender hears of its fate at once: that it has been sent, or
//! `BR_FAILED_REPLY` without an errno. What the server then gets it tells the sender through a pipe.

use super::children::{Idle, spawn};
use super::files::{index, owned};
use super::{Act, Arm, Seen, act, act_seen, syscall};
use crate::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::stat::{fstat, makedev};
use nix::unistd::{Gid, pipe2, setegid};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

const MOUNTED: &str = "/tmp/binder";
/// Effective groups, by which a program tells the credentials of the two: of who sends, or manages a device.
pub const SENDER: u32 = 77;
/// Of who receives.
pub const SERVER: u32 = 78;

/// include/uapi/linux/android/binderfs.h: BINDER_CTL_ADD.
const ADD_DEVICE: usize = 0xc108_6201;
/// include/uapi/linux/android/binder.h: BINDER_WRITE_READ, BINDER_SET_CONTEXT_MGR, BINDER_SET_CONTEXT_MGR_EXT.
const WRITE_READ: usize = 0xc030_6201;
const MANAGE: usize = 0x4004_6207;
const MANAGE_AS: usize = 0x4018_620d;
/// The same, commands: BC_TRANSACTION, BC_FREE_BUFFER, BC_ENTER_LOOPER.
const SEND: u32 = 0x4040_6300;
const FREE_BUFFER: u32 = 0x4008_6303;
const ENTER_LOOPER: u32 = 0x630c;
/// The same, answers: BR_TRANSACTION, BR_TRANSACTION_SEC_CTX, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY.
const MESSAGE: u32 = 0x8040_7202;
const LABELLED_MESSAGE: u32 = 0x8048_7202;
const SENT: u32 = 0x7206;
const FAILED: u32 = 0x7211;
/// The same: BINDER_TYPE_BINDER, BINDER_TYPE_HANDLE, BINDER_TYPE_FD.
const OBJECT: u64 = 0x7362_2a85;
const HANDLE: u64 = 0x7368_2a85;
const DESCRIPTOR: u64 = 0x6664_2a85;
const OBJECT_SIZE: u64 = 24;
/// The same: FLAT_BINDER_FLAG_ACCEPTS_FDS, FLAT_BINDER_FLAG_TXN_SECURITY_CTX, TF_ONE_WAY.
const ACCEPTS_DESCRIPTORS: u64 = 0x100;
const WANTS_LABEL: u64 = 0x1000;
const ONE_WAY: u64 = 1;
/// How long a message may take to its server, in milliseconds.
const ARRIVES: u16 = 5000;

/// `struct flat_binder_object`: its kind with the flags above, a pointer or the number of a handle or, as
/// `struct binder_fd_object`, of a descriptor, and a cookie.
type Object = [u64; 3];

/// Mounts binder's file system, once for a probe's process, and takes the sender's group.
fn mounted() -> Result<(), Errno> {
    if !fs::exists(MOUNTED)? {
        fs::create_dir(MOUNTED)?;
        let none: Option<&str> = None;
        if let Err(errno) = mount(Some("binder"), MOUNTED, Some("binder"), MsFlags::empty(), none) {
            fs::remove_dir(MOUNTED)?; // so that the next recipe tries again
            return Err(errno.into());
        }
    }
    Ok(setegid(Gid::from_raw(SENDER))?)
}

/// A device that nobody manages yet. It goes when it is dropped; who has it open keeps it.
struct Device(String);

impl Device {
    fn new(name: &str) -> Result<Self, Errno> {
        let control = File::open(format!("{MOUNTED}/binder-control"))?;
        let mut request = [0_u8; 264];
        request[..name.len()].copy_from_slice(name.as_bytes());
        let args = [index(&control), ADD_DEVICE, request.as_mut_ptr().addr(), 0, 0, 0];
        // SAFETY: a structure of 264 bytes.
        unsafe { syscall(libc::SYS_ioctl, args) }?;
        Ok(Self(format!("{MOUNTED}/{name}")))
    }

    fn open(&self, flags: i32) -> Result<File, Errno> {
        Ok(OpenOptions::new().read(true).write(true).custom_flags(flags).open(&self.0)?)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// `ioctl(2)` that writes commands and reads answers into `answers`; gives those that came.
fn write_read<'a>(device: &File, commands: &[u8], answers: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let mut request = [
        commands.len() as u64,
        0,
        commands.as_ptr().addr() as u64,
        answers.len() as u64,
        0,
        answers.as_mut_ptr().addr() as u64,
    ];
    // SAFETY: `struct binder_write_read`, which names two slices with their lengths.
    unsafe { syscall(libc::SYS_ioctl, [index(device), WRITE_READ, request.as_mut_ptr().addr(), 0, 0, 0]) }?;
    let came = usize::try_from(request[4]).unwrap_or(0);
    Ok(answers.get(..came).unwrap_or_default())
}

/// The answers in what was read, each with what follows it; the number says how much that is (`_IOC_SIZE`).
fn each(mut answers: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let (number, rest) = answers.split_first_chunk::<4>()?;
        let number = u32::from_ne_bytes(*number);
        let (data, rest) = rest.split_at_checked((number >> 16 & 0x3fff) as usize)?;
        answers = rest;
        Some((number, data))
    })
}

/// `ioctl(2)` of who wants to manage a device, each time another.
///
/// # Errors
/// The errno of mounting.
pub fn manage() -> Result<Act, Errno> {
    mounted()?;
    let mut number = 0;
    act(move |arm: Arm| {
        number += 1;
        let device = Device::new(&format!("managed-{number}"))?;
        let file = device.open(0)?;
        // SAFETY: takes a number.
        arm.during(|| unsafe { syscall(libc::SYS_ioctl, [index(&file), MANAGE, 0, 0, 0, 0]) })
    })
}

/// What the sender has: its end of the device, and the pipe through which the server says what came.
struct Sender {
    device: File,
    arrived: File,
    _server: Idle,
}

impl Sender {
    /// Starts the server, and waits until it serves.
    fn new() -> Result<Self, Errno> {
        Self::to(ACCEPTS_DESCRIPTORS)
    }

    /// The same of a server with these flags.
    fn to(flags: u64) -> Result<Self, Errno> {
        mounted()?;
        let device = Device::new("served")?;
        let (arrived, tell) = pipe2(OFlag::O_CLOEXEC)?;
        let server = spawn(|| serve(&device, flags, &mut File::from(tell)))?;
        let sender = Self {
            device: device.open(libc::O_NONBLOCK)?,
            arrived: File::from(arrived),
            _server: Idle::of(server),
        };
        match sender.what_came() {
            Some(b'0') => Ok(sender),
            _ => Err(Errno::from_raw(libc::ENOTCONN)),
        }
    }

    /// Sends a message with at most one object, and says what became of it.
    fn send(&self, arm: Arm, object: Option<Object>) -> Result<Seen, Errno> {
        let offset = 0_u64;
        let at = |pointer: *const u64| pointer.addr() as u64;
        let (size, offsets_size) = object.map_or((0, 0), |_| (OBJECT_SIZE, 8));
        let buffer = object.as_ref().map_or(0, |it| at(it.as_ptr()));
        // `struct binder_transaction_data`: handle 0 is the device's manager, the code is 0 and the flags above it.
        let message = [0, 0, ONE_WAY << 32, 0, size, offsets_size, buffer, at(&raw const offset)];
        let commands = [&SEND.to_ne_bytes()[..], bytemuck::bytes_of(&message)].concat();
        let mut answers = [0; 512];
        let answers = arm.during(|| write_read(&self.device, &commands, &mut answers))?;
        match each(answers).map(|(answer, _)| answer).find(|it| matches!(*it, SENT | FAILED)) {
            Some(SENT) => Ok(match self.what_came() {
                Some(b'-') => Seen("it arrives"),
                Some(b'b') => Seen("it arrives, with a handle"),
                Some(b'f') => Seen("it arrives, with the descriptor"),
                Some(_) => Seen("it arrives, with something else"),
                None => Seen("it is sent, and does not arrive"),
            }),
            Some(_) => Ok(Seen("BR_FAILED_REPLY")),
            None => Ok(Seen("no answer")),
        }
    }

    /// What the server says next.
    fn what_came(&self) -> Option<u8> {
        let mut ready = [PollFd::new(self.arrived.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(ARRIVES)) != Ok(1) {
            return None;
        }
        let mut word = [0];
        (&self.arrived).read_exact(&mut word).ok().map(|()| word[0])
    }
}

/// A child that manages a device, takes what its flags say, and tells of each message what it brought.
fn serve(device: &Device, flags: u64, tell: &mut File) -> Result<(), Errno> {
    setegid(Gid::from_raw(SERVER))?;
    let file = device.open(0)?;
    let size = NonZeroUsize::new(1 << 16).ok_or(Errno::EINVAL)?;
    // SAFETY: a new mapping at an address of the kernel's choice.
    unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, &file, 0) }?;
    let node: Object = [OBJECT | flags << 32, 0, 0];
    let args = [index(&file), MANAGE_AS, node.as_ptr().addr(), 0, 0, 0];
    // SAFETY: `struct flat_binder_object`.
    unsafe { syscall(libc::SYS_ioctl, args) }?;
    tell.write_all(b"0")?;
    let mut commands = ENTER_LOOPER.to_ne_bytes().to_vec();
    let mut answers = [0; 512];
    loop {
        let came = write_read(&file, &commands, &mut answers)?;
        commands.clear();
        for (_, data) in each(came).filter(|(answer, _)| matches!(*answer, MESSAGE | LABELLED_MESSAGE)) {
            let Some(Ok(words)) = data.get(..64).map(bytemuck::try_pod_read_unaligned::<[u64; 8]>) else {
                continue;
            };
            let [.., size, _, buffer, _] = words;
            tell.write_all(&[what_is_in(size, buffer)])?;
            commands.extend(FREE_BUFFER.to_ne_bytes());
            commands.extend(buffer.to_ne_bytes());
        }
    }
}

/// What a message of `size` bytes at `buffer` brought.
fn what_is_in(size: u64, buffer: u64) -> u8 {
    let Ok(buffer) = usize::try_from(buffer) else { return b'?' };
    if size < OBJECT_SIZE {
        return b'-';
    }
    // SAFETY: the kernel has put that many bytes into the server's mapping, which lasts as long as the server.
    let [kind, _, number, ..] =
        unsafe { std::ptr::with_exposed_provenance::<[u32; 6]>(buffer).read_unaligned() };
    match u64::from(kind) {
        HANDLE => b'b',
        DESCRIPTOR if is_null_device(number) => b'f',
        _ => b'?',
    }
}

/// Whether a descriptor is the one of [`send_file`]; closes it.
fn is_null_device(number: u32) -> bool {
    let file = owned(number.into());
    fstat(&file).is_ok_and(|it| it.st_rdev == makedev(1, 3))
}

/// `ioctl(2)` that sends an empty message to a device's manager.
///
/// # Errors
/// The errno of mounting, of starting the server.
pub fn send() -> Result<Act, Errno> {
    let sender = Sender::new()?;
    act_seen(move |arm: Arm| sender.send(arm, None))
}

/// The same, with an object of the sender's own.
///
/// # Errors
/// The errno of mounting, of starting the server.
pub fn send_object() -> Result<Act, Errno> {
    let sender = Sender::new()?;
    act_seen(move |arm: Arm| sender.send(arm, Some([OBJECT, 1, 1])))
}

/// The same, with a descriptor of `/dev/null`.
///
/// # Errors
/// The errno of mounting, of starting the server.
pub fn send_file() -> Result<Act, Errno> {
    let sender = Sender::new()?;
    let file = File::open("/dev/null")?;
    act_seen(move |arm: Arm| sender.send(arm, Some([DESCRIPTOR, index(&file) as u64, 0])))
}

/// What user space sees of [`execute_and_send`] where there is no binder.
pub const WITHOUT_BINDER: Seen = Seen("ok, without binder");

/// `execve(2)`, and where there is binder a message to a manager that wants the sender's label, for which the kernel asks
/// for the number of its credentials (6.14 drivers/android/binder.c, `binder_transaction`).
///
/// # Errors
/// The errno of writing the program, of starting the server.
pub fn execute_and_send() -> Result<Act, Errno> {
    let mut execute = super::exec::execve()?;
    let sender = match Sender::to(ACCEPTS_DESCRIPTORS | WANTS_LABEL) {
        // No such file system.
        Err(errno) if errno.raw() == libc::ENODEV => {
            return act_seen(move |arm: Arm| execute(arm).map(|_| WITHOUT_BINDER));
        }
        sender => sender?,
    };
    act_seen(move |arm: Arm| {
        execute(arm)?;
        sender.send(arm, None)
    })
}

#[cfg(test)]
mod tests {
    use super::{FAILED, MESSAGE, SENT, each};

    #[test]
    fn answers_are_parted_by_the_sizes_in_their_numbers() {
        let mut read = Vec::new();
        read.extend(SENT.to_ne_bytes());
        read.extend(MESSAGE.to_ne_bytes());
        read.extend([7; 64]);
        read.extend(FAILED.to_ne_bytes());
        read.extend(MESSAGE.to_ne_bytes());
        read.extend([7; 63]); // cut off, and left out
        let parted: Vec<_> = each(&read).map(|(number, data)| (number, data.len())).collect();
        assert_eq!(parted, [(SENT, 0), (MESSAGE, 64), (FAILED, 0)]);
    }
}
