//! A HID device whose other side is the probe (uhid): a mouse of one byte an axis, with an output and a feature report.
//!
//! What the probe keeps open has a number that is the same in every probe: processes of probes share memory, so what one
//! kept there the next would find, while descriptors are each probe's own and go with it.

use super::children::{Idle, spawn};
use crate::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, RawFd};
use std::path::Path;

/// Where [`plug_in`] keeps the device.
const DEVICE: RawFd = 200;
/// Where [`listen`] keeps what the kernel shows of reports.
const EVENTS: RawFd = 201;
/// Milliseconds that the kernel has for telling of something.
const PATIENCE: u16 = 5000;

/// include/uapi/linux/uhid.h, enum uhid_event_type.
const START: u32 = 2;
const OUTPUT: u32 = 6;
const GET_REPORT: u32 = 9;
const GET_REPORT_REPLY: u32 = 10;
const CREATE2: u32 = 11;
/// Bytes that hold any event.
const EVENT_BYTES: usize = 8192;
/// include/uapi/linux/uhid.h, struct uhid_output_req: bytes of `data`, which `size` follows.
const OUTPUT_DATA: usize = 4096;

/// The names of the kernel's devices begin so: bus (`BUS_VIRTUAL`), vendor, product.
const NAME: &str = "0006:C0DE:0001.";
const BUS: u16 = 0x06;
const VENDOR: u32 = 0xc0de;
const PRODUCT: u32 = 1;

/// Bytes of an input report.
pub(crate) const INPUT_BYTES: i32 = 2;
/// Bytes of an output report, and of a feature report.
pub(crate) const OUTPUT_BYTES: i32 = 4;
/// What the device answers who asks for its feature report.
pub(crate) const FEATURE: [u8; 4] = [0xfe, 0xa7, 0x12, 0xe5];

/// What the reports are (HID 1.11, 6.2.2). The kernel wants an application that it can make an input device of.
const DESCRIPTOR: &[u8] = &[
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, // generic desktop, mouse: application
    0x09, 0x30, 0x09, 0x31, 0x15, 0x81, 0x25, 0x7f, 0x75, 0x08, 0x95, 0x02, 0x81, 0x06, // x, y: input
    0x06, 0x00, 0xff, 0x15, 0x00, 0x26, 0xff, 0x00, 0x95, 0x04, // a vendor's, four bytes each
    0x09, 0x01, 0x91, 0x02, // output
    0x09, 0x02, 0xb1, 0x02, // feature
    0xc0,
];

/// Makes the device, waits until a driver has it, and gives the number by which the kernel knows it. One made before is
/// gone.
///
/// # Errors
/// The errno of opening uhid or of a write to it; `ETIMEDOUT` when no driver takes the device.
pub(crate) fn plug_in() -> Result<u32, Errno> {
    let mut device = OpenOptions::new().read(true).write(true).open("/dev/uhid")?;
    keep(&device, DEVICE)?;
    device.write_all(&create())?;
    next(START)?;
    let name = name()?;
    // The driver's probe may still be under way, and holds what reports are taken under. Binding what is bound waits for
    // it and says EBUSY (6.10 drivers/base/dd.c, device_driver_attach).
    let bound = fs::write("/sys/bus/hid/drivers/hid-generic/bind", &name).map_err(Errno::from);
    if let Err(errno) = bound
        && errno != Errno::EBUSY
    {
        return Err(errno);
    }
    let number = name.trim_start_matches(NAME);
    u32::from_str_radix(number, 16).map_err(|_| Errno::from_raw(libc::EPROTO))
}

/// The device's name in sysfs.
fn name() -> Result<String, Errno> {
    for entry in fs::read_dir("/sys/bus/hid/devices")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(NAME) {
            return Ok(name);
        }
    }
    Err(Errno::from_raw(libc::ENODEV))
}

/// Gives what `file` is open on a fixed number; what had it is closed.
fn keep(file: &File, number: RawFd) -> Result<(), Errno> {
    // SAFETY: plain numbers; nobody else uses these.
    match unsafe { libc::dup3(file.as_raw_fd(), number, libc::O_CLOEXEC) } {
        -1 => Err(Errno::last()),
        _ => Ok(()),
    }
}

