//! What lockdown takes from LSM programs: which helpers can no longer be called, and what becomes of programs that are
//! there already.

use super::bench::{FILE, open_file, page, slot, text, write_file};
use super::callable::{GENERAL, may_call};
use crate::asm::Asm;
use crate::errno::Errno;
use crate::helper::{self, HELPERS};
use crate::insn::{Reg, Size};
use crate::lsm::{Attached, LsmProgram, PAGE};
use crate::results::Results;
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, source};
use crate::triggers::Arm;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// The file by which lockdown is asked for; the level cannot be lowered again.
const LEVEL: &str = "/sys/kernel/security/lockdown";

/// The probe. It comes last on its machine, where no other has to do with lockdown; lockdown is there whatever `lsm=`
/// says (7.1 security/lockdown/lockdown.c, `DEFINE_EARLY_LSM`).
pub(super) fn probe() -> Probe {
    let question = "Which helpers does each level of lockdown take from LSM programs that may call them, and do those of \
                    a program that is attached already go on?";
    let sources = [
        source("7.1", "kernel/bpf/helpers.c", "bpf_base_func_proto"),
        source("7.1", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto"),
        source("5.9", "kernel/trace/bpf_trace.c", "bpf_probe_read_kernel_common"),
        source("5.9", "kernel/trace/bpf_trace.c", "bpf_probe_read_compat"),
        source("7.1", "security/lockdown/lockdown.c", "lockdown_is_locked_down"),
    ];
    Probe::new("helpers/under-lockdown", question, &sources, run)
        .with_lsm(super::WITHOUT_OTHERS)
        .coming_last()
}

fn run(session: &mut Session<'_>) -> Result<(), Stop> {
    let (mut before, mut old) = (Vec::new(), None);
    session.case("none", |attempt| {
        // Those that the kernel's own list lacks it does not have, which their probes ask.
        let btf = attempt.btf()?;
        let listed = HELPERS.iter().filter(|(number, _)| btf.lists_helper(*number) != Some(false));
        before = callable(attempt, &listed.copied().collect::<Vec<_>>())?;
        // On 5.7 it is a third of what it is on 5.10.
        attempt.holds("many helpers can be called", before.len() > 20);
        old.insert(Old::attach(attempt)?).ask(attempt)
    })?;
    for level in ["integrity", "confidentiality"] {
        session.case(level, |attempt| {
            fs::write(LEVEL, level).map_err(|error| Ended::could_not("raise lockdown", error))?;
            let now = callable(attempt, &before)?;
            let gone = before.iter().filter(|helper| !now.contains(helper));
            let gone: Vec<String> = gone.map(|(_, name)| format!("bpf_{name}")).collect();
            // Which says nothing of what a call gives.
            let word =
                if gone.is_empty() { "none: all of them still load".to_owned() } else { gone.join(", ") };
            attempt.see("can no longer be called", word);
            old.as_mut().map_or(Ok(()), |old| old.ask(attempt))
        })?;
    }
    Ok(())
}

/// Those of these helpers that a program on a general hook may call.
fn callable(attempt: &Attempt<'_>, helpers: &[Named]) -> Result<Vec<Named>, Ended> {
    let mut may = Vec::new();
    for &(number, name) in helpers {
        if may_call(attempt, &GENERAL, number)? {
            may.push((number, name));
        }
    }
    Ok(may)
}

/// A helper's number and name.
type Named = (u32, &'static str);

/// What a call reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// `task->comm`, of the kernel.
    Kernel,
    /// A string of this process.
    User,
}

/// The helpers that lockdown takes because they read memory of the kernel. Until 5.12 each asks lockdown when it is called, before it reads (5.9
/// kernel/trace/bpf_trace.c, `bpf_probe_read_kernel_common`); the two old ones take addresses of user space too, for which
/// they ask on 5.7 and no longer from 5.8 on (`bpf_probe_read_compat`).
const READS: &[(u32, &str, Of)] = &[
    (helper::PROBE_READ_KERNEL, "bpf_probe_read_kernel", Of::Kernel),
    (helper::PROBE_READ_KERNEL_STR, "bpf_probe_read_kernel_str", Of::Kernel),
    (helper::PROBE_READ, "bpf_probe_read", Of::Kernel),
    (helper::PROBE_READ_STR, "bpf_probe_read_str", Of::Kernel),
    (helper::PROBE_READ, "bpf_probe_read of user space", Of::User),
    (helper::PROBE_READ_STR, "bpf_probe_read_str of user space", Of::User),
];

/// The length of a task's name with its zero, and of what is read.
const LENGTH: i32 = 16;
/// A string of the same length in user space.
const OURS: &[u8; LENGTH as usize] = b"of user space..\0";

/// The slot of what a read returns; what it reads comes behind it.
fn place(index: usize) -> i32 {
    2 + 3 * i32::try_from(index).unwrap_or(0)
}

/// A program that stays attached while lockdown is raised: it reads from the kernel and from user space, and writes to
/// user space.
struct Old {
    results: Results,
    word: Box<AtomicU64>,
    /// What is read of user space.
    ours: Box<[u8; LENGTH as usize]>,
    _attached: Attached,
}

impl Old {
    fn attach(attempt: &mut Attempt<'_>) -> Result<Self, Ended> {
        let name = attempt.btf()?.member("task_struct", "comm");
        let name = name.map_err(|error| Ended::Absent(error.to_string()))?.byte_offset;
        let mut results = attempt.results()?;
        results.name_nobody();
        let (word, ours) = (Box::new(AtomicU64::new(0)), Box::new(*OURS));
        let (address, string) = (word.as_ptr().expose_provenance(), ours.as_ptr().expose_provenance());
        let program = LsmProgram::framed("file_open", &results, |asm| {
            for (index, &(number, _, of)) in READS.iter().enumerate() {
                read(asm, place(index), number, (of == Of::User).then_some(string as u64), name);
            }
            asm.ld_imm64(Reg::R1, address as u64);
            page(asm, Reg::R2, 1);
            asm.mov_imm(Reg::R3, 8).call(helper::PROBE_WRITE_USER).stx(Size::DW, PAGE, slot(0), Reg::R0);
        });
        Ok(Self { _attached: attempt.attach_lsm(&program)?, results, word, ours })
    }

    /// Notes what the helpers of the program return now, and whether they do what they did.
    fn ask(&mut self, attempt: &mut Attempt<'_>) -> Result<(), Ended> {
        write_file()?;
        self.results.set(slot(0), UNTOUCHED);
        for index in 0..READS.len() {
            self.results.set(slot(place(index)), UNTOUCHED);
            // A read that fails clears it.
            self.results.set_bytes(slot(place(index) + 1), &[b'?'; LENGTH as usize]);
        }
        let before = self.results.runs();
        let pid = u64::from(std::process::id());
        self.results.set(slot(1), pid);
        self.word.store(0, Ordering::Relaxed);
        let opened = attempt.trigger(|| open_file(Arm::new(&self.results)));
        opened.map_err(|errno| Ended::could_not(&format!("open {FILE}"), errno))?;
        attempt.ran(self.results.runs() > before);
        let own = fs::read_to_string("/proc/self/comm");
        let own = own.map_err(|error| Ended::could_not("read /proc/self/comm", error))?;
        for (index, &(number, name, of)) in READS.iter().enumerate() {
            let there = if of == Of::User { text(self.ours.as_slice()) } else { own.trim_end().to_owned() };
            self.note_read(attempt, place(index), (number, name), &there);
        }
        attempt.see("attached before: bpf_probe_write_user returns", errno(self.results.get(slot(0)), None));
        attempt.holds("attached before: it writes", self.word.load(Ordering::Relaxed) == pid);
        Ok(())
    }

    /// Notes what a call returned, and whether it read `there`.
    fn note_read(&self, attempt: &mut Attempt<'_>, place: i32, (number, name): (u32, &str), there: &str) {
        let strings = [helper::PROBE_READ_KERNEL_STR, helper::PROBE_READ_STR];
        let length = strings.contains(&number).then_some(there.len() + 1);
        let returned = errno(self.results.get(slot(place)), length);
        attempt.see(&format!("attached before: {name} returns"), returned);
        let found = self.results.bytes(slot(place + 1), there.len() + 1);
        let same = found.strip_suffix(b"\0") == Some(there.as_bytes());
        attempt.holds(&format!("attached before: {name} reads what is there"), same);
    }
}

/// Calls a helper that reads, for the name of the running task or for what is at `user`.
fn read(asm: &mut Asm, place: i32, number: u32, user: Option<u64>, name: u32) {
    if let Some(address) = user {
        asm.ld_imm64(Reg::R3, address);
    } else {
        asm.call(helper::GET_CURRENT_TASK).mov_reg(Reg::R3, Reg::R0).add_imm(Reg::R3, name);
    }
    page(asm, Reg::R1, place + 1);
    asm.mov_imm(Reg::R2, LENGTH).call(number).stx(Size::DW, PAGE, slot(place), Reg::R0);
}

/// What stands where a helper's result is to be: no helper returns it.
const UNTOUCHED: u64 = 1 << 62;

/// 0, a negative errno, or the length of the string that is there.
fn errno(value: u64, length: Option<usize>) -> String {
    if value == UNTOUCHED {
        return "nothing: it was not called".to_owned();
    }
    let value = value.cast_signed();
    match i32::try_from(value) {
        Ok(0) => "0".to_owned(),
        Ok(errno @ ..0) => format!("-{}", Errno::from_raw(-errno).name()),
        Ok(_) if length.and_then(|length| i64::try_from(length).ok()) == Some(value) => {
            "the string's length with its zero".to_owned()
        }
        Ok(_) | Err(_) => "another number".to_owned(),
    }
}
