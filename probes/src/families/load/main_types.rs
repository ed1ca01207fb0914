//! What the verifier says of the types that a program's own BTF gives its main function, and that refuses nothing.
//!
//! Of the main function it compares its BTF with the context only to know whether that BTF can be relied on: a difference is
//! "sadly acceptable for main()" (6.1 kernel/bpf/verifier.c, `do_check_common`), and says its line all the same. What is said of
//! a function that is accepted is thrown away unless level 2 was asked for (there: `pop_log`; 5.7 keeps it). So who reads such a
//! line at level 1 reads it before the reason of a refusal for something else, and takes it for the reason.

use super::shape::{INT, returns};
use crate::asm::Asm;
use crate::bpf::{self, FuncInfo, ProgSpec, btf_load};
use crate::btf_build::{BtfBuilder, Linkage, SIGNED, UNSIGNED};
use crate::rules::insns;
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::AsRawFd;

/// Describes the type of the main function and gives its id.
type Proto = fn(&mut BtfBuilder) -> u32;

/// The first is what the macro `BPF_PROG` makes of any LSM program.
const MAINS: &[(&str, Proto)] = &[
    ("a-pointer-to-unsigned-long-long", |types| {
        let int = int(types);
        let word = types.int("unsigned long long", 8, UNSIGNED);
        let context = types.ptr(word);
        types.func_proto(int, &[("ctx", context)])
    }),
    ("a-pointer-to-void", |types| {
        let int = int(types);
        let context = types.ptr(0);
        types.func_proto(int, &[("ctx", context)])
    }),
    ("a-pointer-to-an-unrelated-structure", |types| {
        let int = int(types);
        let other = types.structure("other", 4, &[("number", int, 0)]);
        let context = types.ptr(other);
        types.func_proto(int, &[("ctx", context)])
    }),
    ("a-pointer-to-void-and-an-int", |types| {
        let int = int(types);
        let context = types.ptr(0);
        types.func_proto(int, &[("ctx", context), ("number", int)])
    }),
    ("an-int", |types| {
        let int = int(types);
        types.func_proto(int, &[("number", int)])
    }),
    ("six-ints", |types| {
        let int = int(types);
        types.func_proto(int, &["a", "b", "c", "d", "e", "f"].map(|name| (name, int)))
    }),
    ("an-int-and-nothing-returned", |types| {
        let int = int(types);
        types.func_proto(0, &[("number", int)])
    }),
];

fn int(types: &mut BtfBuilder) -> u32 {
    types.int("int", 4, SIGNED)
}

pub(super) fn told(session: &mut Session<'_>) -> Result<(), Stop> {
    for &(name, proto) in MAINS {
        session.case(name, |attempt| ask(attempt, proto))?;
    }
    Ok(())
}

/// Loads a program with that main function, which is to be accepted, and one that returns nothing, which is refused for that,
/// and notes what else the log says then; and whether it says so, too, of the one that is accepted.
fn ask(attempt: &mut Attempt<'_>, proto: Proto) -> Result<(), Ended> {
    let mut types = BtfBuilder::new();
    let proto = proto(&mut types);
    let main = types.func("main", proto, Linkage::Global);
    let btf = btf_load(&types.finish()).map_err(|error| Ended::could_not("load the program's BTF", error))?;
    let hook = attempt.hook(INT)?;
    let program = |body: fn(&mut Asm)| {
        let mut asm = Asm::new();
        body(&mut asm);
        Ok::<_, Ended>(ProgSpec {
            prog_btf_fd: Some(btf.as_raw_fd()),
            func_info: vec![FuncInfo { insn_off: 0, type_id: main }],
            ..ProgSpec::lsm("main", hook, insns(&asm)?)
        })
    };
    let right = program(|asm| returns(0)(asm))?;
    attempt.load(&right)?;
    // At these levels whatever kind of run it is.
    let mut logs = Vec::new();
    for level in [1, 2] {
        let again = bpf::prog_load_logged(&right, level);
        logs.push((level, again.map_err(|error| Ended::could_not("load it again for its log", error))?.log));
    }
    let unset = program(|asm| {
        asm.exit();
    })?;
    let refused = match bpf::prog_load_logged(&unset, 1) {
        Err(refused) if refused.log.contains("R0 !read_ok") => refused.log,
        Err(refused) => return Err(Ended::could_not("have it refused for R0 unset", refused)),
        Ok(_) => return Err(Ended::could_not("have it refused for R0 unset", "it was accepted")),
    };
    let said = remarks(&refused);
    attempt.see(
        "refused for R0 unset, it says before",
        if said.is_empty() { "nothing".into() } else { said.join("; ") },
    );
    for (level, log) in logs.iter().filter(|_| !said.is_empty()) {
        let count = said.iter().filter(|line| log.lines().any(|other| other.trim() == **line)).count();
        let word = match count {
            0 => "no",
            all if all == said.len() => "yes",
            _ => "IN PART",
        };
        attempt.see(&format!("accepted, it says so too at level {level}"), word);
    }
    Ok(())
}

/// Lines before the first instruction that are said of every program.
const OF_EVERY_PROGRAM: &[&str] = &["func#0 @0", "Live regs before insn:"];

/// What the log of a refusal says before it comes to the first instruction or to the registers there.
fn remarks(log: &str) -> Vec<&str> {
    log.lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("0:"))
        .filter(|line| !line.is_empty() && !OF_EVERY_PROGRAM.iter().any(|text| line.starts_with(text)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_end_where_instructions_begin() {
        let log = "func#0 @0\nR1 is not a scalar\n0: R1=ctx() R10=fp0\n0: (95) exit\nR0 !read_ok\n";
        assert_eq!(remarks(log), ["R1 is not a scalar"]);
        assert!(remarks("0: R1=ctx() R10=fp0\n0: (95) exit\nR0 !read_ok\n").is_empty());
    }
}
