//! The body of a program that calls kfuncs: an assembler that knows the kernel's BTF, constant strings and types of
//! the program's own.
//!
//! What a body cannot find (a kfunc, a member) is kept and reported once it is complete, so that rows stay free of
//! error handling.

use super::own::{Own, node_words};
use super::row::{GOT, Returns, Row};
use crate::asm::Asm;
use crate::bpf::{self, BPF_F_RDONLY_PROG, BPF_MAP_TYPE_ARRAY, FuncInfo, MapSpec, ProgSpec};
use crate::btf::{Btf, Kind};
use crate::btf_build::{BtfBuilder, Linkage, SIGNED, UNSIGNED};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE};
use crate::results::{FREE, Results};
use crate::session::{Attempt, Ended};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Byte offset in the page: 1 if the call came back.
pub(super) const RETURNED: i32 = FREE;
/// Byte offset in the page: 1 if the result was NULL.
pub(super) const WAS_NULL: i32 = FREE + 8;
/// Byte offset in the page of the result, if it is a number.
pub(super) const RESULT: i32 = FREE + 16;
/// Byte offset in the page of what user space gives the program, 8 slots.
pub(super) const IN: i32 = 128;
/// Byte offset in the page of what the program leaves, 8 slots.
pub(super) const OUT: i32 = 256;
/// Byte offset in the page of a buffer of [`BUFFER_BYTES`].
pub(super) const BUFFER: i32 = 1024;
/// Its size.
pub(super) const BUFFER_BYTES: i32 = 256;
/// Byte offset in the page of a second buffer of the same size.
pub(super) const SECOND: i32 = 2048;

/// Bytes of the map that holds constant strings.
const TEXT_BYTES: u32 = 256;

/// A function that the kernel calls back: its code, which leaves by itself.
pub(super) type Callback = fn(&mut Asm, &Results, &Btf);

/// A body in the making.
pub(super) struct Body<'a> {
    asm: &'a mut Asm,
    btf: &'a Btf,
    results: &'a Results,
    text: Option<OwnedFd>,
    own: Option<&'a Own>,
    callbacks: Vec<(&'static str, Callback)>,
    strings: Vec<u8>,
    types: Option<BtfBuilder>,
    trouble: Option<Ended>,
    labels: usize,
}

/// Whether a kfunc that may give nothing on later kernels always gives something on this one
/// ([`Btf::task_acquire_always_gives`]); `bpf_rbtree_remove` may since adding is called `.._impl` (6.4
/// kernel/bpf/helpers.c).
pub(super) fn always_gives(btf: &Btf, kfunc: &str) -> bool {
    match kfunc {
        "bpf_task_acquire" => btf.task_acquire_always_gives(),
        "bpf_rbtree_remove" => btf.function("bpf_rbtree_add_impl").is_none(),
        _ => false,
    }
}

impl Deref for Body<'_> {
    type Target = Asm;
    fn deref(&self) -> &Asm {
        self.asm
    }
}

impl DerefMut for Body<'_> {
    fn deref_mut(&mut self) -> &mut Asm {
        self.asm
    }
}

