//! What a machine is made of: its devices as QEMU has them, and the ways to the host on QEMU's command line.

use super::interruption::{Hanging, qemus_with, wait_for};
use rstest::rstest;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The PCI devices of every machine, by vendor and device.
const EVERY: [(&str, u32, u32); 5] = [
    ("the board's host bridge", 0x8086, 0x29c0),
    ("the channel", 0x1af4, 0x1110),
    ("the board's ISA bridge", 0x8086, 0x2918),
    ("the board's AHCI controller", 0x8086, 0x2922),
    ("the board's SMBus", 0x8086, 0x2930),
];
/// Those that virtme-ng adds.
const VIRTME_NG: [(&str, u32, u32); 3] = [
    ("9p: an empty folder", 0x1af4, 0x1009),
    ("9p: virtme-ng's guest tools", 0x1af4, 0x1009),
    ("the watchdog", 0x8086, 0x25ab),
];
/// What QEMU may be told of devices and of the host, by how it begins; `FILES` is the machine's folder.
const WORDS: [&str; 6] = [
    "-device ivshmem-plain,memdev=channel,",
    "-display none",
    "-net none",
    "-object memory-backend-file,id=channel,share=on,mem-path=FILES/channel,",
    "-qmp unix:FILES/qmp,",
    "-vga none",
];
/// The same of QEMU alone.
const WORDS_OF_QEMU: [&str; 2] = ["-monitor none", "-serial stdio"];
/// The same of virtme-ng.
const WORDS_OF_VIRTME_NG: [&str; 8] = [
    "-chardev stdio,id=console,",
    "-device i6300esb,",
    "-device virtio-9p-pci,fsdev=ROOT,mount_tag=/dev/root",
    "-device virtio-9p-pci,fsdev=TOOLS,mount_tag=virtme.guesttools",
    "-fsdev local,id=ROOT,path=FILES/empty,security_model=none,readonly=on,",
    "-fsdev local,id=TOOLS,path=GUEST,security_model=none,readonly=on,",
    "-parallel none",
    "-serial chardev:console",
];
/// Options that bring no device and no way to the host but what stands in `Options`.
const OTHER: [&str; 13] = [
    "-accel",
    "-append",
    "-cpu",
    "-echr",
    "-initrd",
    "-kernel",
    "-m",
    "-machine",
    "-name",
    "-no-reboot",
    "-no-user-config",
    "-nodefaults",
    "-smp",
];

/// An answer of a machine's monitor.
fn asked(machine: &str, command: &str) -> Value {
    let socket = format!("{machine}/qmp");
    wait_for("QEMU's monitor", Duration::from_secs(20), || UnixStream::connect(&socket).is_ok());
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for command in ["qmp_capabilities", command] {
        writeln!(stream, "{{\"execute\": \"{command}\"}}").unwrap();
    }
    let answers =
        BufReader::new(stream).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let mut answers = answers.filter_map(|mut answer| answer.get_mut("return").map(Value::take));
    answers.nth(1).unwrap()
}

/// What QEMU was told, an option and its value at a time, without options that bring nothing.
fn told_of_the_host(qemu: i32, machine: &str) -> Vec<String> {
    let words = std::fs::read(format!("/proc/{qemu}/cmdline")).unwrap();
    let words = String::from_utf8(words).unwrap();
    let mut options: Vec<String> = Vec::new();
    for word in words.split_terminator('\0').skip(1) {
        match options.last_mut() {
            Some(option) if !word.starts_with('-') => *option = format!("{option} {word}"),
            _ => options.push(word.to_owned()),
        }
    }
    options.retain(|option| !OTHER.contains(&option.split(' ').next().unwrap_or_default()));
    let mut options: Vec<String> = options.iter().map(|option| option.replace(machine, "FILES")).collect();
    // virtme-ng numbers its exports by where they stand.
    for (tag, name) in [("mount_tag=/dev/root", "ROOT"), ("mount_tag=virtme.guesttools", "TOOLS")] {
        let device = options.iter().find(|option| option.ends_with(tag)).cloned();
        if let Some(id) = device.as_deref().and_then(|it| it.split_once("fsdev=")?.1.split(',').next()) {
            options =
                options.iter().map(|option| option.replace(&format!("{id},"), &format!("{name},"))).collect();
        }
    }
    options.sort();
    options
}

#[rstest]
fn a_machine_has_these_devices_and_no_others(#[values("virtme-ng", "qemu")] vmm: &str) {
    let run = Hanging::start(vmm);
    let qemu = qemus_with(&format!("mem-path={}/channel", run.machine))[0];
    let is_vng = vmm == "virtme-ng";

    let mut expected: Vec<&str> = WORDS.to_vec();
    expected.extend(if is_vng { &WORDS_OF_VIRTME_NG[..] } else { &WORDS_OF_QEMU[..] });
    expected.sort_unstable();
    let there = told_of_the_host(qemu, &run.machine);
    assert_eq!(there.len(), expected.len(), "{there:#?}");
    for (there, expected) in there.iter().zip(expected) {
        // Where virtme-ng is installed is no part of it.
        let there = match there.split_once("site-packages/virtme/guest") {
            Some((before, after)) => format!("{}path=GUEST{after}", before.split("path=").next().unwrap()),
            None => there.clone(),
        };
        assert!(there.starts_with(expected), "{there} for {expected}");
    }

    let buses = asked(&run.machine, "query-pci");
    let devices = buses.as_array().unwrap().iter().flat_map(|bus| bus["devices"].as_array().unwrap());
    let id = |device: &Value, which: &str| device["id"][which].as_u64().unwrap();
    let mut there: Vec<(u64, u64)> = devices.map(|it| (id(it, "vendor"), id(it, "device"))).collect();
    let added = if is_vng { &VIRTME_NG[..] } else { &[] };
    let mut expected: Vec<(u64, u64)> =
        EVERY.iter().chain(added).map(|&(_, vendor, device)| (vendor.into(), device.into())).collect();
    there.sort_unstable();
    expected.sort_unstable();
    assert_eq!(there, expected, "{there:x?}");
    assert_eq!(asked(&run.machine, "query-block"), Value::Array(Vec::new()), "drives, also empty ones");
}
