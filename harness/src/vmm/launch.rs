//! Command lines: the same machine described to virtme-ng and to QEMU.
//!
//! Both start a `q35` machine without QEMU's default devices and without a network, with one serial port and the channel's
//! memory device (`ivshmem-plain`); the board itself brings an ISA bridge, an SMBus and an AHCI controller without drives.
//! virtme-ng adds three devices that cannot be left out (1.42 virtme/commands/run.py): two 9p exports, read-only, of an
//! empty folder of ours and of its own guest tools, neither of which the guest mounts, and a watchdog (`i6300esb`), which
//! could restart the machine and so end it. A fourth, a console that writes to virtme-ng's standard error, it leaves out
//! because that is a socket (`vmm::said`). A test has the list (`a_machine_has_these_devices_and_no_others`).
//! virtme-ng's own init never runs: `rdinit=/init` and a later `-initrd` put ours in its place.

use super::accel::Accel;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Which program starts the virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LauncherKind {
    /// `vng`, which starts QEMU.
    VirtmeNg,
    /// QEMU alone.
    Qemu,
}

impl LauncherKind {
    /// The name used in options and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtmeNg => "virtme-ng",
            Self::Qemu => "qemu",
        }
    }
}

/// A launcher as found on this machine.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// Which.
    pub kind: LauncherKind,
    /// `vng`, when that is the kind.
    pub vng: Option<PathBuf>,
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
}

/// What one virtual machine is made of.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// The kernel image.
    pub image: PathBuf,
    /// Our initramfs.
    pub initramfs: PathBuf,
    /// Value of `lsm=`.
    pub lsm: String,
    /// Further words for the kernel's command line.
    pub append: Vec<String>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// The accelerator.
    pub accel: Accel,
}

/// The channel's region, in a machine's private folder.
pub const CHANNEL: &str = "channel";
/// The socket of QEMU's monitor, in a machine's private folder.
pub const MONITOR: &str = "qmp";
/// An empty folder, in a machine's private folder.
pub const EMPTY: &str = "empty";

/// The processor under TCG, without what costs an emulator more than it saves a processor.
/// - ERMS: the kernel then clears and copies pages by 8 bytes at a time; TCG steps through a `rep stosb` byte by byte.
/// - FSRM, which QEMU 10 has under TCG and 7.2 has not: a processor with it has ERMS too, and a kernel that is told otherwise
///   copies short pieces wrongly (5.10 arch/x86/lib/memmove_64.S, `__memmove`: the test for less than 32 bytes goes with
///   the one, the copy that needs no test comes with the other). 5.10 then does not come up with QEMU 10.
/// - SMAP: each copy from or to user space changes the processor's mode twice, for which TCG leaves its code, and keeps
///   a second translation cache. A program that reads through a pointer into user space could tell up to 5.14, where
///   the compiler does not check for one (5.12 arch/x86/net/bpf_jit_comp.c, `do_jit`).
/// - LA57: one more level of page tables to walk.
/// - AVX and XSAVE: more registers to save in each change of task, by a slow helper.
const PROCESSOR: &str = "max,erms=off,fsrm=off,smap=off,la57=off,avx=off,avx2=off,xsave=off";

/// The processor under KVM: the host's, without what programs or the texts of crashes could show that TCG's has not. Those
/// are SMAP, as above; LA57, with which the kernel's pointers look otherwise; and what counts events and branches (7.3
/// `arch/x86/events/intel/core.c`, `intel_pmu_init`).
const KVM_PROCESSOR: &str = "max,smap=off,la57=off,pmu=off";

/// Files of one boot, all in a private folder.
pub struct BootFiles {
    /// The channel's region.
    pub region: PathBuf,
    /// The socket of QEMU's monitor, over which a machine is saved and restored.
    pub monitor: PathBuf,
    /// An empty folder.
    pub empty: PathBuf,
}

impl BootFiles {
    /// The files within `folder`.
    #[must_use]
    pub fn within(folder: &Path) -> Self {
        Self { region: folder.join(CHANNEL), monitor: folder.join(MONITOR), empty: folder.join(EMPTY) }
    }
}

