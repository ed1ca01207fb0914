//! Finding the channel: QEMU's `ivshmem-plain` device among the PCI devices that sysfs shows.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

const DEVICES: &str = "/sys/bus/pci/devices";
/// Red Hat's vendor number, as sysfs prints it.
const VENDOR: &str = "0x1af4";
/// QEMU docs/specs/ivshmem-spec: device 1110.
const DEVICE: &str = "0x1110";

/// Opens the device's memory bar.
///
/// # Errors
/// A sentence, when there is no such device or it cannot be opened.
///
/// The write-combining view is preferred: with KVM on processors that honour the guest's page attributes the plain
/// one is uncached. Both are the same memory.
pub fn open_channel() -> Result<File, String> {
    let devices = fs::read_dir(DEVICES).map_err(|error| format!("cannot list {DEVICES}: {error}"))?;
    for device in devices.flatten() {
        let folder = device.path();
        if !has(&folder, "vendor", VENDOR) || !has(&folder, "device", DEVICE) {
            continue;
        }
        // Without a driver nobody has switched the device's memory on. The second stage finds it on already.
        let enable = folder.join("enable");
        if fs::read_to_string(&enable).is_ok_and(|count| count.trim() == "0") {
            fs::write(&enable, "1").map_err(|error| format!("cannot enable the channel: {error}"))?;
        }
        return ["resource2_wc", "resource2"]
            .iter()
            .find_map(|bar| OpenOptions::new().read(true).write(true).open(folder.join(bar)).ok())
            .ok_or_else(|| format!("cannot open the memory bar of {}", folder.display()));
    }
    Err(format!("no ivshmem device among {DEVICES}: was the machine started by the harness?"))
}

fn has(folder: &Path, file: &str, value: &str) -> bool {
    fs::read_to_string(folder.join(file)).is_ok_and(|text| text.trim() == value)
}
