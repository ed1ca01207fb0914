//! What a helper's case works with: programs of one shape, a trigger, and a page of results.

use super::{callable, exec};
use crate::asm::Asm;
use crate::bpf::{FuncInfo, ProgSpec, btf_load};
use crate::btf_build::{BtfBuilder, Linkage, SIGNED, UNSIGNED};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE};
use crate::record::Phase;
use crate::results::{FREE, Results};
use crate::rules::cgroup_frame;
use crate::session::{Attempt, Ended};
use crate::spec::ANYBODYS;
use crate::triggers::Arm;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

/// The file that the usual trigger opens.
pub(super) const FILE: &str = ANYBODYS;
/// What is in it.
pub(super) const CONTENT: &str = "content\n";

/// The hook whose programs may sleep on every kernel that knows such programs, on the first of them no other
/// (5.10 kernel/bpf/verifier.c, btf_sleepable_lsm_hooks).
pub(super) const SLEEPS_EVERYWHERE: &str = "bprm_committed_creds";

/// The byte offset of a program's own slot in the results page.
pub(super) const fn slot(index: i32) -> i32 {
    FREE + 8 * index
}

/// A case under way.
pub(super) struct Bench<'c, 'k> {
    /// The attempt, for what the case sees.
    pub(super) attempt: &'c mut Attempt<'k>,
    helper: u32,
    kind: super::Kind,
}

impl<'c, 'k> Bench<'c, 'k> {
    pub(super) fn new(attempt: &'c mut Attempt<'k>, helper: u32, kind: super::Kind) -> Self {
        Self { attempt, helper, kind }
    }

    /// The number of the row's helper.
    pub(super) const fn helper(&self) -> u32 {
        self.helper
    }

    /// Whether the kernel's own list of helpers has this one. Where there is no list, the verifier is asked.
    pub(super) fn known(&self) -> Result<bool, Ended> {
        Ok(self.attempt.btf()?.lists_helper(self.helper).unwrap_or(true))
    }

    /// Loads a program of the case's kind that is nothing but a call of the helper, for what the kernel says of one that
    /// it does not have. A real use would be refused for other things that such a kernel lacks: a type of map, callbacks.
    /// Where there are no programs of this kind, the kernel says nothing of the helper, which is absent all the same.
    pub(super) fn bare_call(&mut self) -> Result<(), Ended> {
        let hook = if self.only_execution_sleeps()? { SLEEPS_EVERYWHERE } else { "file_open" };
        let mut asm = Asm::new();
        asm.call(self.helper).mov_imm(Reg::R0, 0).exit();
        let program = match self.kind {
            super::Kind::Cgroup => LsmProgram::of_cgroup(hook, asm),
            super::Kind::Sleepable => LsmProgram::raw(hook, asm).sleepable(),
            super::Kind::Plain | super::Kind::Rust => LsmProgram::raw(hook, asm),
        };
        let spec = self.attempt.spec(&program)?;
        let answer = self.attempt.ask(&spec, 1);
        if answer.as_ref().is_err_and(callable::is_of_the_kind) {
            self.attempt.at(Phase::Open);
            return Err(Ended::no_helper(self.helper));
        }
        self.attempt.answered(answer).map(drop)
    }

    /// Whether the kernel has no programs of the kind that the case is about.
    pub(super) fn kind_is_missing(&self) -> bool {
        match self.kind {
            super::Kind::Cgroup => callable::none_of_a_cgroup(self.attempt, self.helper),
            super::Kind::Sleepable => callable::none_sleeps(self.attempt, self.helper),
            super::Kind::Plain | super::Kind::Rust => false,
        }
    }

    /// The offset of a member of a kernel structure.
    pub(super) fn offset(&self, record: &str, member: &str) -> Result<u32, Ended> {
        let found = self.attempt.btf()?.member(record, member);
        found.map(|member| member.byte_offset).map_err(|error| Ended::Absent(error.to_string()))
    }