/// The file at one of the fixed numbers; a number that nothing is open at gives `EBADF` when used.
fn kept(number: RawFd) -> ManuallyDrop<File> {
    // SAFETY: the number is this module's alone, and the file is not closed when it is dropped.
    ManuallyDrop::new(unsafe { File::from_raw_fd(number) })
}

/// `UHID_CREATE2` and `struct uhid_create2_req`.
fn create() -> Vec<u8> {
    let mut event = CREATE2.to_ne_bytes().to_vec();
    event.extend(b"conform");
    event.resize(4 + 128 + 64 + 64, 0); // name, phys, uniq
    event.extend(u16::try_from(DESCRIPTOR.len()).unwrap_or(u16::MAX).to_ne_bytes());
    event.extend(BUS.to_ne_bytes());
    for word in [VENDOR, PRODUCT, 0, 0] {
        event.extend(word.to_ne_bytes());
    }
    event.extend(DESCRIPTOR);
    event
}

/// Waits until `file` has something to be read.
fn readable(file: &File) -> Result<(), Errno> {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(PATIENCE))? {
        0 => Err(super::LATE),
        _ => Ok(()),
    }
}

/// The next event of this kind, without its first word; others are passed over.
fn next(kind: u32) -> Result<Vec<u8>, Errno> {
    let mut device = kept(DEVICE);
    loop {
        readable(&device)?;
        let mut event = vec![0; EVENT_BYTES];
        let length = device.read(&mut event)?;
        event.truncate(length);
        if event.first_chunk().is_some_and(|word| u32::from_ne_bytes(*word) == kind) {
            return Ok(event.split_off(4));
        }
    }
}

/// The output report that the kernel sent to the device.
///
/// # Errors
/// `ETIMEDOUT` when it sent none.
pub(crate) fn output() -> Result<Vec<u8>, Errno> {
    let request = next(OUTPUT)?;
    let size = request.get(OUTPUT_DATA..).and_then(|rest| rest.first_chunk());
    let size = usize::from(u16::from_ne_bytes(*size.ok_or(Errno::from_raw(libc::EPROTO))?));
    request.get(..size).map(<[u8]>::to_vec).ok_or(Errno::from_raw(libc::EPROTO))
}

/// Does `act` while a child answers who asks for the feature report.
///
/// # Errors
/// The errno of starting the child, or that of `act`.
pub(crate) fn answering(act: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let server = Idle::of(spawn(|| {
        loop {
            let request = next(GET_REPORT)?;
            // struct uhid_get_report_req: id. struct uhid_get_report_reply_req: id, err, size, data.
            let id = request.first_chunk::<4>().ok_or(Errno::from_raw(libc::EPROTO))?;
            let mut reply = GET_REPORT_REPLY.to_ne_bytes().to_vec();
            reply.extend(id);
            reply.extend([0, 0]);
            reply.extend(4_u16.to_ne_bytes());
            reply.extend(FEATURE);
            kept(DEVICE).write_all(&reply)?;
        }
    })?);
    let result = act();
    drop(server);
    result
}

/// From now on the kernel shows the device's reports ([`heard`]).
///
/// # Errors
/// The errno of mounting debugfs or of opening its file.
pub(crate) fn listen() -> Result<(), Errno> {
    let place = Path::new("/tmp/debug");
    fs::create_dir_all(place)?;
    match mount(Some("debugfs"), place, Some("debugfs"), MsFlags::empty(), None::<&str>) {
        Ok(()) | Err(nix::Error::EBUSY) => {} // mounted there already
        Err(errno) => return Err(errno.into()),
    }
    keep(&File::open(place.join("hid").join(name()?).join("events"))?, EVENTS)
}

/// What the kernel shows of reports since [`listen`].
///
/// # Errors
/// `ETIMEDOUT` when there were none.
pub(crate) fn heard() -> Result<String, Errno> {
    let mut events = kept(EVENTS);
    readable(&events)?;
    let mut text = vec![0; EVENT_BYTES];
    let length = events.read(&mut text)?;
    text.truncate(length);
    Ok(String::from_utf8_lossy(&text).into_owned())
}
