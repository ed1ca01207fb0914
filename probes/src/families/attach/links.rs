//! What a link knows and can do, once it is there.

use crate::asm::Asm;
use crate::bpf::{
    self, BPF_CGROUP_INET_INGRESS, BPF_LSM_MAC, BPF_PROG_TYPE_CGROUP_SKB, LinkInfo, LinkSpec, LinkTarget,
    ProgSpec,
};
use crate::btf::BtfError;
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE, deny};
use crate::record::Phase;
use crate::rules::{Cgroup, Chain, NTH, Place, SESSION, insns, member, note};
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// A program that leaves its cookie at its place.
fn cookie_reader(chain: &Chain, number: i32) -> LsmProgram {
    let place = Place::nth(number);
    LsmProgram::framed(SESSION.hook, &chain.results, |asm| {
        note(asm, place, None);
        asm.mov_reg(Reg::R1, CTX).call(helper::GET_ATTACH_COOKIE).stx(Size::DW, PAGE, place.extra(), Reg::R0);
    })
}

/// One program with a cookie, and two programs with different ones.
pub(super) fn cookies(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, cookies) in [("one-program", &[0x1234_5678_9abc_u64][..]), ("two-programs", &[7, 8])] {
        session.case(name, |attempt| {
            attempt.needs_helper(helper::GET_ATTACH_COOKIE)?;
            let mut chain = Chain::new(attempt, SESSION)?;
            let mut links = Vec::new();
            for (number, &cookie) in (0..).zip(cookies) {
                let program = attempt.load_lsm(&cookie_reader(&chain, number))?;
                let spec = LinkSpec { attach_type: BPF_LSM_MAC, cookie, ..LinkSpec::default() };
                links.push(attempt.calls(Phase::Attach, bpf::link_create(&program, &spec))?);
            }
            let _round = chain.round(attempt, &[]);
            attempt.runs(chain.results.runs());
            for (number, (&cookie, name)) in (0..).zip(cookies.iter().zip(NTH)) {
                see_cookie(attempt, name, chain.results.get(Place::nth(number).extra()), cookie);
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn see_cookie(attempt: &mut Attempt<'_>, name: &str, found: u64, given: u64) {
    let what = match found {
        _ if found == given => "the cookie given",
        0 => "0",
        _ => "SOMETHING ELSE",
    };
    attempt.see(&format!("the {name} program sees"), what);
}

/// A cookie in BPF_RAW_TRACEPOINT_OPEN.
pub(super) fn raw_cookie(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("one-program", |attempt| {
        attempt.needs_helper(helper::GET_ATTACH_COOKIE)?;
        let mut chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&cookie_reader(&chain, 0))?;
        let link = bpf::raw_tracepoint_open(&program, None, 99);
        let _link = attempt.calls(Phase::Attach, link)?;
        let _round = chain.round(attempt, &[]);
        attempt.runs(chain.results.runs());
        see_cookie(attempt, "only", chain.results.get(Place::nth(0).extra()), 99);
        Ok(())
    })
}

/// A link that was made by BPF_LINK_CREATE where the kernel has it for LSM programs, and by BPF_RAW_TRACEPOINT_OPEN.
pub(super) fn info(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("of-raw-tracepoint-open", |attempt| {
        let chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
        let link = attempt.attach(&program)?;
        see_info(attempt, &program, &link, 0)
    })?;
    session.case("of-link-create", |attempt| {
        let chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
        let spec = LinkSpec { attach_type: BPF_LSM_MAC, cookie: 5, ..LinkSpec::default() };
        let link = attempt.calls(Phase::Attach, bpf::link_create(&program, &spec))?;
        see_info(attempt, &program, &link, 5)
    })
}

/// What the kernel says of a link. 5.7 has neither ids of links nor a word about them (5.7 kernel/bpf/syscall.c,
/// `bpf_obj_get_info_by_fd`).
fn info_of(attempt: &mut Attempt<'_>, link: &OwnedFd) -> Result<LinkInfo, Ended> {
    match bpf::link_info(link) {
        Err(Errno::EINVAL) if attempt.btf()?.record("bpf_link_info").is_none() => {
            attempt.at(Phase::Read);
            Err(Ended::Absent("ids of links, and what BPF_OBJ_GET_INFO_BY_FD says of one".to_owned()))
        }
        info => attempt.calls(Phase::Read, info),
    }
}

fn see_info(attempt: &mut Attempt<'_>, program: &OwnedFd, link: &OwnedFd, given: u64) -> Result<(), Ended> {
    let hook = attempt.hook(SESSION.hook)?;
    let info = info_of(attempt, link)?;
    let program = attempt.calls(Phase::Read, bpf::prog_info(program))?;
    attempt.see("type", bpf::name_in(bpf::LINK_TYPES, info.link_type).unwrap_or("unknown"));
    attempt.holds("prog_id is the program's", info.prog_id == program.id);
    let LinkTarget::Tracing { attach_type, target_obj_id, target_btf_id, cookie } = info.target else {
        attempt.see("target", "of another type than tracing");
        return Ok(());
    };
    attempt.see("attach_type", bpf::name_in(bpf::ATTACH_TYPES, attach_type).unwrap_or("unknown"));
    let or_zero = |value: u64, expected: u64, name: &'static str| match value {
        _ if value == expected && value != 0 => name,
        0 => "0",
        _ => "SOMETHING ELSE",
    };
    let vmlinux = vmlinux_btf_id().unwrap_or(0);
    for (field, value, expected, name) in [
        ("target_obj_id", u64::from(target_obj_id), u64::from(vmlinux), "the id of the kernel's BTF"),
        ("target_btf_id", u64::from(target_btf_id), u64::from(hook), "the hook's"),
        ("cookie", cookie, given, "the cookie given"),
    ] {
        if field == "cookie" && given == 0 {
            continue;
        }
        let told = tells(attempt, "bpf_link_info", &format!("tracing.{field}"))?;
        attempt.see(field, if told { or_zero(value, expected, name) } else { NOT_TOLD });
    }
    Ok(())
}

const NOT_TOLD: &str = "not told: the kernel's structure has no such field";

/// Whether the kernel's own structure has the field. What its length says is not enough: a union is as long as its
/// longest member.
fn tells(attempt: &Attempt<'_>, structure: &str, field: &str) -> Result<bool, Ended> {
    match attempt.btf()?.member(structure, field) {
        Ok(_) => Ok(true),
        Err(BtfError::NoMember { .. }) => Ok(false),
        Err(error) => Err(Ended::could_not("find out which fields there are", error)),
    }
}

/// The id of the kernel's own BTF object, 0 where it has none (5.10 gives none to `vmlinux`).
fn vmlinux_btf_id() -> Result<u32, Errno> {
    let mut id = 0;
    while let Some(next) = bpf::btf_next_id(id)? {
        let info = bpf::btf_info(bpf::btf_get_fd_by_id(next)?)?;
        if info.kernel && info.name == "vmlinux" {
            return Ok(next);
        }
        id = next;
    }
    Ok(0)
}

/// The names of the fields, without their values.
pub(super) fn fdinfo(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("fields", |attempt| {
        let chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
        let link = attempt.attach(&program)?;
        attempt.at(Phase::Read);
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()))
            .map_err(|error| Ended::could_not("read fdinfo", error))?;
        let generic = ["pos", "flags", "mnt_id", "ino"];
        let fields: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(':')).collect();
        let own: Vec<&str> =
            fields.iter().map(|&(name, _)| name).filter(|name| !generic.contains(name)).collect();
        attempt.see("fields", own.join(", "));
        for name in ["link_type", "attach_type"] {
            if let Some((_, value)) = fields.iter().find(|&&(field, _)| field == name) {
                attempt.see(name, value.trim());
            }
        }
        Ok(())
    })
}