    /// A framed program of the kind that the case is about.
    pub(super) fn program(&self, hook: &str, results: &Results, body: impl FnOnce(&mut Asm)) -> LsmProgram {
        match self.kind {
            super::Kind::Cgroup => LsmProgram::of_cgroup(hook, cgroup_frame(results, body)),
            super::Kind::Sleepable => LsmProgram::framed(hook, results, body).sleepable(),
            super::Kind::Plain | super::Kind::Rust => LsmProgram::framed(hook, results, body),
        }
    }

    /// Runs `body` once, in a program on `file_open`, when this process opens [`FILE`].
    pub(super) fn open(&mut self, body: impl FnOnce(&mut Asm)) -> Result<Results, Ended> {
        self.run("file_open", open_file, body).map(|(results, _)| results)
    }

    /// As [`Bench::open`], for a body that takes nothing from its hook. Where no program on `file_open` may sleep, one
    /// that is to runs when a child executes a program (5.10 kernel/bpf/verifier.c, btf_sleepable_lsm_hooks).
    pub(super) fn open_or_execute(&mut self, body: impl FnOnce(&mut Asm)) -> Result<Results, Ended> {
        if self.only_execution_sleeps()? {
            return self.run(SLEEPS_EVERYWHERE, exec::at_secure, body).map(|(results, _)| results);
        }
        self.open(body)
    }

    /// Whether the case is about a program that is to sleep, on a kernel where none may on the usual hook.
    pub(super) fn only_execution_sleeps(&mut self) -> Result<bool, Ended> {
        Ok(self.kind == super::Kind::Sleepable && !self.may_sleep()?)
    }

    /// Loads a program that may sleep and has `map`, where none may on the hook that gives the helper its owner or
    /// packet: the call gets the program's context as its argument number `owner` instead. Whether such a program may
    /// use the map is said before its instructions are looked at (5.10 kernel/bpf/verifier.c, `bpf_check`,
    /// `replace_map_fd_with_map_ptr`).
    pub(super) fn load_with_map(&mut self, map: &OwnedFd, place: Reg, owner: Reg) -> Result<(), Ended> {
        let helper = self.helper;
        self.load(|asm| {
            asm.mov_imm(Reg::R3, 0).mov_imm(Reg::R4, 0).mov_imm(Reg::R5, 0);
            asm.mov_reg(owner, CTX).ld_map_fd(place, map).call(helper);
        })
    }

    /// Whether programs on the usual hook may sleep. The kernel is asked once: what its set of such hooks is does not
    /// change.
    fn may_sleep(&mut self) -> Result<bool, Ended> {
        static KNOWN: OnceLock<bool> = OnceLock::new();
        if let Some(known) = KNOWN.get() {
            return Ok(*known);
        }
        let hook = "file_open";
        let mut asm = Asm::new();
        let insns = asm.mov_imm(Reg::R0, 0).exit().finish();
        let insns = insns.map_err(|error| Ended::could_not("assemble the program", error))?;
        let spec = ProgSpec::lsm(hook, self.attempt.hook(hook)?, insns).sleepable();
        let answer = self.attempt.ask(&spec, 1);
        self.attempt.at(Phase::Open); // a case must not begin otherwise because it is the first to ask
        let answer = match answer {
            Ok(_) => true,
            // What is refused for another reason says nothing of the next.
            Err(refused) if !refused.log.contains("is not sleepable") => return Ok(true),
            Err(_) => false,
        };
        Ok(*KNOWN.get_or_init(|| answer))
    }

    /// As [`Bench::open`], for a helper without arguments: its result is in the first slot, which holds -1 before.
    pub(super) fn call_on_open(&mut self) -> Result<Results, Ended> {
        let helper = self.helper;
        self.open(|asm| {
            preset(asm, 0);
            asm.call(helper).stx(Size::DW, PAGE, slot(0), Reg::R0);
        })
    }

    /// Runs `body` in a program on `hook` for what `act` does while armed, and returns the results page and what `act`
    /// returned.
    pub(super) fn run<T>(
        &mut self,
        hook: &str,
        act: impl FnOnce(Arm) -> T,
        body: impl FnOnce(&mut Asm),
    ) -> Result<(Results, T), Ended> {
        let results = self.idle_results()?;
        let program = self.program(hook, &results, body);
        let done = self.fire(&program, &results, act)?;
        Ok((results, done))
    }