impl Body<'_> {
    pub(super) fn trouble(&mut self, why: Ended) {
        self.trouble.get_or_insert(why);
    }

    /// Calls a kfunc.
    pub(super) fn kfunc(&mut self, name: &str) {
        match self.btf.function(name) {
            Some(id) => {
                self.call_kfunc(id, 0);
            }
            None => self.trouble(Ended::Absent(format!("kfunc {name}"))),
        }
    }

    /// Calls the first of these kfuncs that the kernel has: names change.
    pub(super) fn first_kfunc(&mut self, names: &[&str]) {
        let there = names.iter().find(|name| self.btf.function(name).is_some());
        self.kfunc(there.or(names.first()).unwrap_or(&""));
    }

    /// Whether the kernel has a kfunc, for rows whose arguments can be had in more than one way.
    pub(super) fn knows(&self, kfunc: &str) -> bool {
        self.btf.function(kfunc).is_some()
    }

    /// Whether a struct of the kernel has a member, of which builds differ.
    pub(super) fn has_member(&self, record: &str, member: &str) -> bool {
        self.btf.member(record, member).is_ok()
    }

    /// [`always_gives`], of this kernel.
    fn always_gives(&self, kfunc: &str) -> bool {
        always_gives(self.btf, kfunc)
    }

    /// The member of `task_struct` in which `bpf_task_acquire` counts.
    pub(super) fn task_counter(&self) -> &'static str {
        if self.btf.task_acquire_always_gives() { "usage.refs.counter" } else { "rcu_users.refs.counter" }
    }

    /// `R0 = the task in R1`, acquired; passes where there is none.
    pub(super) fn acquire_task(&mut self) {
        self.kfunc("bpf_task_acquire");
        if !self.always_gives("bpf_task_acquire") {
            self.jeq_imm(Reg::R0, 0, "pass");
        }
    }

    /// The id of one of the program's own types, of a row that holds something.
    pub(super) fn own_type(&mut self, name: &str) -> u32 {
        let found = self.own.and_then(|own| own.type_id(name));
        found.unwrap_or_else(|| {
            self.trouble(Ended::CouldNotTell(format!("the program has no type {name}")));
            0
        })
    }

    /// `dst = &value` of what the row holds, plus `offset`.
    pub(super) fn held(&mut self, dst: Reg, offset: u32) {
        match self.own.and_then(|own| own.map.as_ref()) {
            Some(map) => {
                self.asm.ld_map_value(dst, map, offset);
            }
            None => self.trouble(Ended::CouldNotTell("the row holds no map".to_owned())),
        }
    }

    /// `dst = the map` that the row holds.
    pub(super) fn held_map(&mut self, dst: Reg) {
        match self.own.and_then(|own| own.map.as_ref()) {
            Some(map) => {
                self.asm.ld_map_fd(dst, map);
            }
            None => self.trouble(Ended::CouldNotTell("the row holds no map".to_owned())),
        }
    }

    /// `dst = &page` of the arena that the row holds.
    pub(super) fn held_page(&mut self, dst: Reg, index: usize) {
        match self.own.and_then(|own| own.page(index)) {
            Some(address) => {
                self.ld_imm64(dst, address);
            }
            None => self.trouble(Ended::CouldNotTell("the row holds no arena".to_owned())),
        }
    }

    /// `dst = &a function` that follows the program, of this name.
    pub(super) fn function(&mut self, dst: Reg, name: &'static str, code: Callback) {
        self.ld_func(dst, name);
        if self.callbacks.iter().all(|(known, _)| *known != name) {
            self.callbacks.push((name, code));
        }
    }

    /// `dst = argument` of the hook, by index.
    pub(super) fn context_argument(&mut self, dst: Reg, index: i32) {
        self.ldx(Size::DW, dst, CTX, index * 8);
    }

    /// `dst = current`, as a trusted pointer; clobbers the argument registers.
    pub(super) fn current(&mut self, dst: Reg) {
        self.call(helper::GET_CURRENT_TASK_BTF).mov_reg(dst, Reg::R0);
    }

    /// `dst = current->cgroups->dfl_cgrp`, protected by RCU; clobbers the argument registers.
    pub(super) fn current_cgroup(&mut self, dst: Reg) {
        self.current(dst);
        self.follow(dst, "task_struct", "cgroups");
        self.follow(dst, "css_set", "dfl_cgrp");
    }

    /// `reg = reg->member`, of the member's own size.
    pub(super) fn follow(&mut self, reg: Reg, record: &str, member: &str) {
        match self.btf.member(record, member) {
            Ok(found) => {
                let size = match found.size {
                    1 => Size::B,
                    2 => Size::H,
                    4 => Size::W,
                    _ => Size::DW,
                };
                self.ldx(size, reg, reg, found.byte_offset);
            }
            Err(error) => self.trouble(Ended::could_not("find a member", error)),
        }
    }

    /// `reg = &reg->member`.
    pub(super) fn member_address(&mut self, reg: Reg, record: &str, member: &str) {
        match self.btf.member(record, member) {
            Ok(found) => {
                self.add_imm(reg, found.byte_offset);
            }
            Err(error) => self.trouble(Ended::could_not("find a member", error)),
        }
    }

    /// `R0 = this processor's copy` of a variable of the kernel that every processor has one of; clobbers the argument
    /// registers. `false`, and no code, where the kernel's BTF has no such variable.
    pub(super) fn this_cpus(&mut self, variable: &str) -> bool {
        let Some(id) = self.btf.find(Kind::Var, variable) else { return false };
        self.ld_btf_id(Reg::R1, id, 0).call(helper::THIS_CPU_PTR);
        true
    }

    /// `dst = id` of a struct of the kernel.
    pub(super) fn record_id(&mut self, dst: Reg, record: &str) {
        match self.btf.record(record) {
            Some(id) => {
                self.mov_imm(dst, id);
            }
            None => self.trouble(Ended::Absent(format!("struct {record}"))),
        }
    }

    /// `dst = value` of an enumerator of the kernel.
    pub(super) fn enumerator(&mut self, dst: Reg, name: &str) {
        match enumerator(self.btf, name) {
            Some(value) => {
                self.mov_imm(dst, value);
            }
            None => self.trouble(Ended::Absent(format!("enumerator {name}"))),
        }
    }

    /// `dst = "text"`, in a map that is read-only and frozen, which is what `__str` arguments must be.
    pub(super) fn text(&mut self, dst: Reg, text: &str) {
        if self.text.is_none() {
            let flags = BPF_F_RDONLY_PROG;
            let spec = MapSpec { flags, ..MapSpec::new(BPF_MAP_TYPE_ARRAY, 4, TEXT_BYTES, 1) };
            match bpf::map_create(&spec) {
                Ok(map) => self.text = Some(map),
                Err(errno) => self.trouble(Ended::could_not("make the map of constant strings", errno)),
            }
        }
        let at = u32::try_from(self.strings.len()).unwrap_or(u32::MAX);
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        if let Some(map) = &self.text {
            self.asm.ld_map_value(dst, map, at);
        }
    }

    /// `dst = the results map itself`.
    pub(super) fn results_map(&mut self, dst: Reg) {
        let results = self.results;
        self.ld_map_fd(dst, results);
    }

    /// `dst = &page[offset]`.
    pub(super) fn page_address(&mut self, dst: Reg, offset: i32) {
        self.mov_reg(dst, PAGE).add_imm(dst, offset);
    }

    /// `dst = &stack[offset]`.
    pub(super) fn stack_address(&mut self, dst: Reg, offset: i32) {
        self.mov_reg(dst, Reg::R10).add_imm(dst, offset);
    }

    /// `dst = slot` of what user space gave.
    pub(super) fn input(&mut self, dst: Reg, slot: i32) {
        self.ldx(Size::DW, dst, PAGE, IN + 8 * slot);
    }

    /// Leaves `src` in a slot for user space.
    pub(super) fn leave(&mut self, slot: i32, src: Reg) {
        self.stx(Size::DW, PAGE, OUT + 8 * slot, src);
    }

    /// Makes a dynptr of 16 bytes at `stack[offset]` over `size` bytes of the page.
    pub(super) fn dynptr(&mut self, offset: i32, page: i32, size: i32) {
        self.page_address(Reg::R1, page);
        self.mov_imm(Reg::R2, size).mov_imm(Reg::R3, 0);
        self.stack_address(Reg::R4, offset);
        self.call(helper::DYNPTR_FROM_MEM);
    }

    /// A label that no other part of the body uses.
    pub(super) fn fresh(&mut self, stem: &str) -> String {
        self.labels += 1;
        format!("{stem}-{}", self.labels)
    }

    /// The size of a list's node in this kernel, in words.
    pub(super) fn list_node_words(&self) -> u32 {
        node_words(self.btf, "bpf_list_node")
    }

    /// The program's own types, which its BTF will hold.
    pub(super) fn types(&mut self) -> &mut BtfBuilder {
        self.types.get_or_insert_with(BtfBuilder::new)
    }

    /// The canonical program of a row: arguments, call, check for NULL, use, give back.
    pub(super) fn canonical(&mut self, row: &Row, before: impl Fn(&mut Self), spoil: impl Fn(&mut Self)) {
        before(self);
        (row.before)(self);
        spoil(self);
        self.call_of(row);
        match row.returns {
            Returns::Never(_) => {
                self.st_imm(Size::DW, PAGE, RETURNED, 1);
                return;
            }
            Returns::Plain => {
                // Void kfuncs leave no result that may be read; what they return is known from their prototype.
                if self.returns_number(row.name) {
                    self.stx(Size::DW, PAGE, RESULT, Reg::R0);
                }
            }
            Returns::Nullable | Returns::Owned(_, true) => {
                if !self.always_gives(row.name) {
                    self.jeq_imm(Reg::R0, 0, "null");
                }
                self.mov_reg(GOT, Reg::R0);
            }
            Returns::Owned(_, false) => {
                self.mov_reg(GOT, Reg::R0);
            }
        }
        self.st_imm(Size::DW, PAGE, RETURNED, 1);
        (row.then)(self);
        if let Returns::Owned(release, _) = row.returns {
            self.give_back(row, release, GOT);
        }
        if matches!(row.returns, Returns::Nullable | Returns::Owned(_, true)) && !self.always_gives(row.name)
        {
            self.ja("done").label("null").st_imm(Size::DW, PAGE, WAS_NULL, 1).label("done");
        }
        (row.finally)(self);
    }

    /// The call of a row's kfunc, and what comes right after it.
    pub(super) fn call_of(&mut self, row: &Row) {
        self.kfunc(row.name);
        let Some(after) = &row.after else { return };
        if self.returns_nothing(row.name) {
            return after(self);
        }
        self.mov_reg(GOT, Reg::R0);
        after(self);
        self.mov_reg(Reg::R0, GOT);
    }

    /// Gives back the reference that a row's kfunc has returned.
    pub(super) fn give_back(&mut self, row: &Row, release: &str, reg: Reg) {
        self.mov_reg(Reg::R1, reg);
        if row.node != 0 {
            self.add_imm(Reg::R1, -row.node);
        }
        self.mov_imm(Reg::R2, 0);
        self.kfunc(release);
    }

    /// Gives a reference back.
    pub(super) fn release(&mut self, release: &str, reg: Reg) {
        self.mov_reg(Reg::R1, reg).mov_imm(Reg::R2, 0); // the `_impl` variants take a second argument, ignored
        self.kfunc(release);
    }

    fn returns_number(&self, name: &str) -> bool {
        !self.returns_nothing(name) && self.btf.pointee(returned_type(self.btf, name)).is_none()
    }

    fn returns_nothing(&self, name: &str) -> bool {
        returned_type(self.btf, name) == 0
    }
}