/// A link with a program that denies, to be updated with one that does not.
pub(super) fn update(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, with_old) in [("any", false), ("the-one-named", true)] {
        session.case(name, |attempt| {
            let chain = Chain::new(attempt, SESSION)?;
            let old = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
            let new = attempt.load_lsm(&member(&SESSION, &chain.results, 1))?;
            let link = attempt.attach(&old)?;
            let updated = bpf::link_update(&link, &new, with_old.then(|| old.as_fd()));
            attempt.outcome("the same with a link that can be updated", &update_another(with_old)?);
            attempt.calls(Phase::Attach, updated)
        })?;
    }
    Ok(())
}

/// Updates a link of programs that let packets into a cgroup.
fn update_another(with_old: bool) -> Result<Result<(), Errno>, Ended> {
    let why = |errno| Ended::could_not("make a link that can be updated", errno);
    let load = || {
        let insns = insns(Asm::new().mov_imm(Reg::R0, 1).exit())?;
        let spec = ProgSpec::new(BPF_PROG_TYPE_CGROUP_SKB, "another", insns);
        bpf::prog_load_told(&spec, 0).map(|loaded| loaded.fd).map_err(|refused| why(refused.errno))
    };
    let (old, new, cgroup) = (load()?, load()?, Cgroup::root()?);
    let target = cgroup.as_fd().as_raw_fd();
    let link = bpf::link_create_raw(&old, target, BPF_CGROUP_INET_INGRESS, 0, 0).map_err(why)?;
    Ok(bpf::link_update(&link, &new, with_old.then(|| old.as_fd())))
}

/// BPF_LINK_DETACH.
pub(super) fn detach(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("link-detach", |attempt| {
        needs_command(bpf::BPF_LINK_DETACH, "BPF_LINK_DETACH")?;
        let chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
        let link = attempt.attach(&program)?;
        attempt.calls(Phase::Attach, bpf::link_detach(&link))
    })
}

