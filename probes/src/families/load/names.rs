//! What a program names: its licence, its hook, its attach type, flags.

use crate::asm::Asm;
use crate::bpf::{
    self, ATTACH_TYPES, BPF_F_TOKEN_FD, BPF_LSM_CGROUP, BPF_LSM_MAC, BPF_MODIFY_RETURN, BPF_PROG_TYPE_LSM,
    License, MapSpec, ProgSpec, btf_load,
};
use crate::btf::{Btf, Kind};
use crate::btf_build::{BtfBuilder, SIGNED};
use crate::errno::Errno;
use crate::insn::Reg;
use crate::lsm::{Attached, LsmProgram, deny};
use crate::record::Phase;
use crate::rules::{BARE, Chain, Site, bare_is_held, insns, member, outcome_word, without_trampoline};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::{modules, tasks};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

/// A program that allows, for the hook with this id.
pub(super) fn allowing(id: u32, attach_type: u32) -> Result<ProgSpec, Ended> {
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, i32::from(attach_type == BPF_LSM_CGROUP)).exit();
    Ok(ProgSpec {
        expected_attach_type: attach_type,
        attach_btf_id: id,
        ..ProgSpec::new(BPF_PROG_TYPE_LSM, "allowing", insns(&asm)?)
    })
}

pub(super) fn licence(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, licence) in [
        ("GPL", "GPL"),
        ("GPL-v2", "GPL v2"),
        ("GPL-and-additional-rights", "GPL and additional rights"),
        ("Dual-MIT-GPL", "Dual MIT/GPL"),
        ("Dual-BSD-GPL", "Dual BSD/GPL"),
        ("Dual-MPL-GPL", "Dual MPL/GPL"),
        ("GPL-2_0", "GPL-2.0"),
        ("MIT", "MIT"),
        ("Apache-2_0", "Apache-2.0"),
        ("Proprietary", "Proprietary"),
        ("empty", ""),
    ] {
        session.case(name, |attempt| {
            let id = attempt.hook("file_open")?;
            let licence =
                CString::new(licence).map_err(|error| Ended::could_not("write the licence", error))?;
            attempt.load(&ProgSpec { license: License(licence), ..allowing(id, BPF_LSM_MAC)? }).map(drop)
        })?;
    }
    Ok(())
}

pub(super) fn attach_btf_id(session: &mut Session<'_>) -> Result<(), Stop> {
    fn load(attempt: &mut Attempt<'_>, id: u32) -> Result<(), Ended> {
        attempt.load(&allowing(id, BPF_LSM_MAC)?).map(drop)
    }
    session.case("zero", |attempt| load(attempt, 0))?;
    session.case("a-struct", |attempt| {
        let id = attempt.btf()?.record("task_struct").ok_or_else(|| Ended::Absent("task_struct".into()))?;
        load(attempt, id)
    })?;
    session.case("a-typedef", |attempt| {
        let id = attempt.btf()?.find(Kind::Typedef, "pid_t").ok_or_else(|| Ended::Absent("pid_t".into()))?;
        load(attempt, id)
    })?;
    session.case("behind-the-last", |attempt| {
        let id = attempt.btf()?.next_id();
        load(attempt, id)
    })?;
    session.case("above-the-limit", |attempt| load(attempt, 0x000f_ffff + 1))?;
    session.case("largest", |attempt| load(attempt, u32::MAX))?;
    session.case("of-a-modules-function", |attempt| {
        let id = Module::get(attempt)?.function;
        load(attempt, id)
    })
}

/// A module that is loaded, and whose types the kernel knows.
struct Module {
    /// Its BTF.
    btf: OwnedFd,
    /// The id of a function that it exports.
    function: u32,
}

impl Module {
    const NAME: &str = "xfrm_algo";

    /// Loads it. Kernels before 5.11 do not keep the BTF of modules.
    fn get(attempt: &mut Attempt<'_>) -> Result<Self, Ended> {
        let name = Self::NAME;
        modules::load(&[name]).map_err(|errno| Ended::could_not("load a module", errno))?;
        if !std::fs::exists(format!("/sys/module/{name}")).unwrap_or(false) {
            return Err(Ended::CouldNotTell(format!("the module {name} is not at hand")));
        }
        let bytes = std::fs::read(format!("/sys/kernel/btf/{name}"))
            .map_err(|_| Ended::Absent("BTF of modules".into()))?;
        let types = Btf::parse_split(attempt.btf()?, bytes)
            .map_err(|error| Ended::could_not("read the module's BTF", error))?;
        let function = types
            .function("xfrm_aalg_get_byname")
            .ok_or_else(|| Ended::CouldNotTell("the module's BTF lacks its function".into()))?;
        let btf = kernel_btf(attempt, name)?;
        Ok(Self { btf: btf.ok_or_else(|| Ended::Absent("an id of the module's BTF".into()))?, function })
    }
}

