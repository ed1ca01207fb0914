//! Which LSMs there are, whether programs act, and what user space sees of all that.

use crate::bpf;
use crate::errno::Errno;
use crate::families::program::known_order;
use crate::lsm::deny;
use crate::record::Phase;
use crate::rules::{Chain, SESSION, in_child, member, outcome_word};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::creds::{drop_capabilities, with_only};
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

const SYS_LSM_GET_SELF_ATTR: libc::c_long = 459;
const SYS_LSM_SET_SELF_ATTR: libc::c_long = 460;
const SYS_LSM_LIST_MODULES: libc::c_long = 461;

/// include/uapi/linux/lsm.h: LSM_ATTR_*, and two of the numbers below.
const CURRENT: u32 = 100;
const EXEC: u32 = 101;
const FSCREATE: u32 = 102;
const SELINUX: u64 = 101;
const BPF: u64 = 109;
/// include/uapi/linux/lsm.h: LSM_ID_*.
const IDS: &[(u64, &str)] = &[
    (100, "capability"),
    (101, "selinux"),
    (102, "smack"),
    (103, "tomoyo"),
    (104, "apparmor"),
    (105, "yama"),
    (106, "loadpin"),
    (107, "safesetid"),
    (108, "lockdown"),
    (109, "bpf"),
    (110, "landlock"),
    (111, "ima"),
    (112, "evm"),
    (113, "ipe"),
];

pub(super) fn order(session: &mut Session<'_>) -> Result<(), Stop> {
    let list = session.kernel().facts().lsm.clone();
    session.case("securityfs", |attempt| {
        attempt.at(Phase::Read);
        known_order(&list)?;
        attempt.see("order", list.as_str());
        Ok(())
    })?;
    session.case("lsm_list_modules", |attempt| {
        let mut ids = [0_u64; 32];
        let mut size = size_of_val(&ids) as u64; // as in `get_self_attr`
        // SAFETY: the buffer is as long as `size` says, and both live across the call.
        let count =
            Errno::result(unsafe { libc::syscall(SYS_LSM_LIST_MODULES, ids.as_mut_ptr(), &raw mut size, 0) });
        let count = attempt.calls(Phase::Trigger, count)?;
        let count = usize::try_from(count).unwrap_or(0);
        let names: Vec<String> = ids.iter().take(count).map(|&id| name_of(id)).collect();
        attempt.see("order", names.join(","));
        Ok(())
    })
}

pub(super) fn fire(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("mac", |attempt| {
        let mut chain = Chain::of(attempt, SESSION, 1)?;
        let round = chain.round(attempt, &[deny(Errno::EPERM)]);
        attempt.runs(chain.results.runs());
        attempt.denial("user space sees", &round.outcome, Errno::EPERM);
        Ok(())
    })?;
    session.case("cgroup", |attempt| {
        let mut chain = Chain::new(attempt, SESSION)?;
        let _attached = chain.deny_in_root(attempt)?;
        let round = chain.round(attempt, &[]);
        attempt.runs(chain.results.runs());
        attempt.denial("user space sees", &round.outcome, Errno::EPERM);
        Ok(())
    })?;
    session.case("info-of-the-link", |attempt| {
        let chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
        let link = attempt.attach(&program)?;
        let info = bpf::link_info(&link);
        attempt.at(Phase::Read);
        attempt.outcome("BPF_OBJ_GET_INFO_BY_FD of the link", &info);
        Ok(())
    })
}

/// What is asked of the kernel without any program attached by this probe.
pub(super) fn user_space(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("lsm_get_self_attr", |attempt| {
        attempt.at(Phase::Trigger);
        for (name, attribute) in [("current", CURRENT), ("exec", EXEC), ("undefined", 0)] {
            attempt.see(name, get_self_attr(attribute, None));
        }
        attempt.see("current, of bpf alone", get_self_attr(CURRENT, Some(BPF)));
        attempt.see("setting current of bpf, to an empty context", set_self_attr(CURRENT, BPF, ""));
        Ok(())
    })?;
    session.case("memory-beyond-the-reserve", |attempt| {
        attempt.at(Phase::Trigger);
        attempt.see("mapping a page as root", reserve()?);
        let (said, say) = std::io::pipe().map_err(|error| Ended::could_not("make a pipe", error))?;
        in_child(|| {
            let word = match drop_capabilities(&[]).map(|()| reserve()) {
                Ok(Ok(word)) => word,
                Ok(Err(_)) | Err(_) => String::new(),
            };
            let _ = (&say).write_all(word.as_bytes());
        })?;
        drop(say);
        let word = std::io::read_to_string(said).unwrap_or_default();
        if word.is_empty() {
            return Err(Ended::CouldNotTell("the child could not make itself ready".into()));
        }
        attempt.see("mapping a page without capabilities", word);
        Ok(())
    })?;
    session.case("extended-attributes", |attempt| {
        let write = fs::write("/tmp/labelled", b"x");
        attempt.see("making a file", file_word(write.map(|()| Vec::new())));
        attempt.at(Phase::Trigger);
        for name in [c"security.bpf", c"security.selinux", c"security.SMACK64", c"security.none"] {
            let key = name.to_string_lossy();
            attempt.see(&format!("getting {key}"), xattr_word(get_xattr(name)));
            attempt.see(&format!("setting {key}"), xattr_word(set_xattr(name)));
        }
        Ok(())
    })?;
    session.case("extended-attributes-without-capabilities", without_capabilities)?;
    session.case("sockets-and-prctl", |attempt| {
        attempt.at(Phase::Trigger);
        attempt.see("SO_PEERSEC of a pair", peer_security());
        // SAFETY: prctl takes numbers, and no kernel has this option.
        let prctl = Errno::result(unsafe { libc::prctl(0x7fff_0000, 0, 0, 0, 0) });
        attempt.see("an unknown prctl", outcome_word(&prctl));
        // SAFETY: KEYCTL_GET_SECURITY of the user keyring takes numbers and a null buffer.
        let key = Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, 17, -4_i32, 0, 0) });
        attempt.see("KEYCTL_GET_SECURITY", outcome_word(&key));
        Ok(())
    })?;
    // Last: what it sets stays with this process.
    session.case("attributes-of-proc", |attempt| {
        attributes_of_proc(attempt);
        Ok(())
    })
}

