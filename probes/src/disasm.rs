//! Instructions as text, one line each, the way the kernel's verifier writes them in its log.
//!
//! The wording is that of 6.12 kernel/bpf/disasm.c `print_bpf_insn`, so that a listing can be laid beside a log.
//! It differs in wide loads, which name what they load (`map[5]`), because the log knows types that a listing does
//! not. Nothing is looked up: what is unknown is shown as raw numbers.

use crate::helper;
use crate::insn::{Insn, op};

/// A way to name the function that a call instruction calls, where the number alone does not.
pub type Called<'a> = &'a dyn Fn(&Insn) -> Option<String>;

/// Operators of arithmetic by the upper four bits of the opcode; `None` where the form is another.
const ARITHMETIC: [Option<&str>; 16] = [
    Some("+="),
    Some("-="),
    Some("*="),
    Some("/="),
    Some("|="),
    Some("&="),
    Some("<<="),
    Some(">>="),
    None, // negation
    Some("%="),
    Some("^="),
    Some("="),
    Some("s>>="),
    None, // byte order
    None,
    None,
];

/// Comparisons of jumps by the upper four bits of the opcode; `None` where the form is another.
const COMPARISON: [Option<&str>; 16] = [
    None, // always
    Some("=="),
    Some(">"),
    Some(">="),
    Some("&"),
    Some("!="),
    Some("s>"),
    Some("s>="),
    None, // call
    None, // exit
    Some("<"),
    Some("<="),
    Some("s<"),
    Some("s<="),
    None, // may_goto
    None,
];

/// A whole program, one line per instruction with its index. The second slot of a wide load has no line of its own.
#[must_use]
pub fn text(insns: &[Insn]) -> String {
    text_with(insns, &|_| None)
}

/// As [`text`], asking `called` for the names of functions. In a submitted program the immediate of a call of a kfunc
/// is a BTF id ([`crate::btf::Btf::name`]); in a translated one that of every call into the kernel is the distance
/// from the symbol `__bpf_call_base`.
#[must_use]
pub fn text_with(insns: &[Insn], called: Called<'_>) -> String {
    let mut lines = String::new();
    let mut at = 0;
    while let Some(insn) = insns.get(at) {
        let next = insns.get(at + 1).filter(|_| insn.is_wide());
        lines.push_str(&format!("{at:4}: {}\n", line(insn, next, called)));
        at += if next.is_some() { 2 } else { 1 };
    }
    lines
}

/// One instruction; `next` is the second slot of a wide load.
#[must_use]
pub fn line(insn: &Insn, next: Option<&Insn>, called: Called<'_>) -> String {
    let body = match insn.class() {
        op::ALU | op::ALU64 => arithmetic(insn),
        op::LD => load_wide(insn, next).or_else(|| load_packet(insn)),
        op::LDX => load(insn),
        op::ST => store(insn),
        op::STX => store_register(insn),
        _ => jump(insn, called),
    };
    format!("({:02x}) {}", insn.code, body.unwrap_or_else(|| raw(insn)))
}

/// All fields of an instruction without a better form.
fn raw(insn: &Insn) -> String {
    format!("raw dst={} src={} off={} imm={:#x}", insn.dst(), insn.src(), insn.off, insn.imm)
}

fn arithmetic(insn: &Insn) -> Option<String> {
    let (dst, src, wide) = (insn.dst(), insn.src(), insn.class() == op::ALU64);
    let letter = if wide { 'r' } else { 'w' };
    let register = insn.code & op::X != 0;
    let operation = insn.code & 0xf0;
    match operation {
        op::NEG => return Some(format!("{letter}{dst} = -{letter}{dst}")),
        op::END => {
            let order = if wide {
                "bswap"
            } else if register {
                "be"
            } else {
                "le"
            };
            return Some(format!("r{dst} = {order}{} r{dst}", insn.imm));
        }
        op::MOV if register && wide && insn.off == 1 => {
            let (to, from) = (insn.imm.cast_unsigned() >> 16, insn.imm & 0xffff);
            return Some(format!("r{dst} = addr_space_cast(r{src}, {to}, {from})"));
        }
        op::MOV if register && wide && insn.off == -1 => {
            return Some(format!("r{dst} = &(void __percpu *)(r{src})"));
        }
        _ => {}
    }
    let sign = match (operation, insn.off) {
        (op::DIV | op::MOD, 1) => "s",
        _ => "",
    };
    let cast = match (operation, insn.off) {
        (op::MOV, 8 | 16 | 32) => format!("(s{})", insn.off),
        _ => String::new(),
    };
    let operator = (*ARITHMETIC.get(usize::from(operation >> 4))?)?;
    let right = if register { format!("{cast}{letter}{src}") } else { insn.imm.to_string() };
    Some(format!("{letter}{dst} {sign}{operator} {right}"))
}

