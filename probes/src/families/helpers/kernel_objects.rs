//! Helpers about the hook's own arguments: a file's path and hash, a program that is executed, and about the call of
//! the hook itself.

use super::bench::{
    Bench, FILE, SLEEPS_EVERYWHERE, argument, keep, open_file, page, preset, slot, stack, write_file,
};
use super::call::Arg::{Argument, Context, Inode, MovedContext, Number, Page, Stack};
use super::{Kind, Row, canonical, case, exec, misuse, sleepable, slow_misuse};
use crate::asm::Asm;
use crate::bpf::{self, BPF_LSM_MAC, LinkSpec};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::CTX;
use crate::record::Phase;
use crate::results::Results;
use crate::session::Ended;
use crate::spec::{Probe, Source, source};
use crate::triggers::Arm;
use crate::triggers::exec::write_leaver;
use std::ffi::CStr;
use std::fs::{self, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};

const LSM: Source = source("6.0", "kernel/bpf/bpf_lsm.c", "bpf_lsm_func_proto");
const TRACING: Source = source("6.0", "kernel/trace/bpf_trace.c", "tracing_prog_func_proto");
const CALL: Source = source("6.14", "kernel/bpf/verifier.c", "check_helper_call");
const CHANGED: Source = source("6.1", "security/integrity/ima/ima_main.c", "ima_check_last_writer");

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::IMA_INODE_HASH,
        asks: "give the hash that IMA has measured of a file, in programs that may sleep",
        sources: &[
            LSM,
            CALL,
            source("6.14", "security/integrity/ima/ima_main.c", "__ima_inode_hash"),
            CHANGED,
        ],
        cases: &[
            canonical(|bench| ima(bench, true)),
            sleepable(|bench| ima(bench, true)),
            super::Case { name: "not-measured", ..sleepable(|bench| ima(bench, false)) },
            super::Case { name: "changed-since-measured", ..sleepable(ima_of_changed) },
            slow_misuse("misuse-number-for-inode", |bench| bench.call(&[Number(4096), Page, Number(64)])),
            slow_misuse("misuse-file-for-inode", |bench| bench.call(&[Argument(0), Page, Number(64)])),
            slow_misuse("misuse-size-beyond-the-stack", |bench| bench.call(&[Inode, Stack(16), Number(64)])),
        ],
    },
    Row {
        helper: helper::IMA_FILE_HASH,
        asks: "give the hash of a file, measured or not, in programs that may sleep",
        sources: &[
            LSM,
            CALL,
            source("6.14", "security/integrity/ima/ima_main.c", "__ima_inode_hash"),
            CHANGED,
        ],
        cases: &[
            canonical(|bench| ima(bench, true)),
            sleepable(|bench| ima(bench, true)),
            super::Case { name: "not-measured", ..sleepable(|bench| ima(bench, false)) },
            super::Case { name: "while-it-is-opened", ..sleepable(file_hash_while_opened) },
            super::Case { name: "changed-since-measured", ..sleepable(ima_of_changed) },
            slow_misuse("misuse-number-for-file", |bench| bench.call(&[Number(4096), Page, Number(64)])),
            slow_misuse("misuse-inode-for-file", |bench| bench.call(&[Inode, Page, Number(64)])),
            slow_misuse("misuse-size-beyond-the-stack", |bench| {
                bench.call(&[Argument(0), Stack(16), Number(64)])
            }),
        ],
    },
    Row {
        helper: helper::BPRM_OPTS_SET,
        asks: "make the kernel tell an executed program that it runs securely (AT_SECURE)",
        sources: &[
            LSM,
            source("6.0", "kernel/bpf/bpf_lsm.c", "bpf_bprm_opts_set"),
            source("6.0", "security/commoncap.c", "cap_bprm_creds_from_file"),
        ],
        cases: &[
            canonical(|bench| bprm_opts(bench, EXEC, exec::PROGRAM, 1)),
            // Of a program that runs securely by itself, which the kernel finds out between the two hooks.
            case("no-option", |bench| no_option(bench, EXEC)),
            case("no-option-on-bprm_creds_from_file", |bench| no_option(bench, "bprm_creds_from_file")),
            case("unknown-option", |bench| bprm_opts(bench, EXEC, exec::PROGRAM, 2)),
            misuse("misuse-number-for-bprm", |bench| {
                let helper = bench.helper();
                bench.load_on(EXEC, |asm| {
                    asm.mov_imm(Reg::R1, 4096).mov_imm(Reg::R2, 1).call(helper);
                })
            }),
            misuse("misuse-file-for-bprm", |bench| bench.call(&[Argument(0), Number(1)])),
        ],
    },
    Row {
        helper: helper::GET_ATTACH_COOKIE,
        asks: "give the cookie of the program's link",
        sources: &[LSM, source("6.0", "kernel/bpf/syscall.c", "bpf_tracing_prog_attach")],
        cases: &[
            canonical(|bench| {
                const COOKIE: u64 = 0x0123_4567_89ab_cdef;
                let found = attach_cookie(bench, COOKIE)?;
                bench.attempt.same("the cookie", found, COOKIE);
                Ok(())
            }),
            case("without-a-cookie", |bench| {
                let found = attach_cookie(bench, 0)?;
                bench.attempt.see("the cookie", found);
                Ok(())
            }),
            misuse("misuse-number-for-context", |bench| bench.call(&[Number(4096)])),
            misuse("misuse-context-moved", |bench| bench.call(&[MovedContext])),
        ],
    },
    Row {
        helper: helper::GET_FUNC_ARG_CNT,
        asks: "give the number of the hook's arguments",
        sources: &[TRACING],
        cases: &[
            canonical(|bench| {
                let helper = bench.helper();
                let results = bench.open(|asm| {
                    asm.mov_reg(Reg::R1, CTX).call(helper);
                    keep(asm, 0, Reg::R0);
                })?;
                bench.attempt.see("arguments of file_open", results.get(slot(0)));
                Ok(())
            }),
            misuse("misuse-number-for-context", |bench| bench.call(&[Number(4096)])),
            misuse("misuse-context-moved", |bench| bench.call(&[MovedContext])),
        ],
    },
    Row {
        helper: helper::GET_FUNC_ARG,
        asks: "give an argument of the hook by its number",
        sources: &[TRACING],
        cases: &[
            canonical(func_arg),
            misuse("misuse-number-for-context", |bench| bench.call(&[Number(4096), Number(0), Stack(8)])),
            misuse("misuse-size-beyond-the-stack", |bench| bench.call(&[Context, Number(0), Stack(4)])),
            misuse("misuse-number-for-destination", |bench| bench.call(&[Context, Number(0), Number(4096)])),
        ],
    },
    Row {
        helper: helper::GET_FUNC_RET,
        // A program that does not return 0 ends the call (7.1 arch/x86/net/bpf_jit_comp.c, invoke_bpf_mod_ret), so that
        // no other number is to be found.
        asks: "give what an int hook returns so far, 0 in every program that runs, and on a void hook what a register held",
        sources: &[
            TRACING,
            source("7.1", "kernel/trace/bpf_trace.c", "get_func_ret"),
            source("7.1", "kernel/bpf/fixups.c", "bpf_do_misc_fixups"),
        ],
        cases: &[
            canonical(func_ret),
            case("on-a-void-hook", func_ret_of_nothing),
            misuse("misuse-number-for-context", |bench| bench.call(&[Number(4096), Stack(8)])),
            misuse("misuse-size-beyond-the-stack", |bench| bench.call(&[Context, Stack(4)])),
            misuse("misuse-number-for-destination", |bench| bench.call(&[Context, Number(4096)])),
        ],
    },
    Row {
        helper: helper::GET_FUNC_IP,
        asks: "give the address of the hook's function",
        sources: &[
            source("6.0", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto"),
            source("6.0", "kernel/bpf/verifier.c", "check_get_func_ip"),
        ],
        cases: &[canonical(func_ip)],
    },
];