/// The kernel's BTF of that name, by `BPF_BTF_GET_NEXT_ID`.
fn kernel_btf(attempt: &mut Attempt<'_>, name: &str) -> Result<Option<OwnedFd>, Ended> {
    let mut next = 0;
    while let Ok(Some(id)) = bpf::btf_next_id(next) {
        let fd = attempt.calls(Phase::Open, bpf::btf_get_fd_by_id(id))?;
        if bpf::btf_info(&fd).is_ok_and(|info| info.kernel && info.name == name) {
            return Ok(Some(fd));
        }
        next = id;
    }
    Ok(None)
}

/// Functions of BTF that begin like hooks.
pub(super) fn disabled_hooks(session: &mut Session<'_>) -> Result<(), Stop> {
    for hook in [
        "vm_enough_memory",
        "inode_need_killpriv",
        "inode_getsecurity",
        "inode_listsecurity",
        "inode_copy_up_xattr",
        "xfrm_decode_session",
        "getselfattr",
        "getprocattr",
        "setprocattr",
        "key_getsecurity",
        "audit_rule_match",
        "ismaclabel",
        "file_alloc_security",
        "verify_prog",
        "find_cgroup_shim",
        "is_sleepable_hook",
    ] {
        session.case(hook, |attempt| {
            let id = attempt.hook(hook)?;
            attempt.load(&allowing(id, BPF_LSM_MAC)?).map(drop)
        })?;
    }
    Ok(())
}

pub(super) fn other_functions(session: &mut Session<'_>) -> Result<(), Stop> {
    for function in ["security_file_open", "apparmor_file_open", "cap_capable", "vfs_open", "do_unlinkat"] {
        session.case(function, |attempt| {
            let found = attempt.btf()?.function(function);
            let id = found.ok_or_else(|| Ended::Absent(format!("function {function}")))?;
            attempt.load(&allowing(id, BPF_LSM_MAC)?).map(drop)
        })?;
    }
    Ok(())
}

/// Until 5.10 that place of the attribute is attach_prog_fd and nothing else: a program's descriptor (5.12
/// kernel/bpf/syscall.c, `bpf_prog_load`, takes either there).
fn has_attach_btf_obj_fd(attempt: &Attempt<'_>) -> Result<(), Ended> {
    let found = attempt.btf()?.member("bpf_attr", "attach_btf_obj_fd");
    found.map(drop).map_err(|_| Ended::Absent("attach_btf_obj_fd of BPF_PROG_LOAD".into()))
}

