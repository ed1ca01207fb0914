//! What the verifier calls the registers of a program, out of its log at level 2.

/// What the log calls register `number` where it first has a value, without volatile detail: `trusted_ptr_file`,
/// `rcu_ptr_or_null_cred`, `scalar`, and with its bounds a number that has any.
///
/// All kernels print `R2=..`, between 5.10 and 6.19 `R2_w=..` for a register just written (`print_verifier_state`,
/// 5.10 kernel/bpf/verifier.c; 6.14 kernel/bpf/log.c).
pub(super) fn of_register(log: &str, number: usize) -> Option<String> {
    let name = format!("R{number}");
    log.match_indices(&name).find_map(|(at, _)| {
        let before = log[..at].chars().next_back();
        if before.is_some_and(|c| !c.is_whitespace()) {
            return None;
        }
        let rest = &log[at + name.len()..];
        let rest = rest.strip_prefix("_w").unwrap_or(rest).strip_prefix('=')?;
        Some(plain(word(rest)))
    })
}

/// The text up to the first white space outside of parentheses.
fn word(text: &str) -> &str {
    let mut depth = 0_usize;
    let end = text.find(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c.is_whitespace() && depth == 0
    });
    &text[..end.unwrap_or(text.len())]
}

/// Pointers without what stands in parentheses (offsets, ids); numbers with their bounds.
fn plain(state: &str) -> String {
    let Some((kind, detail)) = state.split_once('(') else { return state.to_owned() };
    let bounds: Vec<&str> = detail
        .trim_end_matches(')')
        .split(',')
        .filter(|part| !part.starts_with("id=") && !part.starts_with("var_off="))
        .filter(|_| matches!(kind, "scalar" | "inv"))
        .collect();
    let bounds = bounds.join(",");
    if kind.ends_with("ptr_") || kind.ends_with("_or_null_") {
        return format!("{kind}(anonymous)"); // the type behind a typedef without a tag of its own
    }
    if bounds.is_empty() || bounds.contains("; 0x") { kind.to_owned() } else { format!("{kind}({bounds})") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const OLD: &str = "\
func#0 @0
0: R1=ctx(id=0,off=0,imm=0) R10=fp0
0: (79) r2 = *(u64 *)(r1 +0)
func 'bpf_lsm_file_ioctl' arg0 has btf_id 123 type STRUCT 'file'
1: R1=ctx(id=0,off=0,imm=0) R2_w=ptr_file(id=0,off=0,imm=0) R10=fp0
1: (79) r3 = *(u64 *)(r1 +8)
2: R1=ctx(id=0,off=0,imm=0) R2_w=ptr_file(id=0,off=0,imm=0) R3_w=inv(id=0) R10=fp0
";
    const NEW: &str = "\
0: R1=ctx() R10=fp0
0: (79) r2 = *(u64 *)(r1 +0)          ; R1=ctx() R2=trusted_ptr_file()
1: (79) r3 = *(u64 *)(r1 +8)          ; R1=ctx() R3=scalar()
2: (79) r4 = *(u64 *)(r1 +16)         ; R1=ctx() R4=scalar(smin=smin32=-4095,smax=smax32=0)
3: (79) r5 = *(u64 *)(r1 +24)         ; R1=ctx() R5_w=rcu_ptr_or_null_cred(id=1,off=0)
3: (79) r6 = *(u64 *)(r1 +24)         ; R1=ctx() R6=trusted_ptr_()
4: (b7) r0 = 0                        ; R0=0
";

    #[rstest]
    #[case(OLD, 2, Some("ptr_file"))]
    #[case(OLD, 3, Some("inv"))]
    #[case(OLD, 4, None)]
    #[case(NEW, 2, Some("trusted_ptr_file"))]
    #[case(NEW, 3, Some("scalar"))]
    #[case(NEW, 4, Some("scalar(smin=smin32=-4095,smax=smax32=0)"))]
    #[case(NEW, 5, Some("rcu_ptr_or_null_cred"))]
    #[case(NEW, 6, Some("trusted_ptr_(anonymous)"))]
    #[case(NEW, 0, Some("0"))]
    #[case(NEW, 1, Some("ctx"))]
    fn registers(#[case] log: &str, #[case] number: usize, #[case] expected: Option<&str>) {
        assert_eq!(of_register(log, number).as_deref(), expected);
    }

    #[test]
    fn a_register_of_two_digits_is_another() {
        assert_eq!(of_register("0: R10=fp0 R1=ctx()", 1).as_deref(), Some("ctx"));
    }
}