    /// Attaches a program, does `act`, and notes the runs.
    ///
    /// The program stays attached until the probe's process ends, naming nobody and therefore doing nothing. To
    /// detach the last program of a hook costs a grace period (5.9 kernel/trace/ftrace.c, unregister_ftrace_direct),
    /// a tenth of a second and more on a slow machine, and to detach one of several does not.
    fn fire<T>(
        &mut self,
        program: &LsmProgram,
        results: &Results,
        act: impl FnOnce(Arm) -> T,
    ) -> Result<T, Ended> {
        write_file()?;
        std::mem::forget(self.attempt.run_lsm(program)?);
        let done = self.attempt.trigger(|| act(Arm::new(results)));
        self.attempt.runs(results.runs());
        Ok(done)
    }

    /// As [`Bench::open`], for a program with a callback: `callback` is what stands at the label `callback`, and
    /// `params` are how many arguments it takes.
    pub(super) fn open_with_callback(
        &mut self,
        params: usize,
        body: impl FnOnce(&mut Asm),
        callback: impl FnOnce(&mut Asm),
    ) -> Result<Results, Ended> {
        let results = self.idle_results()?;
        let mut program = self.program("file_open", &results, body);
        program.asm.label("callback");
        callback(&mut program.asm);
        let position = program.asm.position("callback").unwrap_or_default();
        let (btf, main, callback) = functions(params)?;
        program.extra = Some(ProgSpec {
            prog_btf_fd: Some(btf.as_raw_fd()),
            func_info: vec![
                FuncInfo { insn_off: 0, type_id: main },
                FuncInfo { insn_off: position, type_id: callback },
            ],
            ..ProgSpec::default()
        });
        let _opened = self.fire(&program, &results, open_file)?;
        Ok(results)
    }

    /// Loads a program on `file_open` that is expected to be refused, and only that; where no program on that hook may
    /// sleep and it is to, on one where it may.
    pub(super) fn load(&mut self, body: impl FnOnce(&mut Asm)) -> Result<(), Ended> {
        let elsewhere = self.only_execution_sleeps()?;
        self.load_on(if elsewhere { SLEEPS_EVERYWHERE } else { "file_open" }, body)
    }

    /// As [`Bench::load`], for another hook.
    pub(super) fn load_on(&mut self, hook: &str, body: impl FnOnce(&mut Asm)) -> Result<(), Ended> {
        let results = self.idle_results()?;
        let program = self.program(hook, &results, body);
        self.attempt.load_lsm_in_doubt(&program).map(drop)
    }

    /// Loads and attaches a framed program and leaves the rest to the case.
    pub(super) fn load_for(
        &mut self,
        hook: &str,
        body: impl FnOnce(&mut Asm),
    ) -> Result<(Results, OwnedFd), Ended> {
        let results = self.idle_results()?;
        let program = self.program(hook, &results, body);
        let program = self.attempt.load_lsm(&program)?;
        Ok((results, program))
    }

    /// The same, attached like every program of a bench, for a case that does the trigger more than once.
    pub(super) fn attach_for(&mut self, hook: &str, body: impl FnOnce(&mut Asm)) -> Result<Results, Ended> {
        let (results, program) = self.load_for(hook, body)?;
        std::mem::forget(self.attempt.attach(&program)?);
        Ok(results)
    }

    /// A results page that names nobody yet.
    fn idle_results(&mut self) -> Result<Results, Ended> {
        let mut results = self.attempt.results()?;
        results.name_nobody();
        Ok(results)
    }

    /// Notes what user space finds where a program has stored or deleted.
    pub(super) fn found(&mut self, key: &str, found: Result<u64, Errno>) {
        match found {
            Ok(value) => self.attempt.see(key, value),
            Err(errno) => self.attempt.see(key, errno.name()),
        }
    }

