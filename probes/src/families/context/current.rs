//! Who current is when somebody does what a process has asked for. Of io_uring: the process itself, a worker, or the thread
//! that polls its ring; of NFS also the server.
//!
//! The programs act for a file with an owner of its own, whoever opens or reads it, and leave what the helpers say of current.

mod of_io_uring;
mod of_nfs;

pub(super) use of_io_uring::of_io_uring;
pub(super) use of_nfs::of_nfs;

use super::{offset, value};
use crate::asm::Asm;
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{Attached, CTX, LsmProgram, PAGE, deny};
use crate::results::{RUNS, Results, TARGET};
use crate::rules::{Cgroup, judge_by};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::Arm;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::process;

/// The owner by which programs know the file.
const OWNER: u32 = 48_879;
/// The name that the process gives itself.
const NAME: &CStr = c"asker";
/// The real user and group of the process, and those that it had when it registered its credentials.
const ASKER: (u32, u32) = (4321, 1234);
const REGISTERED: (u32, u32) = (5678, 8765);

/// include/linux/sched.h: PF_KTHREAD.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Where the verdict stands; what each of the first calls has left is behind it.
const VERDICT: i32 = value(0);
/// How many calls leave what they see.
const CALLS: u8 = 3;

/// Where what call number `nth` has left begins.
fn seen_by(nth: u8) -> i32 {
    value(8 + 8 * i32::from(nth))
}

/// What a call leaves, in 64-bit numbers; the name takes two.
const PROCESS: i32 = 0;
const USER: i32 = 8;
const CGROUP: i32 = 16;
const FLAGS: i32 = 24;
const COMM: i32 = 32;
const FILE_SYSTEM_USER: i32 = 48;
const COMM_LENGTH: usize = 16;

/// Whether a record has the user by whom files are judged, too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tell {
    /// It has.
    FileSystemUser,
    /// It is root with a ring as without.
    NoFileSystemUser,
}

