//! Kfuncs about strings. They take any address and read it safely, so there is little to misuse.

use super::row::{Row, kfunc};
use crate::insn::Reg;
use crate::lsm::CTX;

const HELPERS: &str = "kernel/bpf/helpers.c";

/// An argument after the string.
#[derive(Clone, Copy)]
enum Rest {
    /// None.
    None,
    /// A string.
    Text(&'static str),
    /// A number.
    Number(i32),
    /// A string and a number.
    TextNumber(&'static str, i32),
    /// Two numbers.
    Numbers(i32, i32),
}

/// Kfunc, version, first string, the rest, result.
type Line = (&'static str, &'static str, &'static str, Rest, i64);

const A: i32 = b'a' as i32;

const LINES: &[Line] = &[
    ("bpf_strlen", "7.2", "banana", Rest::None, 6),
    ("bpf_strnlen", "7.2", "banana", Rest::Number(4), 4),
    ("bpf_strcmp", "7.2", "banana", Rest::Text("banane"), -1),
    ("bpf_strcasecmp", "7.2", "banana", Rest::Text("BANANA"), 0),
    ("bpf_strncasecmp", "7.2", "banana", Rest::TextNumber("BANANE", 5), 0),
    ("bpf_strchr", "7.2", "banana", Rest::Number(A), 1),
    ("bpf_strchrnul", "7.2", "banana", Rest::Number('x' as i32), 6),
    ("bpf_strnchr", "7.2", "banana", Rest::Numbers(4, 'n' as i32), 2),
    ("bpf_strrchr", "7.2", "banana", Rest::Number(A), 5),
    ("bpf_strspn", "7.2", "banana", Rest::Text("ab"), 2),
    ("bpf_strcspn", "7.2", "banana", Rest::Text("n"), 2),
    ("bpf_strstr", "7.2", "banana", Rest::Text("nan"), 2),
    ("bpf_strcasestr", "7.2", "banana", Rest::Text("NAN"), 2),
    ("bpf_strnstr", "7.2", "banana", Rest::TextNumber("nan", 5), 2),
    ("bpf_strncasestr", "7.2", "banana", Rest::TextNumber("NAN", 5), 2),
];

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    LINES.iter().map(|&line| row(line)).collect()
}

fn row((name, version, text, rest, result): Line) -> Row {
    let row = kfunc(name, version, HELPERS)
        .takes(move |b| {
            b.text(Reg::R1, text);
            match rest {
                Rest::None => {}
                Rest::Text(second) => b.text(Reg::R2, second),
                Rest::Number(number) => {
                    b.mov_imm(Reg::R2, number);
                }
                Rest::TextNumber(second, number) => {
                    b.text(Reg::R2, second);
                    b.mov_imm(Reg::R3, number);
                }
                Rest::Numbers(first, second) => {
                    b.mov_imm(Reg::R2, first).mov_imm(Reg::R3, second);
                }
            }
        })
        .gives(result)
        .minus_one_is_a_number()
        .also("null", -i64::from(libc::ERANGE), |b| {
            b.mov_imm(Reg::R1, 0);
        });
    match rest {
        Rest::Number(_) | Rest::Numbers(..) => row.spoilt("misuse-pointer-for-number", |b| {
            b.mov_reg(Reg::R2, CTX);
        }),
        Rest::TextNumber(..) => row.spoilt("misuse-pointer-for-number", |b| {
            b.mov_reg(Reg::R3, CTX);
        }),
        Rest::None | Rest::Text(_) => row,
    }
}
