//! What lockdown takes from LSM programs: which helpers can no longer be called, and what becomes of programs that are
//! there already.

use super::bench::{FILE, open_file, page, slot, write_file};
use super::callable::{GENERAL, may_call};
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
            attempt.see("can no longer be called", gone.join(", "));
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

/// A program that stays attached while lockdown is raised: it reads from the kernel and writes to user space.
struct Old {
    results: Results,
    word: Box<AtomicU64>,
    _attached: Attached,
}

impl Old {
    fn attach(attempt: &mut Attempt<'_>) -> Result<Self, Ended> {
        let tgid = attempt
            .btf()?
            .member("task_struct", "tgid")
            .map_err(|error| Ended::Absent(error.to_string()))?
            .byte_offset;
        let mut results = attempt.results()?;
        results.name_nobody();
        let word = Box::new(AtomicU64::new(0));
        let address = word.as_ptr().expose_provenance() as u64;
        let program = LsmProgram::framed("file_open", &results, |asm| {
            asm.call(helper::GET_CURRENT_TASK).mov_reg(Reg::R3, Reg::R0).add_imm(Reg::R3, tgid);
            page(asm, Reg::R1, 1);
            asm.mov_imm(Reg::R2, 4).call(helper::PROBE_READ_KERNEL).stx(Size::DW, PAGE, slot(0), Reg::R0);
            asm.ld_imm64(Reg::R1, address);
            page(asm, Reg::R2, 3);
            asm.mov_imm(Reg::R3, 8).call(helper::PROBE_WRITE_USER).stx(Size::DW, PAGE, slot(2), Reg::R0);
        });
        Ok(Self { _attached: attempt.attach_lsm(&program)?, results, word })
    }

    /// Notes what the helpers of the program return now, and whether they do what they did.
    fn ask(&mut self, attempt: &mut Attempt<'_>) -> Result<(), Ended> {
        write_file()?;
        for (index, value) in [(0, UNTOUCHED), (1, 0), (2, UNTOUCHED)] {
            self.results.set(slot(index), value);
        }
        let before = self.results.runs();
        // What the program writes does not come from its own reading, which leaves zeros when it fails.
        let pid = u64::from(std::process::id());
        self.results.set(slot(3), pid);
        self.word.store(0, Ordering::Relaxed);
        let opened = attempt.trigger(|| open_file(Arm::new(&self.results)));
        opened.map_err(|errno| Ended::could_not(&format!("open {FILE}"), errno))?;
        attempt.ran(self.results.runs() > before);
        for (name, index) in [("bpf_probe_read_kernel", 0), ("bpf_probe_write_user", 2)] {
            attempt.see(&format!("attached before: {name} returns"), errno(self.results.get(slot(index))));
        }
        attempt.holds("attached before: it reads the process", self.results.get(slot(1)) == pid);
        attempt.holds("attached before: it writes it", self.word.load(Ordering::Relaxed) == pid);
        Ok(())
    }
}

/// What stands where a helper's result is to be: no helper returns it.
const UNTOUCHED: u64 = 1 << 62;

/// 0 or a negative errno.
fn errno(value: u64) -> String {
    if value == UNTOUCHED {
        return "nothing: it was not called".to_owned();
    }
    match i32::try_from(value.cast_signed()) {
        Ok(0) => "0".to_owned(),
        Ok(number) => format!("-{}", Errno::from_raw(number).name()),
        Err(_) => "another number".to_owned(),
    }
}
