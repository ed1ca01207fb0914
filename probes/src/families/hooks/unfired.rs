//! Why a hook does not fire, for hooks that programs attach to and no trigger of the suite reaches.

/// Hook and reason, sorted by hook.
const REASONS: &[(&str, &str)] = &[];

/// Why `hook` (without `bpf_lsm_`) does not fire on the kernels where it does not: what is missing there.
#[must_use]
pub fn reason(hook: &str) -> Option<&'static str> {
    REASONS.iter().find(|(name, _)| *name == hook).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hook_stands_once_and_in_order() {
        assert!(REASONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(REASONS.iter().all(|(hook, why)| !hook.starts_with("bpf_lsm_") && !why.is_empty()));
    }
}
