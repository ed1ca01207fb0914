//! Kfuncs of a module: a program names them by an id in the module's own BTF, which it passes in `fd_array`.
//!
//! No module of Debian's kernels has kfuncs for LSM programs. `tcp_dctcp` has some for struct_ops, so that there is a
//! program that may call them, and LSM programs hear by name what they may not.

use crate::asm::Asm;
use crate::bpf::{self, BPF_PROG_TYPE_STRUCT_OPS, ProgSpec};
use crate::btf::Btf;
use crate::insn::{Reg, Size};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, source};
use crate::triggers::modules;
use std::fs;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

/// The module.
const MODULE: &str = "tcp_dctcp";
/// One of its kfuncs, which is what the module does for `tcp_congestion_ops.ssthresh`.
const KFUNC: &str = "dctcp_ssthresh";
/// Where the module's BTF stands in `fd_array`: 0 is the kernel's own.
const PLACE: i16 = 1;

/// The probe.
pub(super) fn probe() -> Probe {
    Probe::new(
        "kfuncs/of-a-module",
        "Is a module's kfunc found through the module's BTF, and which programs may call it?",
        &[
            source("7.1", "kernel/bpf/verifier.c", "__find_kfunc_desc_btf"),
            source("7.3", "net/ipv4/tcp_dctcp.c", "dctcp_register"),
        ],
        cases,
    )
    .without_files()
}

fn cases(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("exists", exists)?;
    session.case("struct-ops", |attempt| {
        let module = Module::load(attempt)?;
        let spec = module.struct_ops(attempt)?;
        let ended = attempt.load(&spec).map(drop);
        match (ended, module.struct_of_its_own(attempt)?) {
            (Err(Ended::Refused(_)), Some(record)) => Err(attempt.undecided(format!(
                "the module's BTF has a struct {record} of its own, which the verifier takes for another than the kernel's"
            ))),
            (ended, _) => ended,
        }
    })?;
    let own = |module: &Module| vec![module.fd.as_raw_fd(); 2];
    lsm(session, "lsm", own)?;
    lsm(session, "lsm-no-fd-array", |_| Vec::new())?;
    lsm(session, "lsm-no-btf", |_| {
        let folder = fs::File::open("/").ok();
        // Not a descriptor of BTF, and kept open for as long as the process lives.
        let fd = folder.map_or(-1, IntoRawFd::into_raw_fd);
        vec![fd; 2]
    })
}

/// An LSM program that calls the module's kfunc.
fn lsm(session: &mut Session<'_>, name: &str, fds: impl Fn(&Module) -> Vec<RawFd>) -> Result<(), Stop> {
    session.case(name, |attempt| {
        let module = Module::load(attempt)?;
        let mut asm = Asm::new();
        asm.ldx(Size::DW, Reg::R1, Reg::R1, 0).call_kfunc(module.id, PLACE).mov_imm(Reg::R0, 0).exit();
        let insns = asm.finish().map_err(|error| Ended::could_not("assemble the program", error))?;
        let spec = ProgSpec::lsm("of_a_module", attempt.hook("file_open")?, insns);
        attempt.load_in_doubt(&ProgSpec { fd_array: fds(&module), ..spec }).map(drop)
    })
}

/// Where the function is, and what it is there.
fn exists(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let module = Module::load(attempt)?;
    attempt.see("in the kernel's own BTF", attempt.btf()?.function(KFUNC).is_some());
    attempt.see("in the module's BTF", true);
    attempt.see("prototype", super::declared::prototype(&module.btf, module.id, KFUNC));
    attempt.see("tags", super::declared::tags(&module.btf, module.id));
    Ok(())
}

/// The module's BTF.
struct Module {
    fd: OwnedFd,
    btf: Btf,
    id: u32,
}

impl Module {
    /// Loads the module if it is not.
    fn load(attempt: &Attempt<'_>) -> Result<Self, Ended> {
        if attempt.btf()?.function(KFUNC).is_some() {
            return Err(Ended::CouldNotTell(format!("{MODULE} is built into this kernel")));
        }
        modules::load(&[MODULE]).map_err(|errno| Ended::could_not("load the module", errno))?;
        let path = format!("/sys/kernel/btf/{MODULE}");
        if !fs::exists(format!("/sys/module/{MODULE}")).unwrap_or(false) {
            return Err(Ended::CouldNotTell(format!("there is no module {MODULE} for this kernel")));
        }
        let bytes = fs::read(&path).map_err(|_| Ended::Absent(format!("BTF of module {MODULE}")))?;
        let btf = Btf::parse_split(attempt.btf()?, bytes);
        let btf = btf.map_err(|error| Ended::could_not("read the module's BTF", error))?;
        let id = btf.function(KFUNC).ok_or_else(|| Ended::Absent(format!("function {KFUNC}")))?;
        Ok(Self { fd: descriptor()?, btf, id })
    }

    /// The name of the struct that the kfunc takes, if the module's BTF describes it anew although the kernel's has it:
    /// types are told apart by BTF and id (6.17 kernel/bpf/btf.c, `btf_struct_ids_match`), and that a module's BTF leaves
    /// out what the kernel's has is up to who builds both.
    fn struct_of_its_own(&self, attempt: &Attempt<'_>) -> Result<Option<String>, Ended> {
        let kernel = attempt.btf()?;
        let taken = self.btf.prototype(self.id).and_then(|prototype| {
            let (_, pointer) = prototype.params.first()?;
            self.btf.skip_modifiers(self.btf.pointee(*pointer)?)
        });
        let own = taken.filter(|id| *id >= kernel.next_id()).and_then(|id| self.btf.name(id));
        Ok(own.filter(|name| kernel.record(name).is_some()).map(str::to_owned))
    }

    /// A program for `tcp_congestion_ops.ssthresh`, which does what the module does.
    fn struct_ops(&self, attempt: &Attempt<'_>) -> Result<ProgSpec, Ended> {
        let mut asm = Asm::new();
        asm.ldx(Size::DW, Reg::R1, Reg::R1, 0).call_kfunc(self.id, PLACE).exit();
        let insns = asm.finish().map_err(|error| Ended::could_not("assemble the program", error))?;
        let (ops, kernel) = ("tcp_congestion_ops", attempt.btf()?);
        let absent = || Ended::Absent(format!("struct {ops}"));
        let attach_btf_id = kernel.record(ops).ok_or_else(absent)?;
        let members = kernel.members(attach_btf_id);
        let member = members.iter().position(|(name, ..)| name == "ssthresh").ok_or_else(absent)?;
        Ok(ProgSpec {
            attach_btf_id,
            expected_attach_type: u32::try_from(member).unwrap_or(u32::MAX),
            fd_array: vec![self.fd.as_raw_fd(); 2],
            ..ProgSpec::new(BPF_PROG_TYPE_STRUCT_OPS, "ssthresh", insns)
        })
    }
}

/// A descriptor of the module's BTF, which the kernel gives by id.
fn descriptor() -> Result<OwnedFd, Ended> {
    let cannot = |errno| Ended::could_not("open the module's BTF", errno);
    let mut id = 0;
    while let Some(next) = bpf::btf_next_id(id).map_err(cannot)? {
        id = next;
        // One that is gone meanwhile is not the one.
        let Ok(fd) = bpf::btf_get_fd_by_id(id) else { continue };
        if bpf::btf_info(&fd).map_err(cannot)?.name == MODULE {
            return Ok(fd);
        }
    }
    Err(Ended::Absent(format!("BTF of module {MODULE}")))
}