/// The type of what a function returns, 0 where that is nothing: some kfuncs return a number that once did not, as
/// `bpf_list_push_front` (6.3 kernel/bpf/helpers.c).
pub(super) fn returned_type(btf: &Btf, name: &str) -> u32 {
    btf.function(name).and_then(|id| btf.prototype(id)).map_or(0, |prototype| prototype.ret)
}

/// The value of an enumerator. Every enum of the kernel is looked at for it, and a probe asks for the same again and
/// again.
fn enumerator(btf: &Btf, name: &str) -> Option<i64> {
    thread_local! {
        static KNOWN: RefCell<BTreeMap<String, Option<i64>>> = const { RefCell::new(BTreeMap::new()) };
    }
    KNOWN.with_borrow_mut(|known| *known.entry(name.to_owned()).or_insert_with(|| btf.enum_value(None, name)))
}

/// A program and what must stay open until it is loaded.
pub(super) struct Built {
    pub(super) program: LsmProgram,
    _text: Option<OwnedFd>,
    _btf: Option<OwnedFd>,
}

/// Makes a framed program for `hook`.
///
/// # Errors
/// [`Ended::Absent`] for a kfunc or type that the kernel does not have, and what making maps and BTF gives.
pub(super) fn build(
    attempt: &mut Attempt<'_>,
    hook: &str,
    (results, own): (&Results, Option<&Own>),
    code: impl FnOnce(&mut Body<'_>),
) -> Result<Built, Ended> {
    let btf = attempt.btf()?;
    let (mut text, mut strings) = (None, Vec::new());
    let (mut types, mut trouble, mut callbacks) = (None, None, Vec::new());
    let mut program = LsmProgram::framed(hook, results, |asm| {
        let mut body = Body {
            asm,
            btf,
            results,
            text: None,
            own,
            callbacks: Vec::new(),
            strings: Vec::new(),
            types: None,
            trouble: None,
            labels: 0,
        };
        code(&mut body);
        text = body.text.take();
        strings = std::mem::take(&mut body.strings);
        types = body.types.take();
        trouble = body.trouble.take();
        callbacks = std::mem::take(&mut body.callbacks);
    });
    for (name, code) in &callbacks {
        code(program.asm.label(name), results, btf);
    }
    if let Some(why) = trouble {
        return Err(why);
    }
    if let Some(text) = &text {
        strings.resize(TEXT_BYTES as usize, 0);
        bpf::map_update(text, &0_u32.to_le_bytes(), &strings, 0)
            .and_then(|()| bpf::map_freeze(text))
            .map_err(|errno| Ended::could_not("make the map of constant strings", errno))?;
    }
    if let Some(own) = own {
        let names: Vec<&str> = callbacks.iter().map(|(name, _)| *name).collect();
        program.extra = own.of_program(&program.asm, &names)?;
    }
    let btf = match types {
        Some(types) => Some(own_types(&mut program, types)?),
        None => None,
    };
    Ok(Built { program, _text: text, _btf: btf })
}

/// Loads the program's own BTF: its types, and a function that the program is.
fn own_types(program: &mut LsmProgram, mut types: BtfBuilder) -> Result<OwnedFd, Ended> {
    let int = types.int("int", 4, SIGNED);
    let word = types.int("ctx_word", 8, UNSIGNED);
    let ctx = types.ptr(word);
    let proto = types.func_proto(int, &[("ctx", ctx)]);
    let type_id = types.func("program", proto, Linkage::Global);
    let btf = bpf::btf_load(&types.finish())
        .map_err(|error| Ended::could_not("load the program's BTF", format!("{error}: {}", error.log)))?;
    program.extra = Some(ProgSpec {
        prog_btf_fd: Some(btf.as_fd().as_raw_fd()),
        func_info: vec![FuncInfo { insn_off: 0, type_id }],
        ..ProgSpec::default()
    });
    Ok(btf)
}
