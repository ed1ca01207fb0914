//! The kernel's audit: rules, messages, and what it looks up of the objects that an audited task touches.

use super::children::{Idle, in_child};
use super::labels::UNLABELLED;
use super::netlink::{Generic, Netlink, attribute};
use super::{Act, Arm, Seen, act, act_seen};
use crate::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::ptrace;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

/// include/uapi/linux/audit.h: AUDIT_SET, AUDIT_ADD_RULE, AUDIT_DEL_RULE, AUDIT_USER_AVC.
const SET: u16 = 1001;
const ADD_RULE: u16 = 1011;
const DEL_RULE: u16 = 1012;
const USER_MESSAGE: u16 = 1107;
/// The same: AUDIT_FILTER_USER, AUDIT_FILTER_EXIT.
const OF_MESSAGES: u32 = 0;
pub(crate) const OF_SYSTEM_CALLS: u32 = 4;
/// The same: AUDIT_NEVER, AUDIT_ALWAYS.
const NEVER: u32 = 0;
const ALWAYS: u32 = 2;
/// The same: AUDIT_PID, AUDIT_SUBJ_ROLE, AUDIT_EXE, AUDIT_NOT_EQUAL, AUDIT_EQUAL.
const PID: u32 = 0;
const ROLE: u32 = 14;
const PROGRAM: u32 = 112;
const NOT_EQUAL: u32 = 0x3000_0000;
const EQUAL: u32 = 0x4000_0000;
/// The same: AUDIT_NLGRP_READLOG.
const LOG: u32 = 1;
/// How long a message may take into the log: a thread of the kernel writes it.
const LOGGED: Duration = Duration::from_secs(5);
/// What the messages say that are asked about, and what the one says that comes after them.
const TEXT: &[u8] = b"conform\0";
const LAST: &[u8] = b"afterwards\0";

/// `struct audit_rule_data` with one field, for all system calls.
fn rule(list: u32, action: u32, (field, operator, value): (u32, u32, u32), text: &str) -> Vec<u8> {
    let mut words = vec![list, action, 1];
    words.extend([u32::MAX; 64]);
    for first in [field, value, operator] {
        words.push(first);
        words.extend([0; 63]);
    }
    words.push(u32::try_from(text.len()).unwrap_or(0));
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    bytes.extend(text.as_bytes());
    bytes
}

/// A rule about a label, which AppArmor, asked first, knows by that name.
fn about_a_label(action: u32, operator: u32) -> Vec<u8> {
    let label = "unconfined";
    rule(OF_MESSAGES, action, (ROLE, operator, u32::try_from(label.len()).unwrap_or(0)), label)
}

fn audit() -> Result<Netlink, Errno> {
    Netlink::open(libc::NETLINK_AUDIT)
}

/// `sendto(2)` of a rule about a label.
///
/// # Errors
/// The errno of making the socket.
pub fn add_rule() -> Result<Act, Errno> {
    let audit = audit()?;
    let rule = about_a_label(ALWAYS, EQUAL);
    act(move |arm: Arm| {
        arm.during(|| audit.ask(ADD_RULE, 0, &rule))?;
        audit.ask(DEL_RULE, 0, &rule)
    })
}

/// The same, removing the rule: the kernel makes one to find the other by, and frees it at once.
///
/// # Errors
/// The errno of making the socket.
pub fn remove_rule() -> Result<Act, Errno> {
    let audit = audit()?;
    let rule = about_a_label(ALWAYS, EQUAL);
    act(move |arm: Arm| {
        audit.ask(ADD_RULE, 0, &rule)?;
        arm.during(|| audit.ask(DEL_RULE, 0, &rule))
    })
}

/// `sendto(2)` of a message, to which the kernel adds the sender's label.
///
/// # Errors
/// The errno of making the socket.
pub fn message() -> Result<Act, Errno> {
    let audit = audit()?;
    act(move |arm: Arm| arm.during(|| audit.ask(USER_MESSAGE, 0, TEXT)))
}