fn load_wide(insn: &Insn, next: Option<&Insn>) -> Option<String> {
    let next = next.filter(|_| insn.is_wide())?;
    let (low, high) = (insn.imm, next.imm.cast_unsigned());
    let what = match insn.src() {
        0 => format!("{:#x}", (u64::from(high) << 32) | u64::from(low.cast_unsigned())),
        op::PSEUDO_MAP_FD => format!("map[{low}]"),
        op::PSEUDO_MAP_VALUE => format!("map_value[{low}]+{high}"),
        op::PSEUDO_BTF_ID => format!("btf_id[{low}] of btf[{high}]"),
        op::PSEUDO_FUNC => format!("func pc{low:+}"),
        op::PSEUDO_MAP_IDX => format!("map_idx[{low}]"),
        op::PSEUDO_MAP_IDX_VALUE => format!("map_idx_value[{low}]+{high}"),
        other => format!("pseudo{other}[{low}, {high}]"),
    };
    Some(format!("r{} = {what}", insn.dst()))
}

fn load_packet(insn: &Insn) -> Option<String> {
    let size = size_name(insn, 'u');
    match insn.code & 0xe0 {
        0x20 => Some(format!("r0 = *({size} *)skb[{}]", insn.imm)),
        0x40 => Some(format!("r0 = *({size} *)skb[r{} + {}]", insn.src(), insn.imm)),
        _ => None,
    }
}

fn load(insn: &Insn) -> Option<String> {
    let sign = match insn.code & 0xe0 {
        op::MEM => 'u',
        op::MEMSX => 's',
        _ => return None,
    };
    Some(format!("r{} = *({} *)(r{} {:+})", insn.dst(), size_name(insn, sign), insn.src(), insn.off))
}

fn store(insn: &Insn) -> Option<String> {
    match insn.code & 0xe0 {
        op::MEM => Some(format!("{} = {}", place(insn), insn.imm)),
        op::ATOMIC => Some("nospec".to_owned()),
        _ => None,
    }
}

fn store_register(insn: &Insn) -> Option<String> {
    let (place, src) = (place(insn), insn.src());
    match insn.code & 0xe0 {
        op::MEM => return Some(format!("{place} = r{src}")),
        op::ATOMIC => {}
        _ => return None,
    }
    let width = if insn.code & 0x18 == 0x18 { "64" } else { "" };
    let inner = place.strip_prefix('*').unwrap_or(&place);
    match insn.imm {
        op::XCHG => return Some(format!("r{src} = atomic{width}_xchg({inner}, r{src})")),
        op::CMPXCHG => return Some(format!("r0 = atomic{width}_cmpxchg({inner}, r0, r{src})")),
        op::LOAD_ACQ => {
            let (size, off) = (size_name(insn, 'u'), insn.off);
            return Some(format!("r{} = load_acquire(({size} *)(r{src} {off:+}))", insn.dst()));
        }
        op::STORE_REL => return Some(format!("store_release({inner}, r{src})")),
        _ => {}
    }
    let operation = u8::try_from(insn.imm & !op::FETCH).ok()?;
    let (name, operator) = match operation {
        op::ADD => ("add", "+="),
        op::OR => ("or", "|="),
        op::AND => ("and", "&="),
        op::XOR => ("xor", "^="),
        _ => return None,
    };
    Some(if insn.imm & op::FETCH == 0 {
        format!("lock {place} {operator} r{src}")
    } else {
        format!("r{src} = atomic{width}_fetch_{name}({inner}, r{src})")
    })
}

fn jump(insn: &Insn, called: Called<'_>) -> Option<String> {
    let wide = insn.class() == op::JMP;
    let register = insn.code & op::X != 0;
    match (insn.code & 0xf0, wide) {
        (op::CALL, true) => return Some(call(insn, called)),
        (op::EXIT, true) => return Some("exit".to_owned()),
        (op::JA, true) if register => return Some(format!("gotox r{}", insn.dst())),
        (op::JA, true) => return Some(format!("goto pc{:+}", insn.off)),
        (op::JA, false) => return Some(format!("gotol pc{:+}", insn.imm)),
        (op::JCOND, true) if insn.src() == 0 => return Some(format!("may_goto pc{:+}", insn.off)),
        _ => {}
    }
    let comparison = (*COMPARISON.get(usize::from(insn.code >> 4))?)?;
    let letter = if wide { 'r' } else { 'w' };
    let right = if register { format!("{letter}{}", insn.src()) } else { format!("{:#x}", insn.imm) };
    Some(format!("if {letter}{} {comparison} {right} goto pc{:+}", insn.dst(), insn.off))
}

fn call(insn: &Insn, called: Called<'_>) -> String {
    let number = insn.imm.cast_unsigned();
    match insn.src() {
        0 => match helper::name(number) {
            Some(name) => format!("call bpf_{name}#{number}"),
            None => format!("call {}#{}", called(insn).as_deref().unwrap_or("unknown"), insn.imm),
        },
        op::PSEUDO_CALL => format!("call pc{:+}", insn.imm),
        op::PSEUDO_KFUNC_CALL => {
            let name = called(insn).unwrap_or_else(|| "kernel-function".to_owned());
            format!("call {name}#{number}")
        }
        _ => raw(insn),
    }
}