/// A hook for files that are open.
const OPEN: &str = "file_ioctl";
/// The first of the hooks of execve(2) that has the program's file.
const EXEC: &str = "bprm_creds_for_exec";

/// The owner whose files the policy measures; nobody else has it.
const MEASURED_OWNER: u32 = 7777;
/// Digests of [`CONTENT`](super::bench::CONTENT) by the number of the algorithm in `enum hash_algo` (include/uapi/linux/hash_info.h).
const DIGESTS: &[(u64, &str)] = &[
    (2, "7fe70820e08a1aac0ef224d9c66ab66831cc4ab1"),
    (4, "434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53"),
];

/// What a file holds afterwards that is changed, and its digests.
const OTHER_CONTENT: &str = "other content\n";
const OTHER_DIGESTS: &[(u64, &str)] = &[
    (2, "19cefb54e55cf1f0e03941b38f5e619d978fde03"),
    (4, "c9c35465c79d12978ce82af86aa8652840acdc22c8b5bcd7d828a855a55dbd57"),
];

/// Tells IMA to measure files of that owner. A kernel may take a policy only once; what an earlier probe has loaded
/// stays, and is the same.
fn measure(bench: &Bench<'_, '_>) -> Result<(), Ended> {
    let facts = bench.attempt.kernel().facts();
    if !facts.lsm.split(',').any(|lsm| lsm == "ima") && !facts.cmdline.contains("integrity") {
        let why = "neither ima nor integrity is among the LSMs, and the kernel may panic when it measures";
        return Err(Ended::CouldNotTell(why.into()));
    }
    let path = "/sys/kernel/security/ima/policy";
    let rule = format!("measure func=FILE_CHECK mask=MAY_READ fowner={MEASURED_OWNER}\n");
    if fs::metadata("/sys/kernel/security/ima").is_err() {
        return Err(Ended::Absent("IMA".into()));
    }
    let _first_time = fs::write(path, rule);
    Ok(())
}