/// Attaches the programs, in a case of its own, and asks `cases` of them.
fn watching(
    session: &mut Session<'_>,
    cases: impl FnOnce(&mut Session<'_>, &mut Watch) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut watch = None;
    session.case("programs", |attempt| {
        watch = Some(Watch::new(attempt)?);
        Ok(())
    })?;
    watch.map_or(Ok(()), |mut watch| cases(session, &mut watch))
}

/// Makes a file that the programs act for.
fn make(path: &str) -> io::Result<()> {
    fs::write(path, "content")?;
    chown(path, Some(OWNER), None)
}

/// The programs and whom they compare with.
struct Watch {
    results: Results,
    cgroup: Cgroup,
    _attached: [Attached; 2],
}

impl Watch {
    fn new(attempt: &mut Attempt<'_>) -> Result<Self, Ended> {
        let mut results = attempt.results()?;
        results.name_nobody();
        let mut attach = |hook| {
            let program = LsmProgram::raw(hook, body(attempt, &results)?);
            attempt.attach_lsm(&program)
        };
        let attached = [attach("file_open")?, attach("file_permission")?];
        // SAFETY: a terminated name, which the call copies.
        Errno::result(unsafe { libc::prctl(libc::PR_SET_NAME, NAME.as_ptr()) })
            .map_err(|errno| Ended::could_not("set the name", errno))?;
        let cgroup = Cgroup::new("asker")?;
        cgroup.enter()?;
        Ok(Self { results, cgroup, _attached: attached })
    }

    /// A case: what `asked` asks for by itself, with programs that look, and with programs that deny.
    fn watch(
        &mut self,
        attempt: &mut Attempt<'_>,
        tell: Tell,
        mut asked: impl FnMut(Arm) -> Result<(), Errno>,
    ) -> Result<(), Ended> {
        let alone = attempt.trigger(|| asked(Arm::idle()));
        attempt.outcome("by itself", &alone);
        if alone.is_err() {
            return Ok(());
        }
        let passed = self.round(attempt, &mut asked, 0);
        attempt.runs(self.results.runs());
        if passed != alone {
            attempt.outcome("with programs that look", &passed);
        }
        let runs = u8::try_from(self.results.runs()).unwrap_or(CALLS).min(CALLS);
        let own = self.cgroup.id()?;
        let seen: Vec<_> = (0..runs).map(|nth| Current::read(&self.results, seen_by(nth), own)).collect();
        for (nth, current) in (1..).zip(&seen) {
            let call = if seen.len() == 1 { String::new() } else { format!(", call {nth}") };
            current.tell(attempt, &call);
            if tell == Tell::FileSystemUser {
                attempt.see(&format!("file system user{call}"), current.file_system_user.as_str());
            }
        }
        let denied = self.round(attempt, &mut asked, deny(Errno::EPERM));
        attempt.denial("when it is denied", &denied, Errno::EPERM);
        Ok(())
    }

    fn round(
        &mut self,
        attempt: &mut Attempt<'_>,
        asked: &mut impl FnMut(Arm) -> Result<(), Errno>,
        verdict: i32,
    ) -> Result<(), Errno> {
        self.results.set(RUNS, 0);
        self.results.set(VERDICT, i64::from(verdict).cast_unsigned());
        let arm = Arm::new(&self.results);
        let outcome = attempt.trigger(|| asked(arm));
        self.results.name_nobody();
        outcome
    }
}

/// The program: for a file of [`OWNER`], while the page names it.
fn body(attempt: &Attempt<'_>, results: &Results) -> Result<Asm, Ended> {
    let (inode, uid) = (offset(attempt, "file", "f_inode")?, offset(attempt, "inode", "i_uid")?);
    let flags = offset(attempt, "task_struct", "flags")?;
    let (cred, fsuid) = (offset(attempt, "task_struct", "cred")?, offset(attempt, "cred", "fsuid")?);
    let mut asm = Asm::new();
    asm.mov_reg(CTX, Reg::R1)
        .ldx(Size::DW, Reg::R1, CTX, 0)
        .ldx(Size::DW, Reg::R1, Reg::R1, inode)
        .ldx(Size::W, Reg::R1, Reg::R1, uid)
        .ld_map_value(PAGE, results, 0)
        .ldx(Size::DW, Reg::R2, PAGE, TARGET)
        .jne_reg(Reg::R1, Reg::R2, "pass")
        // One task at a time does what the programs act for.
        .ldx(Size::DW, Reg::R8, PAGE, RUNS)
        .mov_reg(Reg::R1, Reg::R8)
        .add_imm(Reg::R1, 1)
        .stx(Size::DW, PAGE, RUNS, Reg::R1)
        .jge_imm(Reg::R8, i64::from(CALLS), "judge")
        .lsh_imm(Reg::R8, 6)
        .add_reg(Reg::R8, PAGE)
        .add_imm(Reg::R8, seen_by(0));
    for (place, helper) in [
        (PROCESS, helper::GET_CURRENT_PID_TGID),
        (USER, helper::GET_CURRENT_UID_GID),
        (CGROUP, helper::GET_CURRENT_CGROUP_ID),
    ] {
        asm.call(helper).stx(Size::DW, Reg::R8, place, Reg::R0);
    }
    asm.call(helper::GET_CURRENT_TASK)
        .mov_reg(Reg::R3, Reg::R0)
        .add_imm(Reg::R3, flags)
        .st_imm(Size::DW, Reg::R8, FLAGS, 0)
        .mov_reg(Reg::R1, Reg::R8)
        .add_imm(Reg::R1, FLAGS)
        .mov_imm(Reg::R2, 4)
        .call(helper::PROBE_READ_KERNEL)
        .mov_reg(Reg::R1, Reg::R8)
        .add_imm(Reg::R1, COMM)
        .mov_imm(Reg::R2, 16)
        .call(helper::GET_CURRENT_COMM);
    // Its credentials, and of these the number.
    asm.call(helper::GET_CURRENT_TASK).mov_reg(Reg::R3, Reg::R0).add_imm(Reg::R3, cred);
    read_kernel(&mut asm, 8);
    asm.ldx(Size::DW, Reg::R3, Reg::R8, FILE_SYSTEM_USER).add_imm(Reg::R3, fsuid);
    read_kernel(&mut asm, 4);
    asm.label("judge");
    judge_by(&mut asm, VERDICT);
    asm.label("pass").mov_imm(Reg::R0, 0).exit();
    Ok(asm)
}

/// `*FILE_SYSTEM_USER = so many bytes at R3`, of eight that are zero else.
fn read_kernel(asm: &mut Asm, bytes: i32) {
    asm.st_imm(Size::DW, Reg::R8, FILE_SYSTEM_USER, 0)
        .mov_reg(Reg::R1, Reg::R8)
        .add_imm(Reg::R1, FILE_SYSTEM_USER)
        .mov_imm(Reg::R2, bytes)
        .call(helper::PROBE_READ_KERNEL);
}

/// What a program saw, in words.
#[derive(PartialEq, Eq)]
struct Current {
    process: &'static str,
    thread: &'static str,
    name: String,
    user: String,
    cgroup: &'static str,
    kernel_thread: &'static str,
    file_system_user: String,
}

impl Current {
    fn read(results: &Results, at: i32, own_cgroup: u64) -> Self {
        let own = u64::from(process::id());
        let pid_tgid = results.get(at + PROCESS);
        let whose = |id: u64| if id == own { "the asker's" } else { "another" };
        let uid_gid = results.get(at + USER);
        let is = |(user, group): (u32, u32)| uid_gid == u64::from(group) << 32 | u64::from(user);
        let name = results.bytes(at + COMM, COMM_LENGTH);
        let name = CStr::from_bytes_until_nul(&name).unwrap_or(c"NO END");
        Self {
            process: whose(pid_tgid >> 32),
            thread: whose(pid_tgid & u64::from(u32::MAX)),
            name: name_of(&name.to_string_lossy()),
            user: match () {
                () if is(ASKER) => "the asker's".to_owned(),
                () if is(REGISTERED) => "those registered".to_owned(),
                () => format!("{} and {}", uid_gid & u64::from(u32::MAX), uid_gid >> 32),
            },
            cgroup: match results.get(at + CGROUP) {
                id if id == own_cgroup => "the asker's",
                1 => "the root",
                _ => "another",
            },
            kernel_thread: if results.get(at + FLAGS) & KERNEL_THREAD == 0 { "no" } else { "yes" },
            file_system_user: match results.get(at + FILE_SYSTEM_USER) {
                user if user == u64::from(ASKER.0) => "the asker's".to_owned(),
                user => user.to_string(),
            },
        }
    }

    fn tell(&self, attempt: &mut Attempt<'_>, call: &str) {
        for (key, value) in [
            ("process", self.process),
            ("thread", self.thread),
            ("name", &self.name),
            ("real user and group", &self.user),
            ("cgroup", self.cgroup),
            ("a kernel thread", self.kernel_thread),
        ] {
            attempt.see(&format!("{key}{call}"), value);
        }
    }
}

/// A thread's name, with words for the thread that it is named after.
fn name_of(name: &str) -> String {
    let Some((start, id)) = name.rsplit_once('-') else { return name.to_owned() };
    match id.parse::<u32>() {
        Ok(id) if id == process::id() => format!("{start}-<the asker's>"),
        Ok(id) if id != 0 => format!("{start}-<another thread's>"),
        Ok(_) | Err(_) => name.to_owned(),
    }
}