/// What is written to each attribute: AppArmor's commands where it has some (7.3 security/apparmor/lsm.c, do_setattr), the
/// first of which only asks; else a context, and SELinux takes any as long as it has no policy (6.6
/// security/selinux/ss/services.c, security_context_to_sid_core). So the one
/// that has the attribute says yes, if it is asked.
const WRITTEN: [(&str, &str); 6] = [
    ("current", PERMITTED),
    ("exec", "exec unconfined"),
    ("fscreate", CONTEXT),
    ("keycreate", CONTEXT),
    ("prev", CONTEXT),
    ("sockcreate", CONTEXT),
];
const PERMITTED: &str = "permprofile unconfined";
const CONTEXT: &str = "kernel";

/// The attributes, which the first LSM that has the hook answers for, whatever it answers (6.6 security/security.c,
/// security_setprocattr). Then, as controls, what the others answer when they are named: AppArmor by a file of its own
/// since 5.8 (fs/proc/base.c, apparmor_attr_dir_stuff), SELinux by a system call since 6.8.
fn attributes_of_proc(attempt: &mut Attempt<'_>) {
    attempt.at(Phase::Trigger);
    let mut ask = |name: &str, word: &str| {
        let path = format!("/proc/self/attr/{name}");
        attempt.see(&format!("reading {name}"), file_word(fs::read(&path)));
        let written = fs::write(&path, word).map(|()| Vec::new());
        attempt.see(&format!("writing {name}"), file_word(written));
    };
    for (name, word) in WRITTEN {
        ask(name, word);
    }
    ask("apparmor/current", PERMITTED);
    attempt.see("setting fscreate of selinux", set_self_attr(FSCREATE, SELINUX, CONTEXT));
}

/// Labels a file of another user without capabilities. The file system leaves attributes of `security.` to the LSMs (7.3
/// fs/xattr.c, xattr_permission), and until 6.10 one that has a say in them, if only 0, stands for capability's check
/// (5.7 security/security.c, security_inode_setxattr). On the machine without bpf capability answers; on 6.9 and 6.10 EVM does,
/// a module by then that has both hooks (6.9 security/integrity/evm/evm_main.c, evm_hooks), and lets pass.
fn without_capabilities(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let could_not = |error| Ended::could_not("make another's file", error);
    fs::write("/tmp/labelled", b"x").map_err(could_not)?;
    std::os::unix::fs::chown("/tmp/labelled", Some(1000), Some(1000)).map_err(could_not)?;
    attempt.at(Phase::Trigger);
    let name = c"security.none";
    let mut ask = |key: &str, act: fn(&std::ffi::CStr) -> Result<libc::ssize_t, Errno>| {
        let answer = with_only(&[], || act(name));
        let answer = answer.map_err(|errno| Ended::could_not("do without capabilities", errno))?;
        attempt.see(key, xattr_word(answer));
        Ok::<_, Ended>(())
    };
    ask("setting security.none", set_xattr)?;
    set_xattr(name).map_err(|errno| Ended::could_not("label another's file", errno))?;
    ask("setting what is there", set_xattr)?;
    ask("removing it", remove_xattr)
}

fn file_word(result: std::io::Result<Vec<u8>>) -> String {
    match result {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\0']).to_owned();
            if text.is_empty() { "ok".to_owned() } else { format!("ok, {text}") }
        }
        Err(error) => Errno::from(error).name(),
    }
}

/// `lsm_set_self_attr(2)` of the LSM with this number: struct lsm_ctx is id, flags, len, ctx_len, ctx.
fn set_self_attr(attribute: u32, lsm: u64, text: &str) -> String {
    let (length, whole) = (text.len() as u64, 32 + text.len() as u64);
    let mut context: Vec<u8> = [lsm, 0, whole, length].iter().flat_map(|word| word.to_ne_bytes()).collect();
    context.extend(text.as_bytes());
    // SAFETY: the kernel only reads as many bytes as are named, which are there.
    let result = Errno::result(unsafe {
        libc::syscall(SYS_LSM_SET_SELF_ATTR, attribute, context.as_ptr(), context.len(), 0)
    });
    outcome_word(&result)
}