/// The same, looking in the log whether the label is there: a kernel that gets no name for it leaves it out.
///
/// # Errors
/// The errno of making the sockets.
pub fn labelled_message() -> Result<Act, Errno> {
    let audit = audit()?;
    let log = Netlink::listening(libc::NETLINK_AUDIT, LOG)?;
    act_seen(move |arm: Arm| {
        log.forget()?; // what came late before
        arm.during(|| audit.ask(USER_MESSAGE, 0, TEXT))?;
        let Some(record) = logged(&audit, &log)? else {
            return Ok(Seen("ok, and it is not logged"));
        };
        let labelled = record.windows(SUBJECT.len()).any(|part| part == SUBJECT);
        Ok(if labelled { Seen("ok, logged with a label") } else { UNLABELLED })
    })
}

/// The record of what was sent before, if there is one: the log has messages in the order in which they were sent (7.3
/// kernel/audit.c, `audit_log_end`, `kauditd_send_queue`), so when a later one is there it is, or never will be.
fn logged(audit: &Netlink, log: &Netlink) -> Result<Option<Vec<u8>>, Errno> {
    let has = |record: &[u8], text: &[u8]| record.windows(text.len()).any(|part| part == text);
    let last = LAST.strip_suffix(b"\0").unwrap_or(LAST);
    audit.ask(USER_MESSAGE, 0, LAST)?;
    let mut before = None;
    loop {
        match log.hears(USER_MESSAGE, LOGGED)? {
            Some(record) if has(&record, last) => return Ok(before),
            Some(record) => before = Some(record),
            None => return Err(super::LATE),
        }
    }
}

/// What a record says before the sender's label (6.14 kernel/audit.c, `audit_log_task_context`).
const SUBJECT: &[u8] = b" subj=";

/// As [`message`], under a rule that keeps what others than the unconfined send out of the log, looking whether it gets there.
/// AppArmor, asked first, says that the rule is not about this task, which leaves the question to who comes next.
///
/// # Errors
/// The errno of making the sockets.
pub fn message_under_rule() -> Result<Act, Errno> {
    let audit = audit()?;
    let log = Netlink::listening(libc::NETLINK_AUDIT, LOG)?;
    let rule = about_a_label(NEVER, NOT_EQUAL);
    act_seen(move |arm: Arm| {
        audit.ask(ADD_RULE, 0, &rule)?;
        log.forget()?; // of the rule, and what came late before
        let result = arm.during(|| audit.ask(USER_MESSAGE, 0, TEXT));
        audit.ask(DEL_RULE, 0, &rule)?;
        let heard = logged(&audit, &log)?.is_some();
        result.map(|_| if heard { Seen("ok, and it is logged") } else { Seen("ok, and it is not logged") })
    })
}

/// Switches auditing on or off: `struct audit_status` with AUDIT_STATUS_ENABLED.
fn switch(audit: &Netlink, on: bool) -> Result<(), Errno> {
    let mut status = [0_u32; 11];
    status[0] = 1;
    status[1] = u32::from(on);
    let bytes: Vec<u8> = status.into_iter().flat_map(u32::to_ne_bytes).collect();
    audit.ask(SET, 0, &bytes).map(drop)
}

/// Does `body` in a child that is audited: one made while auditing is on, with a rule that matches nobody.
fn audited(body: impl Fn(Arm) -> Result<(), Errno> + 'static) -> Result<Act, Errno> {
    let audit = Rc::new(audit()?);
    let nobody = rule(OF_SYSTEM_CALLS, ALWAYS, (PID, EQUAL, 0x7fff_fff0), "");
    act(move |arm: Arm| {
        switch(&audit, true)?;
        let result = audit.ask(ADD_RULE, 0, &nobody).and_then(|_| {
            let result = in_child(|| body(arm));
            audit.ask(DEL_RULE, 0, &nobody)?;
            result
        });
        switch(&audit, false)?;
        result
    })
}

/// `stat(2)` by an audited task.
///
/// # Errors
/// The errno of making the file or the socket.
pub fn look_up() -> Result<Act, Errno> {
    fs::write("/tmp/audited", b"content")?;
    audited(|arm| arm.during(|| nix::sys::stat::stat("/tmp/audited").map(drop).map_err(Errno::from)))
}

