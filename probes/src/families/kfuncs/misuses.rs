//! How a row says which rules can be broken: the programs that are loaded and never run.

use super::body::{Body, OUT};
use super::row::{Code, Row, Sleep, Wrong, WrongKind, nothing};
use crate::bpf::BPF_F_SLEEPABLE;
use crate::insn::{Reg, Size};
use crate::lsm::PAGE;
use std::sync::Arc;

impl Row {
    /// Its arguments are protected by RCU only, since the canonical program comes to them by following pointers and
    /// acquires none. That is no protection in a sleepable program: there, the canonical program breaks a rule, unless it
    /// is in a section.
    pub(super) fn rcu(mut self) -> Self {
        self.sleep = Sleep::Never;
        self.section = true;
        self.wrong.push(Wrong {
            name: "misuse-sleepable-without-rcu".to_owned(),
            flags: BPF_F_SLEEPABLE,
            kind: WrongKind::Spoilt(nothing(), nothing()),
        });
        self
    }

    /// A program of its own that breaks the rule `name`, sleepable exactly if the kfunc needs it.
    pub(super) fn wrong(self, name: &str, code: impl Fn(&mut Body<'_>) + Send + Sync + 'static) -> Self {
        let flags = self.sleep.flags();
        self.wrong_with(name, flags, WrongKind::Body(Arc::new(code)))
    }

    /// A sleepable program of its own that breaks the rule `name`.
    pub(super) fn wrong_sleepable(
        self,
        name: &str,
        code: impl Fn(&mut Body<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.wrong_with(name, BPF_F_SLEEPABLE, WrongKind::Body(Arc::new(code)))
    }

    /// The canonical program with code right before the call that breaks the rule `name`.
    pub(super) fn spoilt(self, name: &str, code: impl Fn(&mut Body<'_>) + Send + Sync + 'static) -> Self {
        let flags = self.sleep.flags();
        self.wrong_with(name, flags, WrongKind::Spoilt(nothing(), Arc::new(code)))
    }

    /// NULL for an argument that may not be.
    pub(super) fn not_null(self, argument: Reg) -> Self {
        self.spoilt(&format!("misuse-null-argument-{}", argument.number()), move |b| {
            b.mov_imm(argument, 0);
        })
    }

    /// A number for an argument that is a pointer.
    pub(super) fn not_number(self, argument: Reg) -> Self {
        self.spoilt(&format!("misuse-number-for-argument-{}", argument.number()), move |b| {
            b.ldx(Size::DW, argument, PAGE, OUT);
        })
    }

    /// A pointer of the right type that the verifier does not trust, because it comes from a cast.
    pub(super) fn not_untrusted(self, argument: Reg, record: &'static str) -> Self {
        let flags = self.sleep.flags();
        let first: Code = Arc::new(move |b| {
            b.context_argument(Reg::R1, 0);
            b.record_id(Reg::R2, record);
            b.kfunc("bpf_rdonly_cast");
            // Kept on the stack: the row's own code may use every callee-saved register.
            b.stx(Size::DW, Reg::R10, -256, Reg::R0);
        });
        let last: Code = Arc::new(move |b| {
            b.ldx(Size::DW, argument, Reg::R10, -256);
        });
        let name = format!("misuse-untrusted-argument-{}", argument.number());
        self.wrong_with(&name, flags, WrongKind::Spoilt(first, last))
    }

    /// It is there for LSM programs: one of another type on the same function may not call it.
    pub(super) fn lsm_only(self) -> Self {
        // Never sleepable: the functions that hooks are cannot sleep for fentry, which would be another reason.
        self.wrong_with("misuse-fentry-program", 0, WrongKind::Fentry(None))
    }

    /// As [`Row::lsm_only`], for a kfunc whose arguments come from another one of that kind: a program that calls it alone.
    pub(super) fn lsm_only_alone(self, code: impl Fn(&mut Body<'_>) + Send + Sync + 'static) -> Self {
        self.wrong_with("misuse-fentry-program", 0, WrongKind::Fentry(Some(Arc::new(code))))
    }

    /// It may not be called on this hook.
    pub(super) fn not_on(self, hook: &'static str) -> Self {
        let flags = self.sleep.flags();
        self.wrong_with(&format!("misuse-on-{hook}"), flags, WrongKind::On(hook))
    }

    /// Only who has this capability may load a program with it (`KF_DESTRUCTIVE`).
    pub(super) fn needs_capability(self, capability: u32) -> Self {
        let flags = self.sleep.flags();
        self.wrong_with("misuse-without-the-capability", flags, WrongKind::Without(capability))
    }

    fn wrong_with(mut self, name: &str, flags: u32, kind: WrongKind) -> Self {
        self.wrong.push(Wrong { name: name.to_owned(), flags, kind });
        self
    }
}
