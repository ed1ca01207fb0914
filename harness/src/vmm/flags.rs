//! Whether it was the emulator that ended a kernel: flags on its console that no processor can have.
//!
//! QEMU before 8.0 may take an operand of `cmpxchg16b` for the flags (target/i386/tcg/translate.c of 7.2, case 0x1c7). An
//! interrupt saves them, and the return from it faults; what the kernel then prints is no word about the kernel.

use super::machine::first_alarm;

/// Bits of EFLAGS that are zero whatever happens: 3, 5, 15 and all from 22 on (Intel's manual, volume 1, "EFLAGS
/// Register"; 7.3 arch/x86/include/uapi/asm/processor-flags.h has names for all others).
const ALWAYS_ZERO: u32 = 0xffc0_8028;
/// The one that is always set (the same file, `X86_EFLAGS_FIXED`).
const ALWAYS_SET: u32 = 1 << 1;

/// The flags that the processor had at a kernel's first words about its own end, if there are no such flags.
///
/// Only those of the kernel's own code count, the first that stand below these words. The processor itself has stored them
/// just before, and nothing has come between; what a kernel prints of its processes' registers, further below, comes from
/// stacks that may have been written over.
#[must_use]
pub fn impossible_flags(console: &str) -> Option<u32> {
    let alarm = first_alarm(console)?;
    let below = console.lines().skip_while(|line| !line.contains(&alarm));
    // 7.3 arch/x86/kernel/dumpstack.c, `show_ip` and `show_iret_regs`: a line each, the code between them, the latter with
    // the selector of the stack.
    let mut registers = below.skip_while(|line| !line.contains("RIP: "));
    registers.next().filter(|line| line.contains("RIP: 0010:"))?;
    let mut own = registers.take_while(|line| !line.contains("RIP: "));
    let flags = own.find_map(|line| line.split_once("EFLAGS: ")).map(|(_, flags)| flags)?;
    let flags = u32::from_str_radix(flags.split_whitespace().next()?, 16).ok()?;
    (flags & ALWAYS_ZERO != 0 || flags & ALWAYS_SET == 0).then_some(flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// As 6.19 printed it, in short; what stands below are the registers of a process.
    fn crash(selector: &str, flags: &str) -> String {
        format!(
            "[   79.558639] traps: PANIC: double fault, error_code: 0x0\n\
             [   79.565873] Oops: double fault: 0000 [#1] SMP NOPTI\n\
             [   79.567041] RIP: {selector}:__kmalloc_cache_node_noprof+0x363/0x5c0\n\
             [   79.567856] Code: cb 0f 84 c7 fd ff ff\n\
             [   79.568075] RSP: 0018:ffffc90000657d90 EFLAGS: {flags}\n\
             [   79.568611] RAX: ffff888005564400 RBX: ffff888005564200\n\
             [   79.578664] RIP: 0033:0x7ff8e64296b7\n\
             [   79.579018] RSP: 002b:00007ff8e5bffa18 EFLAGS: ffffffff ORIG_RAX: 0000000000000070\n"
        )
    }

    #[rstest]
    #[case::seen("05564a02", Some(0x0556_4a02))]
    #[case::bit_3("0000000a", Some(0xa))]
    #[case::bit_5("00000022", Some(0x22))]
    #[case::bit_15("00008002", Some(0x8002))]
    #[case::bit_22("00400002", Some(0x0040_0002))]
    #[case::bit_31("80000002", Some(0x8000_0002))]
    #[case::bit_1_is_missing("00000244", Some(0x244))]
    #[case::usual("00010246", None)]
    #[case::all_that_there_are("003f7fd7", None)]
    #[case::no_number("0001024g", None)]
    fn flags_that_no_processor_has_are_told(#[case] flags: &str, #[case] impossible: Option<u32>) {
        assert_eq!(impossible_flags(&crash("0010", flags)), impossible);
    }

    #[test]
    fn a_process_s_registers_prove_nothing() {
        assert_eq!(impossible_flags(&crash("0033", "05564a02")), None);
        // Nor do they where the kernel's own are not there.
        let whole = crash("0010", "05564a02");
        let cut: Vec<&str> = whole.lines().filter(|line| !line.contains("RSP: 0018:")).collect();
        assert_eq!(impossible_flags(&cut.join("\n")), None);
    }

    #[test]
    fn what_stands_above_the_alarm_or_without_one_proves_nothing() {
        let (before, flags) = (crash("0010", "05564a02"), crash("0010", "00010246"));
        let without = before.lines().skip(2).collect::<Vec<_>>().join("\n");
        assert_eq!(impossible_flags(&without), None);
        assert_eq!(impossible_flags(&format!("{without}\n{flags}")), None);
        assert_eq!(impossible_flags("[ 1.0] BUG: kernel NULL pointer dereference\n[ 1.0] RIP: 0010:f"), None);
    }
}