/// The link's id leads to a descriptor that keeps it.
pub(super) fn by_id(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("second-descriptor", |attempt| {
        let mut chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
        let link = attempt.attach(&program)?;
        let info = info_of(attempt, &link)?;
        let second = attempt.calls(Phase::Read, bpf::link_get_fd_by_id(info.id))?;
        drop(link);
        let round = chain.round(attempt, &[deny(Errno::EPERM)]);
        attempt.runs(chain.results.runs());
        attempt.denial("with the second descriptor alone", &round.outcome, Errno::EPERM);
        drop(second);
        attempt.outcome("by the id after both are closed", &bpf::link_get_fd_by_id(info.id));
        let round = chain.round(attempt, &[deny(Errno::EPERM)]);
        attempt.outcome("user space sees after both are closed", &round.outcome);
        Ok(())
    })
}

/// BPF_PROG_QUERY without a target.
pub(super) fn query(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("as-mac", |attempt| {
        let chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
        let _link = attempt.attach(&program)?;
        let listed = attempt.calls(Phase::Read, bpf::prog_query(0, BPF_LSM_MAC, 0, false))?;
        attempt.see("programs listed", listed.programs.len());
        Ok(())
    })
}

/// BPF_PROG_DETACH of a program that has a link, from descriptor 0 and from a cgroup: since 6.0 the target must be one
/// before the attach type is looked at (7.3 kernel/bpf/cgroup.c, cgroup_bpf_prog_detach).
pub(super) fn prog_detach(session: &mut Session<'_>) -> Result<(), Stop> {
    let detach = |attempt: &mut Attempt<'_>, target: RawFd| {
        let chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
        let _link = attempt.attach(&program)?;
        attempt.calls(Phase::Attach, bpf::prog_detach_raw(&program, target, BPF_LSM_MAC))
    };
    session.case("as-mac-from-descriptor-0", |attempt| detach(attempt, 0))?;
    session.case("as-mac-from-a-cgroup", |attempt| {
        let cgroup = Cgroup::root()?;
        detach(attempt, cgroup.as_fd().as_raw_fd())
    })
}

/// BPF_TASK_FD_QUERY.
pub(super) fn task_fd_query(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("link", |attempt| {
        let chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
        let link = attempt.attach(&program)?;
        let found = attempt.calls(Phase::Read, bpf::task_fd_query(&link))?;
        let info = attempt.calls(Phase::Read, bpf::prog_info(&program))?;
        attempt.same("the program's id", u64::from(found), u64::from(info.id));
        Ok(())
    })
}

/// BPF_ITER_CREATE.
pub(super) fn iter_create(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("link", |attempt| {
        needs_command(bpf::BPF_ITER_CREATE, "BPF_ITER_CREATE")?;
        let chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
        let link = attempt.attach(&program)?;
        attempt.calls(Phase::Attach, bpf::iter_create(&link)).map(drop)
    })
}

/// [`Ended::Absent`], where the kernel does not know a command that takes a link's descriptor first. EINVAL is the answer to
/// every unknown command, and may be that to a link too; of a descriptor that is not open a known one says EBADF (5.12 and
/// 7.3 kernel/bpf/syscall.c, bpf_link_get_from_fd).
fn needs_command(command: u32, name: &str) -> Result<(), Ended> {
    let attribute = [u32::MAX, 0, 0, 0]; // descriptor -1
    let length = size_of_val(&attribute);
    // SAFETY: the attribute is valid for reads of its length, and no link is at that descriptor.
    let answer = Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), length) });
    match answer {
        Err(errno) if errno.raw() == libc::EBADF => Ok(()),
        Err(Errno::EINVAL) => Err(Ended::Absent(format!("{name} of bpf(2)"))),
        Err(errno) => Err(Ended::could_not("find out whether the command is known", errno)),
        Ok(_) => Err(Ended::CouldNotTell(format!("{name} takes descriptor -1 for a link"))),
    }
}

/// What the kernel says of the program.
pub(super) fn prog_info(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("fields", |attempt| {
        let hook = attempt.hook(SESSION.hook)?;
        let chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
        let info = attempt.calls(Phase::Read, bpf::prog_info(&program))?;
        attempt.see("type", bpf::name_in(bpf::PROG_TYPES, info.prog_type).unwrap_or("unknown"));
        attempt.see("name", info.name.as_str());
        attempt.holds("it is compiled", info.jited_len != 0);
        attempt.holds("gpl_compatible", info.gpl_compatible);
        let of_hook = match info.attach_btf_id {
            _ if !tells(attempt, "bpf_prog_info", "attach_btf_id")? => NOT_TOLD,
            0 => "0",
            id if id == hook => "the hook's",
            _ => "SOMETHING ELSE",
        };
        attempt.see("attach_btf_id", of_hook);
        attempt.see("maps", info.map_ids.len());
        Ok(())
    })
}