pub(super) fn attach_btf_obj_fd(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("the-kernels", |attempt| {
        let id = attempt.hook("file_open")?;
        let fd = kernel_btf(attempt, "vmlinux")?;
        let fd = fd.ok_or_else(|| Ended::Absent("an id of the kernel's BTF".into()))?;
        let spec = ProgSpec { attach_fd: Some(fd.as_raw_fd()), ..allowing(id, BPF_LSM_MAC)? };
        attempt.load(&spec).map(drop)
    })?;
    session.case("a-modules-for-its-function", |attempt| {
        let module = Module::get(attempt)?;
        let spec =
            ProgSpec { attach_fd: Some(module.btf.as_raw_fd()), ..allowing(module.function, BPF_LSM_MAC)? };
        attempt.load(&spec).map(drop)
    })?;
    // Ids below the module's own are the kernel's: the types of both are numbered as one.
    session.case("a-modules-for-a-hook", |attempt| {
        // Nobody else has a program there: through the module's BTF the kernel takes the hook for another function.
        let site = Site { hook: "task_getpgid", ret: Some(1), recipe: tasks::get_group };
        let mut chain = Chain::new(attempt, site)?;
        let module = Module::get(attempt)?;
        let extra = ProgSpec { attach_fd: Some(module.btf.as_raw_fd()), ..ProgSpec::default() };
        let program = LsmProgram { extra: Some(extra), ..member(&site, &chain.results, 0) };
        let program = attempt.load_lsm(&program)?;
        let link = attempt.attach(&program)?;
        chain.attached.push(Some(Attached { program, link }));
        let round = chain.round(attempt, &[deny(Errno::EPERM)]);
        attempt.runs(chain.results.runs());
        attempt.denial("user space sees", &round.outcome, Errno::EPERM);
        let other = attempt.load_lsm(&member(&site, &chain.results, 1))?;
        attempt.at(Phase::Attach);
        attempt.outcome("attaching another without a descriptor", &bpf::raw_tracepoint_open(&other, None, 0));
        Ok(())
    })?;
    session.case("a-programs", |attempt| {
        has_attach_btf_obj_fd(attempt)?;
        let mut types = BtfBuilder::new();
        let int = types.int("int", 4, SIGNED);
        let btf =
            btf_load(&types.finish()).map_err(|error| Ended::could_not("load BTF of a program", error))?;
        let spec = ProgSpec { attach_fd: Some(btf.as_raw_fd()), ..allowing(int, BPF_LSM_MAC)? };
        attempt.load(&spec).map(drop)
    })?;
    session.case("a-map", |attempt| {
        has_attach_btf_obj_fd(attempt)?;
        let id = attempt.hook("file_open")?;
        let map = attempt.map(&MapSpec::array(8, 1))?;
        let spec = ProgSpec { attach_fd: Some(map.as_raw_fd()), ..allowing(id, BPF_LSM_MAC)? };
        attempt.load(&spec).map(drop)
    })?;
    session.case("no-descriptor", |attempt| {
        has_attach_btf_obj_fd(attempt)?;
        let id = attempt.hook("file_open")?;
        attempt.load(&ProgSpec { attach_fd: Some(-1), ..allowing(id, BPF_LSM_MAC)? }).map(drop)
    })
}

/// 5.7 takes fmod_ret for any function that has a trampoline already, and a program's goes some time after it (5.7
/// kernel/bpf/verifier.c, check_attach_btf_id): that type is asked about on hooks of its own, with and without one.
pub(super) fn expected_attach_type(session: &mut Session<'_>) -> Result<(), Stop> {
    let held = bare_is_held(session);
    session.case("every-type-on-a-hook", |attempt| {
        let (id, bare) = (attempt.hook("file_receive")?, attempt.hook(BARE)?);
        attempt.at(Phase::Load);
        let mut accepted = Vec::new();
        for &(number, name) in ATTACH_TYPES {
            let taken = if number == BPF_MODIFY_RETURN {
                let spec = allowing(bare, number)?;
                let refused = without_trampoline(held, || taken(&spec)).map(drop);
                match refused {
                    Err(Ended::Refused(_)) => false,
                    other => other.map(|()| true)?,
                }
            } else {
                taken(&allowing(id, number)?).is_ok()
            };
            if taken {
                accepted.push(name);
            }
        }
        attempt.see("accepted", accepted);
        Ok(())
    })?;
    session.case("fmod_ret-without-a-trampoline", |attempt| {
        let spec = allowing(attempt.hook(BARE)?, BPF_MODIFY_RETURN)?;
        without_trampoline(held, || attempt.load(&spec)).map(drop)
    })?;
    session.case("fmod_ret-with-a-trampoline", |attempt| {
        let id = attempt.hook("file_receive")?;
        let _keeps_it = attempt.load(&allowing(id, BPF_LSM_MAC)?)?;
        attempt.load(&allowing(id, BPF_MODIFY_RETURN)?).map(drop)
    })?;
    for (name, number) in [("missing", 0), ("iter-on-a-hook", bpf::BPF_TRACE_ITER), ("unknown", 0xffff)] {
        session.case(name, |attempt| {
            let id = attempt.hook("file_receive")?;
            attempt.load(&allowing(id, number)?).map(drop)
        })?;
    }
    session.case("raw_tp-on-a-tracepoint", |attempt| {
        let name = "btf_trace_sys_enter";
        let id = attempt.btf()?.find(Kind::Typedef, name).ok_or_else(|| Ended::Absent(name.into()))?;
        attempt.load(&allowing(id, bpf::BPF_TRACE_RAW_TP)?).map(drop)
    })?;
    session.case("iter-on-an-iterator", |attempt| {
        let name = "bpf_iter_task";
        let id = attempt.btf()?.function(name).ok_or_else(|| Ended::Absent(name.into()))?;
        attempt.load(&allowing(id, bpf::BPF_TRACE_ITER)?).map(drop)
    })
}