    /// Notes what a helper returned that returns a small number or a negative errno.
    pub(super) fn returned(&mut self, key: &str, value: u64) {
        let value = value.cast_signed();
        match i32::try_from(value) {
            Ok(errno @ i32::MIN..0) => self.attempt.see(key, format!("-{}", Errno::from_raw(errno))),
            Ok(_) => self.attempt.see(key, value),
            Err(_) => match u32::try_from(value).map(u32::cast_signed) {
                Ok(errno @ -4095..0) => {
                    self.attempt.see(key, format!("-{} as unsigned 32 bits", Errno::from_raw(errno)));
                }
                Ok(_) | Err(_) => self.attempt.see(key, value),
            },
        }
    }
}

/// Makes [`FILE`] anew.
pub(super) fn write_file() -> Result<(), Ended> {
    fs::write(FILE, CONTENT).map_err(|error| Ended::could_not("write the file to be opened", error))
}

/// The usual trigger.
pub(super) fn open_file(arm: Arm) -> Result<File, Errno> {
    arm.during(|| File::open(FILE)).map_err(Errno::from)
}

/// Types of a main program and of a callback with `params` arguments; every argument is 64 bits wide.
fn functions(params: usize) -> Result<(OwnedFd, u32, u32), Ended> {
    let mut types = BtfBuilder::new();
    let int = types.int("int", 4, SIGNED);
    let long = types.int("long", 8, SIGNED);
    let word = types.int("u64", 8, UNSIGNED);
    let context = types.ptr(word);
    let proto = types.func_proto(int, &[("ctx", context)]);
    let main = types.func("main", proto, Linkage::Static);
    let names = ["a", "b", "c", "d"];
    let params: Vec<(&str, u32)> = names.into_iter().take(params).map(|name| (name, word)).collect();
    let proto = types.func_proto(long, &params);
    let callback = types.func("callback", proto, Linkage::Static);
    let btf = btf_load(&types.finish()).map_err(|error| Ended::could_not("load the program's BTF", error))?;
    Ok((btf, main, callback))
}

/// Writes text to the stack at `at` below the frame pointer, padded with zeros to a multiple of 4.
pub(super) fn put_text(asm: &mut Asm, at: i32, text: &[u8]) {
    for (offset, chunk) in (at..).step_by(4).zip(text.chunks(4)) {
        let mut word = [0; 4];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        asm.st_imm(Size::W, Reg::R10, offset, u32::from_le_bytes(word));
    }
}

/// `dst = frame pointer + at`.
pub(super) fn stack(asm: &mut Asm, dst: Reg, at: i32) {
    asm.mov_reg(dst, Reg::R10).add_imm(dst, at);
}

/// Looks the first element of a map up: R0 is the address of its value, or null.
pub(super) fn look_up(asm: &mut Asm, map: &OwnedFd) {
    asm.st_imm(Size::W, Reg::R10, -4, 0);
    stack(asm, Reg::R2, -4);
    asm.ld_map_fd(Reg::R1, map).call(helper::MAP_LOOKUP_ELEM);
}

/// `R8 = address of the value of a map's first element`; passes where there is none.
pub(super) fn value_in_r8(asm: &mut Asm, map: &OwnedFd) {
    look_up(asm, map);
    asm.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R8, Reg::R0);
}

/// `dst = address of a slot of the results page`.
pub(super) fn page(asm: &mut Asm, dst: Reg, index: i32) {
    asm.mov_reg(dst, PAGE).add_imm(dst, slot(index));
}

/// Stores a register in a slot of the results page.
pub(super) fn keep(asm: &mut Asm, index: i32, src: Reg) {
    asm.stx(Size::DW, PAGE, slot(index), src);
}

/// Fills a slot of the results page with ones, which the kernel's answer is to replace; so that 0 is an answer.
pub(super) fn preset(asm: &mut Asm, index: i32) {
    asm.st_imm(Size::DW, PAGE, slot(index), -1);
}

/// `dst = the hook's argument`.
pub(super) fn argument(asm: &mut Asm, dst: Reg, index: i32) {
    asm.ldx(Size::DW, dst, CTX, 8 * index);
}

/// The text up to the first NUL.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}
