//! Which accelerator works here.
//!
//! That `/dev/kvm` opens, and even that it makes a machine, is no proof: on some hosts every guest then dies on its
//! first privileged instruction. So the flags of the processor are looked at first, and what they promise is tried
//! with a real, bounded boot.

use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;

/// An accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// Hardware virtualization.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accel {
    /// The name used in options and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccelChoice {
    /// KVM if a real trial says that it works, else TCG.
    Auto,
    /// KVM, without asking.
    Kvm,
    /// TCG, without asking.
    Tcg,
}

/// What can be said about KVM without starting a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmHint {
    /// Not worth a trial, and why.
    No(String),
    /// Worth a trial.
    Maybe,
}

/// Looks at `/dev/kvm` and the processor's flags.
#[must_use]
pub fn kvm_hint() -> KvmHint {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return KvmHint::No(format!("/dev/kvm: {error}"));
    }
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    hint_from_cpuinfo(&flags)
}

fn hint_from_cpuinfo(cpuinfo: &str) -> KvmHint {
    let has = |flag: &str| {
        cpuinfo
            .lines()
            .filter(|line| line.starts_with("flags"))
            .any(|line| line.split_whitespace().any(|f| f == flag))
    };
    if has("vmx") || has("svm") {
        KvmHint::Maybe
    } else {
        KvmHint::No("/dev/kvm opens, but the processor shows neither vmx nor svm".into())
    }
}

/// The accelerator to use and the sentence that says why; `trial` boots a machine under KVM and reports.
pub fn choose(choice: AccelChoice, trial: impl FnOnce() -> Result<(), String>) -> (Accel, String) {
    match choice {
        AccelChoice::Kvm => (Accel::Kvm, "kvm: asked for".into()),
        AccelChoice::Tcg => (Accel::Tcg, "tcg: asked for".into()),
        AccelChoice::Auto => match kvm_hint() {
            KvmHint::No(why) => (Accel::Tcg, format!("tcg: {why}")),
            KvmHint::Maybe => match trial() {
                Ok(()) => (Accel::Kvm, "kvm: a trial machine said hello".into()),
                Err(why) => (Accel::Tcg, format!("tcg: a trial machine under kvm failed: {why}")),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_decide_whether_a_trial_is_worth_it() {
        assert_eq!(hint_from_cpuinfo("flags\t\t: fpu vmx sse\n"), KvmHint::Maybe);
        assert_eq!(hint_from_cpuinfo("flags\t\t: fpu svm sse\n"), KvmHint::Maybe);
        assert!(matches!(hint_from_cpuinfo("flags\t\t: fpu svmx\nmodel name : vmx\n"), KvmHint::No(_)));
    }

    #[test]
    fn what_is_forced_is_not_tried() {
        assert_eq!(choose(AccelChoice::Kvm, || Err("tried".into())).0, Accel::Kvm);
        assert_eq!(choose(AccelChoice::Tcg, || Ok(())).0, Accel::Tcg);
    }
}