/// Whether it loads.
fn taken(spec: &ProgSpec) -> Result<OwnedFd, Ended> {
    bpf::prog_load(spec, 0).map_err(|refused| Ended::Refused(refused.errno))
}

/// On a hook that takes sleepable programs on every kernel that has them: `file_open` does since 5.11, one later (5.10
/// kernel/bpf/verifier.c, btf_sleepable_lsm_hooks).
pub(super) fn flags(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("each", |attempt| {
        let id = attempt.hook(super::sleepable::HOOK)?;
        attempt.at(Phase::Load);
        for (bit, name) in [
            "BPF_F_STRICT_ALIGNMENT",
            "BPF_F_ANY_ALIGNMENT",
            "BPF_F_TEST_RND_HI32",
            "BPF_F_TEST_STATE_FREQ",
            "BPF_F_SLEEPABLE",
            "BPF_F_XDP_HAS_FRAGS",
            "BPF_F_XDP_DEV_BOUND_ONLY",
            "BPF_F_TEST_REG_INVARIANTS",
        ]
        .into_iter()
        .enumerate()
        {
            let spec = ProgSpec { flags: 1 << bit, ..allowing(id, BPF_LSM_MAC)? };
            let answer = bpf::prog_load(&spec, 0).map_err(|refused| refused.errno);
            attempt.see(name, outcome_word(&answer));
        }
        // A kernel that knows the flag looks for the descriptor (6.9 kernel/bpf/token.c, `bpf_token_get_from_fd`). On others
        // the descriptor's place is beyond the attributes, and a number there is E2BIG before the flag is looked at (6.7
        // kernel/bpf/syscall.c, `__sys_bpf`).
        if attempt.btf()?.member("bpf_attr", "prog_token_fd").is_ok() {
            let answer = bpf::prog_load_with_token(&allowing(id, BPF_LSM_MAC)?, -1);
            let answer = answer.map_err(|refused| refused.errno);
            attempt.see("BPF_F_TOKEN_FD with the descriptor -1", outcome_word(&answer));
        } else {
            let spec = ProgSpec { flags: BPF_F_TOKEN_FD, ..allowing(id, BPF_LSM_MAC)? };
            let answer = bpf::prog_load(&spec, 0).map_err(|refused| refused.errno);
            attempt.see("BPF_F_TOKEN_FD", outcome_word(&answer));
        }
        let spec = ProgSpec { flags: 1 << 31, ..allowing(id, BPF_LSM_MAC)? };
        let answer = bpf::prog_load(&spec, 0).map_err(|refused| refused.errno);
        attempt.see("unknown", outcome_word(&answer));
        Ok(())
    })
}

pub(super) fn ifindex(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("loopback", |attempt| {
        let id = attempt.hook("file_open")?;
        let answer = bpf::prog_load_for_device(&allowing(id, BPF_LSM_MAC)?, 1);
        attempt.at(Phase::Load);
        let answer = answer.map_err(|refused| Ended::Refused(refused.errno));
        attempt.loaded(answer.is_ok(), "");
        answer.map(drop)
    })
}

/// What is in `prog_name`, byte for byte.
pub(super) fn name(session: &mut Session<'_>) -> Result<(), Stop> {
    for (case, name) in [
        ("none", &b""[..]),
        ("letters-digits-underscore-dot", b"a_Z.9"),
        ("fifteen-letters", b"abcdefghijklmno"),
        ("sixteen-letters", b"abcdefghijklmnop"),
        ("a-space", b"a b"),
        ("a-slash", b"a/b"),
        ("a-hyphen", b"a-b"),
    ] {
        session.case(case, |attempt| {
            let id = attempt.hook("file_open")?;
            let answer = bpf::prog_load_named(&allowing(id, BPF_LSM_MAC)?, name);
            attempt.at(Phase::Load);
            let answer = answer.map_err(|refused| Ended::Refused(refused.errno));
            attempt.loaded(answer.is_ok(), "");
            answer.map(drop)
        })?;
    }
    Ok(())
}