impl MachineSpec {
    /// The kernel's command line, without what a launcher adds.
    #[must_use]
    pub fn cmdline(&self) -> String {
        let mut words = vec![
            format!("lsm={}", self.lsm),
            "rdinit=/init".into(),
            // virtme-ng names a root, and then the kernel makes its first file system another one than it does without
            // (6.12 init/do_mounts.c, init_rootfs).
            "rootfstype=tmpfs".into(),
            // An oops ends the machine: what follows one says nothing about the kernel.
            "oops=panic".into(),
            "panic=-1".into(),
            "quiet".into(),
            // A fifth of a boot under TCG: moving the kernel, testing its ciphers, waiting for entropy.
            "nokaslr".into(),
            "cryptomgr.notests".into(),
            "random.trust_cpu=on".into(),
            // A tenth of the rest: with high resolution each sleep sets the interrupt controller's timer anew, for which
            // TCG leaves its code and takes QEMU's lock. Timers end at a tick instead, 4 ms apart.
            "nohz=off".into(),
            "highres=off".into(),
            // To detach a program waits for grace periods, which nothing here depends on in length.
            "rcupdate.rcu_expedited=1".into(),
            // A host that stops the machine for half a minute is no fault of the kernel's (seen as "soft lockup").
            "nowatchdog".into(),
            "rcupdate.rcu_cpu_stall_suppress=1".into(),
            // Nor is one on which not five ticks come in the time that a loop of the kernel's gives ten: it panics then
            // (6.12 arch/x86/kernel/apic/io_apic.c, `timer_irq_works`, `check_timer`).
            "no_timer_check".into(),
            // Guards against speculation, which TCG does not do, and a second look at what is copied from and to user
            // space take two in a hundred of all time. The verifier's own guards depend on `mitigations=` alone (6.8
            // include/linux/bpf.h, `bpf_bypass_spec_v1`).
            "spectre_v2=off".into(),
            // The first line of a crash says whether page tables are apart, which hangs on the processor (5.10
            // arch/x86/kernel/dumpstack.c, `__die_header`).
            "pti=off".into(),
            "hardened_usercopy=off".into(),
            // As kernels come from their sources; distributions zero whatever is allocated.
            "init_on_alloc=0".into(),
        ];
        words.extend(self.append.iter().cloned());
        // Last: it is what /dev/console is.
        words.push("console=ttyS0".into());
        words.join(" ")
    }

    /// Program, arguments and environment that start the machine.
    #[must_use]
    pub fn command(&self, launcher: &Launcher, files: &BootFiles) -> (PathBuf, Vec<OsString>) {
        match (launcher.kind, &launcher.vng) {
            (LauncherKind::VirtmeNg, Some(vng)) => (vng.clone(), self.vng_arguments(launcher, files)),
            (LauncherKind::VirtmeNg, None) | (LauncherKind::Qemu, _) => {
                (launcher.qemu.clone(), self.qemu_arguments(files))
            }
        }
    }

    /// TCG, with all processors of a machine in one thread of the host, in turn.
    ///
    /// With a thread each, QEMU 7.2 loses a change of code that one processor makes while another translates that
    /// code: it reads the code before it locks the page (QEMU 7.2 accel/tcg/translate-all.c, `tb_gen_code`), and the
    /// translation of what is no longer there stays. Kernels change their code all the time, by way of breakpoints;
    /// `selftest/rewritten-code` ends such a machine with `Oops: int3` in a second.
    fn tcg(&self) -> &'static str {
        if self.cpus > 1 { "tcg,thread=single" } else { "tcg" }
    }

    fn vng_arguments(&self, launcher: &Launcher, files: &BootFiles) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        if self.accel == Accel::Tcg {
            arguments.push("--disable-kvm".into());
        }
        for word in [
            "--force-9p",
            "--skip-modules",
            "--disable-microvm",
            "--disable-monitor",
            "--verbose", // otherwise the serial console is not ours
        ] {
            arguments.push(word.into());
        }
        // Of two processors the last one given counts.
        let processor = match self.accel {
            Accel::Kvm => format!("-cpu {KVM_PROCESSOR} "),
            // virtme-ng names no accelerator without KVM.
            Accel::Tcg => format!("-accel {} -cpu {PROCESSOR} ", self.tcg()),
        };
        let options = format!(
            // With KVM virtme-ng names no machine, and QEMU's default is an older one.
            "{processor}-machine q35 -nodefaults -no-user-config -no-reboot -initrd {} {}",
            shell_word(&self.initramfs.to_string_lossy()),
            self.channel_arguments(files).iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
        );
        let pairs: [(&str, OsString); 6] = [
            ("--qemu", launcher.qemu.clone().into()),
            ("--root", files.empty.clone().into()),
            ("--memory", self.memory_mib.to_string().into()),
            ("--cpus", self.cpus.to_string().into()),
            ("--run", self.image.clone().into()),
            ("--append", self.cmdline().into()),
        ];
        for (flag, value) in pairs {
            arguments.push(flag.into());
            arguments.push(value);
        }
        // One word, because the value begins with a dash.
        arguments.push(format!("--qemu-opts={options}").into());
        arguments
    }

    fn qemu_arguments(&self, files: &BootFiles) -> Vec<OsString> {
        let (accel, processor) = match self.accel {
            Accel::Kvm => ("kvm", KVM_PROCESSOR),
            Accel::Tcg => (self.tcg(), PROCESSOR),
        };
        let memory = self.memory_mib.to_string();
        let cpus = self.cpus.to_string();
        let mut arguments: Vec<OsString> = [
            "-machine",
            "q35",
            "-accel",
            accel,
            "-cpu",
            processor,
            "-m",
            &memory,
            "-smp",
            &cpus,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-vga",
            "none",
            "-net",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
            "-monitor",
            "none",
        ]
        .iter()
        .map(OsString::from)
        .collect();
        arguments.extend(["-kernel".into(), self.image.clone().into()]);
        arguments.extend(["-initrd".into(), self.initramfs.clone().into()]);
        arguments.extend(["-append".into(), self.cmdline().into()]);
        arguments.extend(self.channel_arguments(files).into_iter().map(OsString::from));
        arguments
    }

    /// The shared region as a PCI device, and the monitor; a comma in a path is doubled, as QEMU's option syntax asks.
    #[expect(clippy::unused_self, reason = "reads as a property of the machine beside its siblings")]
    fn channel_arguments(&self, files: &BootFiles) -> Vec<String> {
        let path = files.region.to_string_lossy().replace(',', ",,");
        vec![
            "-object".into(),
            format!(
                "memory-backend-file,id=channel,share=on,mem-path={path},size={}",
                probes::protocol::REGION
            ),
            "-device".into(),
            "ivshmem-plain,memdev=channel,master=on".into(),
            "-qmp".into(),
            format!("unix:{},server=on,wait=off", files.monitor.to_string_lossy().replace(',', ",,")),
        ]
    }
}

