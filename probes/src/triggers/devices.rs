//! Devices that the kernel makes on demand: tunnels and loops.

use super::files::{index, owned};
use super::{Act, Arm, act, modules, syscall};
use crate::errno::Errno;
use std::fs::{File, OpenOptions};

/// include/uapi/linux/if_tun.h: TUNSETIFF, TUNSETQUEUE.
const SET_INTERFACE: usize = 0x4004_54ca;
const SET_QUEUE: usize = 0x4004_54d9;
/// The same: IFF_TUN, IFF_NO_PI, IFF_MULTI_QUEUE.
const TUNNEL: u16 = 0x1101;
/// The same: IFF_ATTACH_QUEUE, IFF_DETACH_QUEUE.
const ATTACH: u16 = 0x200;
const DETACH: u16 = 0x400;
/// include/uapi/linux/loop.h: LOOP_CTL_ADD, LOOP_CTL_REMOVE.
const ADD: usize = 0x4c80;
const REMOVE: usize = 0x4c81;
/// include/uapi/linux/major.h: LOOP_MAJOR, the upper 12 bits of a device's number (include/linux/kdev_t.h, MKDEV).
const LOOP_MAJOR: u64 = 7;

fn tun() -> Result<File, Errno> {
    modules::load(&["tun"])?;
    Ok(OpenOptions::new().read(true).write(true).open("/dev/net/tun")?)
}

/// `ioctl(2)` with a `struct ifreq`: a name and flags.
fn request(file: &File, command: usize, flags: u16) -> Result<(), Errno> {
    let mut request = [0_u8; 40];
    request[..8].copy_from_slice(b"conform0");
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: a structure of 40 bytes.
    unsafe { syscall(libc::SYS_ioctl, [index(file), command, request.as_mut_ptr().addr(), 0, 0, 0]) }
        .map(drop)
}

/// `ioctl(2)` that makes a tunnel; it goes with the descriptor.
///
/// # Errors
/// The errno of opening the device.
pub fn new_tunnel() -> Result<Act, Errno> {
    drop(tun()?);
    act(|arm: Arm| {
        let tun = tun()?;
        arm.during(|| request(&tun, SET_INTERFACE, TUNNEL))
    })
}

/// `close(2)` of a tunnel, with which it goes.
///
/// # Errors
/// The errno of opening the device.
pub fn end_tunnel() -> Result<Act, Errno> {
    drop(tun()?);
    act(|arm: Arm| {
        let tun = tun()?;
        request(&tun, SET_INTERFACE, TUNNEL)?;
        arm.during(|| drop(tun));
        Ok(())
    })
}

/// `ioctl(2)` that opens a tunnel a second time, which gives it a second queue.
///
/// # Errors
/// The errno of making the tunnel.
pub fn second_queue() -> Result<Act, Errno> {
    let first = tun()?;
    request(&first, SET_INTERFACE, TUNNEL)?;
    act(move |arm: Arm| {
        let _open = &first;
        let second = tun()?;
        arm.during(|| request(&second, SET_INTERFACE, TUNNEL))
    })
}

/// `ioctl(2)` that takes a queue into use again.
///
/// # Errors
/// The errno of making the tunnel.
pub fn queue_again() -> Result<Act, Errno> {
    let first = tun()?;
    request(&first, SET_INTERFACE, TUNNEL)?;
    let second = tun()?;
    request(&second, SET_INTERFACE, TUNNEL)?;
    act(move |arm: Arm| {
        let _open = &first;
        request(&second, SET_QUEUE, DETACH)?;
        let result = arm.during(|| request(&second, SET_QUEUE, ATTACH));
        if result.is_err() {
            request(&second, SET_QUEUE, ATTACH)?;
        }
        result
    })
}

fn loop_control() -> Result<File, Errno> {
    modules::load(&["loop"])?;
    Ok(File::open("/dev/loop-control")?)
}

fn control(file: &File, command: usize, number: usize) -> Result<(), Errno> {
    // SAFETY: the requests take a number.
    unsafe { syscall(libc::SYS_ioctl, [index(file), command, number, 0, 0, 0]) }.map(drop)
}

/// `ioctl(2)` that makes a block device, each time another. They stay until the machine goes: to remove one takes as long
/// as ten probes.
///
/// # Errors
/// The errno of opening the control device.
pub fn new_loop() -> Result<Act, Errno> {
    let loops = loop_control()?;
    let mut minor = 100;
    act(move |arm: Arm| {
        minor += 1;
        arm.during(|| control(&loops, ADD, minor))
    })
}

/// The end of a block device, some time after it is removed. Names its number, each time another.
///
/// # Errors
/// The errno of opening the control device.
pub fn end_loop() -> Result<Act, Errno> {
    let loops = loop_control()?;
    let mut minor = 200;
    act(move |arm: Arm| {
        minor += 1;
        control(&loops, ADD, minor)?;
        arm.during_mark(LOOP_MAJOR << 20 | minor as u64, || {
            let result = control(&loops, REMOVE, minor);
            arm.until_run_or_freed(super::FREED);
            result
        })
    })
}

/// A stream socket of SCTP.
pub(super) fn sctp() -> Result<std::os::fd::OwnedFd, Errno> {
    modules::load(&["libcrc32c", "udp_tunnel", "ip6_udp_tunnel", "sctp"])?;
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes three numbers.
    Errno::result(unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_SCTP) }).map(|fd| owned(fd.into()))
}