/// The memory that a store goes to.
fn place(insn: &Insn) -> String {
    format!("*({} *)(r{} {:+})", size_name(insn, 'u'), insn.dst(), insn.off)
}

fn size_name(insn: &Insn, sign: char) -> String {
    let bits = match insn.code & 0x18 {
        0x00 => 32,
        0x08 => 16,
        0x10 => 8,
        _ => 64,
    };
    format!("{sign}{bits}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asm::{Asm, Atomic};
    use crate::insn::Reg::{R0, R1, R2, R6, R10};
    use crate::insn::Size;

    /// The lines of a program without their indexes.
    fn lines(a: &Asm) -> Vec<String> {
        let text = text(&a.finish().unwrap());
        text.lines().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect()
    }

    #[test]
    fn indexes_count_slots() {
        let mut a = Asm::new();
        a.mov_reg(R6, R1).ld_imm64(R1, 0x1_0000_0002).call(helper::GET_CURRENT_PID_TGID).exit();
        assert_eq!(
            text(&a.finish().unwrap()),
            "   0: (bf) r6 = r1\n   1: (18) r1 = 0x100000002\n   3: (85) call bpf_get_current_pid_tgid#14\n   \
             4: (95) exit\n"
        );
    }

    #[test]
    fn arithmetic_and_jumps() {
        let mut a = Asm::new();
        a.add_imm(R1, -3).mov32_reg(R0, R1).neg(R0).sdiv_reg(R0, R1).movsx(R0, R1, 16).to_be(R1, 32);
        a.label("x").jsgt32_imm(R0, 5, "x").jne_reg(R1, R2, "x").ja("x").gotol("x").may_goto("x");
        assert_eq!(
            lines(&a),
            [
                "(07) r1 += -3",
                "(bc) w0 = w1",
                "(87) r0 = -r0",
                "(3f) r0 s/= r1",
                "(bf) r0 = (s16)r1",
                "(dc) r1 = be32 r1",
                "(66) if w0 s> 0x5 goto pc-1",
                "(5d) if r1 != r2 goto pc-2",
                "(05) goto pc-3",
                "(06) gotol pc-4",
                "(e5) may_goto pc-5",
            ]
        );
    }

    #[test]
    fn memory() {
        let mut a = Asm::new();
        a.ldx(Size::DW, R1, R6, 8).ldsx(Size::B, R1, R6, 0).st_imm(Size::W, R10, -4, 0);
        a.stx(Size::H, R10, -8, R2).atomic_add(Size::DW, R1, 0, R2).fetch_add(Size::W, R1, 4, R2);
        a.cmpxchg(Size::DW, R1, 0, R2).atomic(Atomic::Or, Size::W, R1, 0, R2).load_acquire(
            Size::W,
            R0,
            R1,
            0,
        );
        assert_eq!(
            lines(&a),
            [
                "(79) r1 = *(u64 *)(r6 +8)",
                "(91) r1 = *(s8 *)(r6 +0)",
                "(62) *(u32 *)(r10 -4) = 0",
                "(6b) *(u16 *)(r10 -8) = r2",
                "(db) lock *(u64 *)(r1 +0) += r2",
                "(c3) r2 = atomic_fetch_add((u32 *)(r1 +4), r2)",
                "(db) r0 = atomic64_cmpxchg((u64 *)(r1 +0), r0, r2)",
                "(c3) lock *(u32 *)(r1 +0) |= r2",
                "(c3) r0 = load_acquire((u32 *)(r1 +0))",
            ]
        );
    }

    #[test]
    fn calls_and_pseudo_loads() {
        let mut a = Asm::new();
        a.label("f").ld_func(R2, "f").ld_map_idx_value(R1, 3, 16).ld_btf_id(R1, 7, 0).call_kfunc(99, 0);
        a.call_sub("f").call(9999);
        let seen =
            text_with(&a.finish().unwrap(), &|insn| (insn.imm == 99).then(|| "bpf_cast_to_kern_ctx".into()));
        assert_eq!(
            seen.lines().map(|l| l.get(6..).unwrap_or("")).collect::<Vec<_>>(),
            [
                "(18) r2 = func pc-1",
                "(18) r1 = map_idx_value[3]+16",
                "(18) r1 = btf_id[7] of btf[0]",
                "(85) call bpf_cast_to_kern_ctx#99",
                "(85) call pc-8",
                "(85) call unknown#9999",
            ]
        );
    }

    #[test]
    fn every_opcode_has_a_line() {
        for code in 0..=u8::MAX {
            let insn = Insn::new(code, 15, 15, -1, -1);
            assert!(line(&insn, None, &|_| None).len() > 5);
            assert_eq!(text(&[insn]).lines().count(), 1);
        }
        let unknown = Insn::new(0xff, 1, 2, 3, 4);
        assert_eq!(line(&unknown, None, &|_| None), "(ff) raw dst=1 src=2 off=3 imm=0x4");
    }
}
