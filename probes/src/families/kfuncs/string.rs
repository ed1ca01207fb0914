//! Kfuncs about strings. They take any address and read it safely, so there is little to misuse.

use super::body::Body;
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

/// A kfunc, the rest of a case's name, what the case passes after the string, and the result.
type Further = (&'static str, &'static str, Rest, i64);

const NOT_THERE: i64 = -(libc::ENOENT as i64);

/// What is asked of a kfunc beyond its one line: strings that differ, either way, and lengths that end a search too early.
const FURTHER: &[Further] = &[
    ("bpf_strcmp", "of-what-comes-first", Rest::Text("apple"), 1),
    ("bpf_strcasecmp", "of-what-comes-last", Rest::Text("BANANE"), -1),
    ("bpf_strcasecmp", "of-what-comes-first", Rest::Text("APPLE"), 1),
    ("bpf_strncasecmp", "longer", Rest::TextNumber("BANANE", 6), -1),
    ("bpf_strnchr", "shorter", Rest::Numbers(2, 'n' as i32), NOT_THERE),
    ("bpf_strnstr", "shorter", Rest::TextNumber("nan", 4), NOT_THERE),
    ("bpf_strncasestr", "shorter", Rest::TextNumber("NAN", 4), NOT_THERE),
];

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    let further = |line: Line| {
        let own = FURTHER.iter().filter(move |(name, ..)| *name == line.0);
        own.fold(row(line), |row, &(_, case, rest, result)| row.also(case, result, move |b| rest.pass(b)))
    };
    LINES.iter().map(|&line| further(line)).collect()
}

impl Rest {
    /// Makes the arguments after the string.
    fn pass(self, b: &mut Body<'_>) {
        match self {
            Self::None => {}
            Self::Text(second) => b.text(Reg::R2, second),
            Self::Number(number) => {
                b.mov_imm(Reg::R2, number);
            }
            Self::TextNumber(second, number) => {
                b.text(Reg::R2, second);
                b.mov_imm(Reg::R3, number);
            }
            Self::Numbers(first, second) => {
                b.mov_imm(Reg::R2, first).mov_imm(Reg::R3, second);
            }
        }
    }
}

fn row((name, version, text, rest, result): Line) -> Row {
    let row = kfunc(name, version, HELPERS)
        .takes(move |b| {
            b.text(Reg::R1, text);
            rest.pass(b);
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