/// `lsm_get_self_attr(2)`: the LSMs that have a context, or the errno. With `only`, of that LSM alone.
fn get_self_attr(attribute: u32, only: Option<u64>) -> String {
    let mut buffer = [0_u64; 64];
    let mut size = size_of_val(&buffer) as u64; // 32 bits from 6.9 on, which are the lower ones
    let flags = u32::from(only.is_some()); // LSM_FLAG_SINGLE
    buffer[0] = only.unwrap_or(0);
    let to = buffer.as_mut_ptr();
    // SAFETY: the buffer is as long as `size` says, and both live across the call.
    let count =
        Errno::result(unsafe { libc::syscall(SYS_LSM_GET_SELF_ATTR, attribute, to, &raw mut size, flags) });
    let count = match count {
        Ok(count) => usize::try_from(count).unwrap_or(0),
        Err(errno) => return errno.name(),
    };
    let mut names = Vec::new();
    let mut at = 0;
    while names.len() < count {
        let (Some(&id), Some(&length)) = (buffer.get(at), buffer.get(at + 2)) else { break };
        names.push(name_of(id));
        at += usize::try_from(length / 8).unwrap_or(1).max(1);
    }
    format!("of {}", names.join(", "))
}

/// The name of an LSM.
fn name_of(id: u64) -> String {
    let known = IDS.iter().find(|&&(number, _)| number == id);
    known.map_or_else(|| id.to_string(), |&(_, name)| name.to_owned())
}

/// Whether a mapping is granted that only the reserve for the administrator is left for.
///
/// With overcommitting off, the kernel keeps a reserve from whom `vm_enough_memory` does not count as privileged. An LSM
/// whose default were 0 would say that of everybody (6.1 security/security.c, security_vm_enough_memory_mm).
fn reserve() -> Result<String, Ended> {
    let path = |name: &str| format!("/proc/sys/vm/{name}");
    let could_not = |error| Ended::could_not("set how memory is accounted", error);
    let open = |name: &str| fs::OpenOptions::new().write(true).open(path(name)).map_err(could_not);
    let kept = |name: &str| fs::read(path(name)).map_err(could_not);
    let (ratio, admin) = (kept("overcommit_ratio")?, kept("admin_reserve_kbytes")?);
    let mode = open("overcommit_memory")?;
    fs::write(path("overcommit_ratio"), "100").map_err(could_not)?;
    fs::write(path("admin_reserve_kbytes"), "1000000000").map_err(could_not)?;
    // Nothing is allocated between these lines: it would be refused like the mapping. Both writes are at the file's
    // beginning: elsewhere the kernel ignores them (6.12 kernel/sysctl.c, proc_first_pos_non_zero_ignore).
    mode.write_all_at(b"2", 0).map_err(could_not)?;
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping wherever the kernel likes.
    let mapping = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) };
    let errno = Errno::last();
    let restored = mode.write_all_at(b"0", 0);
    let refused = mapping == libc::MAP_FAILED;
    if !refused {
        // SAFETY: the mapping is this function's own.
        unsafe { libc::munmap(mapping, 4096) };
    }
    restored.map_err(could_not)?;
    fs::write(path("overcommit_ratio"), ratio).map_err(could_not)?;
    fs::write(path("admin_reserve_kbytes"), admin).map_err(could_not)?;
    Ok(if refused { errno.name() } else { "ok".to_owned() })
}

fn get_xattr(name: &std::ffi::CStr) -> Result<libc::ssize_t, Errno> {
    let mut buffer = [0_u8; 256];
    // SAFETY: both names are C strings and the buffer is as long as is said.
    let result = unsafe {
        libc::getxattr(c"/tmp/labelled".as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    };
    Errno::result(result)
}

fn set_xattr(name: &std::ffi::CStr) -> Result<libc::ssize_t, Errno> {
    // SAFETY: both names are C strings and the value is one byte long, as is said.
    let result =
        unsafe { libc::setxattr(c"/tmp/labelled".as_ptr(), name.as_ptr(), c"x".as_ptr().cast(), 1, 0) };
    Errno::result(result).map(|_| 0)
}

fn remove_xattr(name: &std::ffi::CStr) -> Result<libc::ssize_t, Errno> {
    // SAFETY: both names are C strings.
    Errno::result(unsafe { libc::removexattr(c"/tmp/labelled".as_ptr(), name.as_ptr()) }).map(|_| 0)
}

fn xattr_word(result: Result<libc::ssize_t, Errno>) -> String {
    outcome_word(&result)
}

fn peer_security() -> String {
    let Ok((one, _other)) = std::os::unix::net::UnixStream::pair() else {
        return "no pair".to_owned();
    };
    let mut buffer = [0_u8; 256];
    let mut length = 256_u32;
    // SAFETY: the buffer is as long as `length` says, and both live across the call.
    let result = Errno::result(unsafe {
        libc::getsockopt(
            one.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERSEC,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    });
    outcome_word(&result)
}