/// Quotes a word for the shell through which virtme-ng starts QEMU.
fn shell_word(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=./,:+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> MachineSpec {
        MachineSpec {
            image: "/k/vmlinuz".into(),
            initramfs: "/tmp/a b/init.cpio".into(),
            lsm: "landlock,bpf".into(),
            append: vec!["loglevel=7".into()],
            memory_mib: 384,
            cpus: 1,
            accel: Accel::Tcg,
        }
    }

    #[test]
    fn both_launchers_get_the_same_kernel_command_line_and_channel() {
        let files = BootFiles::within(Path::new("/run/x,y"));
        let text = |kind| {
            let launcher = Launcher { kind, vng: Some("/v/vng".into()), qemu: "/q".into() };
            let (program, arguments) = spec().command(&launcher, &files);
            (
                program,
                arguments
                    .iter()
                    .map(|word| word.to_string_lossy().into_owned())
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        };
        let (vng, by_vng) = text(LauncherKind::VirtmeNg);
        let (qemu, by_qemu) = text(LauncherKind::Qemu);
        assert_eq!((vng, qemu), ("/v/vng".into(), "/q".into()));
        for words in [&by_vng, &by_qemu] {
            assert!(words.contains(&spec().cmdline()), "{words}");
            assert!(words.contains("mem-path=/run/x,,y/channel,size=16777216"), "{words}");
            assert!(words.contains("-no-reboot"), "{words}");
        }
        assert!(by_vng.contains("-initrd '/tmp/a b/init.cpio'"), "{by_vng}");
    }

    /// What is not here is a device, or a way to the host, that nobody has thought about.
    #[test]
    fn qemu_is_given_these_devices_and_no_others() {
        let spec = spec();
        let launcher = Launcher { kind: LauncherKind::Qemu, vng: None, qemu: "/q".into() };
        let (_, words) = spec.command(&launcher, &BootFiles::within(Path::new("/run/x")));
        let cmdline = spec.cmdline();
        let expected = [
            ["-machine", "q35"],
            ["-accel", "tcg"],
            ["-cpu", PROCESSOR],
            ["-m", "384"],
            ["-smp", "1"],
            ["-nodefaults", "-no-user-config"],
            ["-display", "none"],
            ["-vga", "none"],
            ["-net", "none"],
            ["-no-reboot", "-serial"],
            ["stdio", "-monitor"],
            ["none", "-kernel"],
            ["/k/vmlinuz", "-initrd"],
            ["/tmp/a b/init.cpio", "-append"],
            [&cmdline, "-object"],
            ["memory-backend-file,id=channel,share=on,mem-path=/run/x/channel,size=16777216", "-device"],
            ["ivshmem-plain,memdev=channel,master=on", "-qmp"],
        ];
        let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let (words, last) = words.split_at(words.len() - 1);
        assert_eq!(words, expected.concat());
        assert_eq!(last, ["unix:/run/x/qmp,server=on,wait=off"]);
    }

    #[test]
    fn the_serial_console_comes_last() {
        assert!(spec().cmdline().ends_with("loglevel=7 console=ttyS0"));
    }

    #[test]
    fn words_with_quotes_survive_a_shell() {
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word("plain-1.0"), "plain-1.0");
    }
}