/// Makes [`FILE`] anew, as one that IMA measures when it is opened for reading, or as one that it does not: what IMA
/// knows of an inode outlives the case.
fn make_file(bench: &Bench<'_, '_>, with_measurement: bool) -> Result<(), Ended> {
    let _old = fs::remove_file(FILE);
    write_file()?;
    if with_measurement {
        measure(bench)?;
        chown(FILE, Some(MEASURED_OWNER), None)
            .map_err(|error| Ended::could_not("give the file away", error))?;
    }
    Ok(())
}

/// Asks for the hash of the hook's file, or of its inode: the result is in the first slot, the hash behind it.
fn ask_for_hash(asm: &mut Asm, helper: u32, inode: u32) {
    argument(asm, Reg::R1, 0);
    if helper == helper::IMA_INODE_HASH {
        asm.ldx(Size::DW, Reg::R1, Reg::R1, inode);
    }
    page(asm, Reg::R2, 1);
    asm.mov_imm(Reg::R3, 64).call(helper);
    keep(asm, 0, Reg::R0);
}

/// The hash that [`ask_for_hash`] has found and the one of `digests`, where the result is the number of an algorithm.
fn found_hash(results: &Results, digests: &[(u64, &'static str)]) -> Option<(String, &'static str)> {
    let &(_, digest) = digests.iter().find(|&&(algorithm, _)| algorithm == results.get(slot(0)))?;
    let bytes = results.bytes(slot(1), digest.len() / 2);
    Some((bytes.iter().map(|byte| format!("{byte:02x}")).collect(), digest))
}

/// Asks for the hash of a file with known content, which IMA has measured before or has not.
///
/// The hook is that of ioctl(2), because a file that is only being opened cannot be read yet.
fn ima(bench: &mut Bench<'_, '_>, with_measurement: bool) -> Result<(), Ended> {
    let helper = bench.helper();
    let inode = bench.offset("file", "f_inode")?;
    make_file(bench, with_measurement)?;
    let (results, done) = bench.run(OPEN, open_and_ask, |asm| ask_for_hash(asm, helper, inode))?;
    done.map_err(|errno| Ended::could_not("open the file", errno))?;
    bench.returned("returned", results.get(slot(0)));
    if let Some((found, digest)) = found_hash(&results, DIGESTS) {
        bench.attempt.same("the hash", found.as_str(), digest);
    }
    Ok(())
}

/// Asks for the hash of a file that IMA has measured, then once its content is another, and again when it has been opened
/// for reading, and thereby measured, anew. It is through one descriptor that is asked, open for reading all the while.
///
/// Who closes a file that he has written to takes from it that its hash is known, and leaves the hash
/// (`ima_check_last_writer`).
fn ima_of_changed(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let inode = bench.offset("file", "f_inode")?;
    make_file(bench, true)?;
    let mut results = bench.attach_for(OPEN, |asm| ask_for_hash(asm, helper, inode))?;
    let could_not = |error: std::io::Error| Ended::could_not("open or write the file", error);
    let file = fs::File::open(FILE).map_err(could_not)?;
    note_hash(bench, &mut results, &file, "as measured")?;
    fs::write(FILE, OTHER_CONTENT).map_err(could_not)?;
    note_hash(bench, &mut results, &file, "changed since")?;
    drop(fs::File::open(FILE).map_err(could_not)?);
    note_hash(bench, &mut results, &file, "opened for reading since")?;
    bench.attempt.runs(results.runs());
    Ok(())
}

/// Has the program ask for the hash of a file, and notes whose it is.
fn note_hash(
    bench: &mut Bench<'_, '_>,
    results: &mut Results,
    file: &fs::File,
    when: &str,
) -> Result<(), Ended> {
    results.set(slot(0), u64::MAX);
    results.set_bytes(slot(1), &[0; 64]);
    let asked = bench.attempt.trigger(|| Arm::new(results).during(|| set_close_on_exec(file)));
    asked.map_err(|errno| Ended::could_not("do an ioctl", errno))?;
    let is = |digests| found_hash(results, digests).map(|(found, digest)| found == digest);
    let key = format!("{when}: gives");
    match (is(DIGESTS), is(OTHER_DIGESTS)) {
        (Some(true), _) => bench.attempt.see(&key, "the hash of what was measured first"),
        (_, Some(true)) => bench.attempt.see(&key, "the hash of what is in the file now"),
        (None, None) => bench.returned(&key, results.get(slot(0))),
        (Some(false) | None, Some(false) | None) => bench.attempt.see(&key, "ANOTHER hash"),
    }
    Ok(())
}

/// The probe about IMA where `lsm=` names neither it nor `integrity`, and nobody has given it a policy.
pub(super) fn probe_without_ima() -> Probe {
    let question = "What do bpf_ima_inode_hash and bpf_ima_file_hash give where lsm= names neither ima nor integrity and IMA \
                    has no policy?";
    let sources = [
        source("6.0", "security/integrity/ima/ima_main.c", "__ima_inode_hash"),
        source("7.1", "security/integrity/ima/ima_main.c", "__ima_inode_hash"),
    ];
    let helpers = [helper::IMA_INODE_HASH, helper::IMA_FILE_HASH];
    Probe::new("helpers/ima-not-among-the-lsms", question, &sources, move |session| {
        helpers.into_iter().try_for_each(|number| {
            session.case(&format!("bpf_{}", helper::name(number).unwrap_or("unknown")), |attempt| {
                let mut bench = Bench::new(attempt, number, Kind::Sleepable);
                if bench.known()? { ima(&mut bench, false) } else { bench.bare_call() }
            })
        })
    })
    .with_lsm(super::WITHOUT_OTHERS)
}

/// Opens the file, which makes IMA measure it if it is to, and then does something with it.
fn open_and_ask(arm: Arm) -> Result<(), Errno> {
    let file = fs::File::open(FILE)?;
    arm.during(|| set_close_on_exec(&file))
}

/// An ioctl(2) that every file has.
fn set_close_on_exec(file: &fs::File) -> Result<(), Errno> {
    // SAFETY: FIOCLEX has no argument.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::FIOCLEX) };
    Errno::result(result).map(drop)
}

/// Asks for the hash of a file that cannot be read yet.
fn file_hash_while_opened(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let results = bench.open(|asm| {
        argument(asm, Reg::R1, 0);
        page(asm, Reg::R2, 1);
        asm.mov_imm(Reg::R3, 64).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    bench.returned("returned", results.get(slot(0)));
    Ok(())
}

/// A program that another user owns and that is executed as that user.
const SET_USER_ID: &CStr = c"/tmp/set-user-id";

/// Sets no option, for a program that runs securely by itself.
fn no_option(bench: &mut Bench<'_, '_>, hook: &str) -> Result<(), Ended> {
    const PATH: &str = "/tmp/set-user-id";
    let why = |error: std::io::Error| Ended::could_not("make a set-user-ID program", error);
    write_leaver(PATH).map_err(|errno| Ended::could_not("write a program", errno))?;
    chown(PATH, Some(MEASURED_OWNER), None).map_err(why)?;
    fs::set_permissions(PATH, Permissions::from_mode(0o4755)).map_err(why)?;
    bprm_opts(bench, hook, SET_USER_ID, 0)
}

fn bprm_opts(bench: &mut Bench<'_, '_>, hook: &str, program: &CStr, options: i32) -> Result<(), Ended> {
    let helper = bench.helper();
    let control = exec::at_secure_of(program, Arm::idle())
        .map_err(|errno| Ended::could_not("execute a program", errno))?;
    let (results, secure) = bench.run(
        hook,
        |arm| exec::at_secure_of(program, arm),
        |asm| {
            argument(asm, Reg::R1, 0);
            asm.mov_imm(Reg::R2, options).call(helper);
            keep(asm, 0, Reg::R0);
        },
    )?;
    let secure = secure.map_err(|errno| Ended::could_not("execute a program", errno))?;
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.see("AT_SECURE without the program", control);
    bench.attempt.see("AT_SECURE", secure);
    Ok(())
}

/// What the helper gives in a program whose own link has this cookie, 0 for none.
fn attach_cookie(bench: &mut Bench<'_, '_>, cookie: u64) -> Result<u64, Ended> {
    let helper = bench.helper();
    write_file()?;
    let (results, program) = bench.load_for("file_open", |asm| {
        preset(asm, 0);
        asm.mov_reg(Reg::R1, CTX).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    bench.attempt.at(Phase::Attach);
    let spec = LinkSpec { attach_type: BPF_LSM_MAC, cookie, ..LinkSpec::default() };
    std::mem::forget(bpf::link_create(&program, &spec).map_err(Ended::Refused)?); // as every program of a bench
    let _opened = bench.attempt.trigger(|| open_file(Arm::new(&results)));
    bench.attempt.runs(results.runs());
    Ok(results.get(slot(0)))
}

/// The first argument, and one that the hook does not have.
fn func_arg(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let results = bench.open(|asm| {
        for index in 0..2 {
            asm.st_imm(Size::DW, Reg::R10, -8, 0);
            stack(asm, Reg::R3, -8);
            asm.mov_reg(Reg::R1, CTX).mov_imm(Reg::R2, index).call(helper);
            keep(asm, 2 * index, Reg::R0);
            asm.ldx(Size::DW, Reg::R1, Reg::R10, -8);
            keep(asm, 2 * index + 1, Reg::R1);
        }
        argument(asm, Reg::R1, 0);
        keep(asm, 4, Reg::R1);
    })?;
    bench.returned("returned for the first", results.get(slot(0)));
    bench.attempt.holds("the first is that of the context", results.get(slot(1)) == results.get(slot(4)));
    bench.returned("returned for one that there is not", results.get(slot(2)));
    Ok(())
}

/// Of a hook that returns nothing: the place of the return value is written by the trampoline all the same, with what
/// the register for it holds after the call (7.1 arch/x86/net/bpf_jit_comp.c, `__arch_prepare_bpf_trampoline`).
fn func_ret_of_nothing(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    const BEFORE: u64 = 0x0123_4567_89ab_cdef;
    let helper = bench.helper();
    let (results, executed) = bench.run(SLEEPS_EVERYWHERE, exec::at_secure, |asm| {
        asm.ld_imm64(Reg::R1, BEFORE).stx(Size::DW, Reg::R10, -8, Reg::R1);
        stack(asm, Reg::R2, -8);
        preset(asm, 0);
        asm.mov_reg(Reg::R1, CTX).call(helper);
        keep(asm, 0, Reg::R0);
        asm.ldx(Size::DW, Reg::R1, Reg::R10, -8);
        keep(asm, 1, Reg::R1);
    })?;
    executed.map_err(|errno| Ended::could_not("execute a program", errno))?;
    bench.returned("returned", results.get(slot(0)));
    let kept = results.get(slot(1)) == BEFORE;
    bench.attempt.see("the memory for the value", if kept { "as it was" } else { "overwritten" });
    Ok(())
}

/// The same as the context's `ret`, over a number that the call is to overwrite.
fn func_ret(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let results = bench.open(|asm| {
        asm.st_imm(Size::DW, Reg::R10, -8, 7);
        stack(asm, Reg::R2, -8);
        asm.mov_reg(Reg::R1, CTX).call(helper);
        keep(asm, 0, Reg::R0);
        asm.ldx(Size::DW, Reg::R1, Reg::R10, -8);
        keep(asm, 1, Reg::R1);
        argument(asm, Reg::R1, 1);
        keep(asm, 2, Reg::R1);
    })?;
    bench.returned("returned", results.get(slot(0)));
    bench.returned("gave", results.get(slot(1)));
    bench.returned("the context's ret", results.get(slot(2)));
    Ok(())
}

fn func_ip(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let results = bench.open(|asm| {
        asm.mov_reg(Reg::R1, CTX).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    let symbols = fs::read_to_string("/proc/kallsyms")
        .map_err(|error| Ended::could_not("read the kernel's symbols", error))?;
    let line = symbols.lines().find(|line| line.ends_with(" bpf_lsm_file_open"));
    let address = line.and_then(|line| u64::from_str_radix(line.split(' ').next()?, 16).ok());
    bench.attempt.same("the address of bpf_lsm_file_open", Some(results.get(slot(0))), address);
    Ok(())
}