/// `shmctl(2)` by an audited task that changes a segment's mode.
///
/// # Errors
/// The errno of making the socket.
pub fn change_segment() -> Result<Act, Errno> {
    audited(super::ipc::change_segment)
}

/// `ptrace(2)` by an audited task.
///
/// # Errors
/// The errno of making the socket.
pub fn trace() -> Result<Act, Errno> {
    audited(|arm| {
        let child = Idle::new()?;
        arm.during(|| ptrace::seize(child.0, ptrace::Options::empty()).map_err(Errno::from))
    })
}

/// Where SELinux is told whether to enforce, below the place at which its file system is mounted.
const ENFORCE: &str = "/tmp/selinux/enforce";

/// Tells SELinux whether to enforce, which without a policy denies nothing.
fn enforce(word: &[u8]) -> Result<(), Errno> {
    let mut file = OpenOptions::new().write(true).open(ENFORCE)?;
    file.write_all(word).map_err(Errno::from)
}

/// `write(2)` that makes SELinux enforce, upon which it has audit look at its rules again (5.9
/// security/selinux/selinuxfs.c, sel_write_enforce; security/selinux/avc.c, avc_ss_reset).
///
/// There is one rule, about a program whose folder has another name by now. A rule that a module says it knows is made anew,
/// and this one cannot be: audit drops it, though it goes on counting it (5.9 kernel/auditfilter.c, update_lsm_rule). So
/// whether it can still be removed shows what was said.
///
/// # Errors
/// The errno of mounting SELinux's file system, or of making the program or the socket.
pub fn look_at_rules_again() -> Result<Act, Errno> {
    const NAMED: &str = "/tmp/named";
    const RENAMED: &str = "/tmp/renamed";
    const PATH: &str = "/tmp/named/programs/none";
    if !fs::exists(ENFORCE)? {
        fs::create_dir_all("/tmp/selinux")?;
        mount(Some("conform"), "/tmp/selinux", Some("selinuxfs"), MsFlags::empty(), None::<&str>)?;
    }
    fs::create_dir_all("/tmp/named/programs")?;
    File::create(PATH)?;
    let audit = audit()?;
    let length = u32::try_from(PATH.len()).unwrap_or(0);
    let rule = rule(OF_SYSTEM_CALLS, ALWAYS, (PROGRAM, EQUAL, length), PATH);
    act_seen(move |arm: Arm| {
        audit.ask(ADD_RULE, 0, &rule)?;
        fs::rename(NAMED, RENAMED)?;
        let result = arm.during(|| enforce(b"1"));
        enforce(b"0")?;
        fs::rename(RENAMED, NAMED)?;
        let removed = audit.ask(DEL_RULE, 0, &rule);
        result?;
        match removed {
            Err(errno) if errno.raw() == libc::ENOENT => Ok(Seen("ok, and the rule is gone")),
            other => other.map(|_| Seen("ok, and the rule is there")),
        }
    })
}

/// NetLabel, told which label packets without one have: the kernel makes a number of its name.
///
/// # Errors
/// The errno of finding NetLabel.
pub fn name_to_number() -> Result<Act, Errno> {
    let netlabel = Generic::open(c"NLBL_UNLBL")?;
    // net/netlabel/netlabel_unlabeled.h: NLBL_UNLABEL_A_IPV4ADDR, _IPV4MASK, _SECCTX, _IFACE.
    let place =
        [attribute(4, &[10, 9, 8, 0]), attribute(5, &[255, 255, 255, 0]), attribute(6, b"lo\0")].concat();
    let labelled = [place.clone(), attribute(7, b"unconfined\0")].concat();
    act(move |arm: Arm| {
        arm.during(|| netlabel.command(3, 3, &labelled))?; // NLBL_UNLABEL_C_STATICADD
        netlabel.command(4, 3, &place) // NLBL_UNLABEL_C_STATICREMOVE
    })
}
