//! Kfuncs that make a dynptr of a file (6.19).

use super::body::{BUFFER, Body, OUT};
use super::dynptr::{as_outcome, written_to};
use super::row::{OPENED, Row, kfunc};
use crate::errno::Errno;
use crate::helper;
use crate::insn::Reg;
use crate::results::Results;
use crate::session::{Attempt, Ended};
use crate::spec::source;
use crate::triggers::cached;
use std::fs::File;
use std::os::fd::AsRawFd;

const HELPERS: &str = "kernel/bpf/helpers.c";
/// Where the dynptr of a program is on its stack.
const DYNPTR: i32 = -16;

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![from_file_misused(from_file(of_file())), where_it_is_open(), file_discard()]
}

fn of_file() -> Row {
    kfunc("bpf_dynptr_from_file", "7.3", HELPERS)
}

/// What the file that is opened holds.
const CONTENT: &str = "what the file holds";

/// A file with [`CONTENT`].
fn given_content(_: &mut Results) -> Result<(), Ended> {
    std::fs::write(OPENED, CONTENT).map_err(|error| Ended::could_not("write a file", error))
}

/// File, no flags, place of the dynptr.
fn file_arguments(b: &mut Body<'_>) {
    b.context_argument(Reg::R1, 0);
    b.mov_imm(Reg::R2, 0);
    b.stack_address(Reg::R3, DYNPTR);
}

/// Reads the file through the dynptr.
fn read_file(b: &mut Body<'_>) {
    b.page_address(Reg::R1, BUFFER);
    b.mov_imm(Reg::R2, 19);
    b.stack_address(Reg::R3, DYNPTR);
    b.mov_imm(Reg::R4, 0).mov_imm(Reg::R5, 0).call(helper::DYNPTR_READ);
    b.leave(0, Reg::R0);
}

fn discard(b: &mut Body<'_>) {
    b.stack_address(Reg::R1, DYNPTR);
    b.kfunc("bpf_dynptr_file_discard");
}

fn content_is_there(attempt: &mut Attempt<'_>, results: &Results) {
    attempt.same("content", results.bytes(BUFFER, CONTENT.len()), CONTENT.as_bytes().to_vec());
}

/// `FIONREAD` on the file.
fn ask_for_a_size() -> Result<(), Errno> {
    let file = File::open(OPENED)?;
    let mut size = 0;
    // SAFETY: the request writes the number that it is given.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::FIONREAD, &raw mut size) }).map(drop)
}

/// A program that may sleep is given another kind of reader, which waits for what is not in memory.
fn from_file(row: Row) -> Row {
    reads_file(row).both().given(given_content)
}

/// A program that reads what the file holds.
fn reads_file(row: Row) -> Row {
    row.takes(file_arguments)
        .gives(0)
        .then(read_file)
        .finally(discard)
        .checks(|attempt, results| {
            let read = results.get(OUT);
            attempt.outcome("read", &as_outcome(read));
            if read == 0 {
                content_is_there(attempt, results);
            }
        })
        .cites(source("7.3", "kernel/bpf/helpers.c", "make_file_dynptr"))
}

/// A program that reads a file on a disk; `act` has seen to it that its content is in memory, or that it is not.
fn on_a_disk(act: fn() -> Result<(), Errno>) -> Row {
    let row = of_file().on("file_ioctl", act).given(|_| {
        cached::make_file(CONTENT.as_bytes())
            .map_err(|errno| Ended::could_not("make a file on a disk", errno))
    });
    reads_file(row)
        .checks(|attempt, _| match cached::is_in_memory() {
            Ok(in_memory) => {
                attempt.see("in memory afterwards", if in_memory { "yes" } else { "no" });
            }
            Err(_) => attempt.see("in memory afterwards", "user space could not find out"),
        })
        .cites(source("7.3", "lib/buildid.c", "freader_get_folio"))
}

/// A file can be read once it is open, which it is not yet where it is opened (7.1 fs/open.c, do_dentry_open). What is not
/// in memory a program that does not sleep cannot have read.
fn where_it_is_open() -> Row {
    from_file(of_file().variant("-where-the-file-is-open"))
        .on("file_ioctl", ask_for_a_size)
        .other("canonical-on-a-disk-in-memory", on_a_disk(cached::ask_when_in_memory))
        .other("canonical-on-a-disk-not-in-memory", on_a_disk(cached::ask_when_not_in_memory))
        .other(
            "canonical-sleepable-on-a-disk-not-in-memory",
            on_a_disk(cached::ask_when_not_in_memory).sleepable(),
        )
}

fn from_file_misused(row: Row) -> Row {
    let written = of_file().given(given_content).takes(file_arguments);
    row.other("canonical-written-to", written_to(written, DYNPTR).finally(discard))
        .not_null(Reg::R1)
        .not_untrusted(Reg::R1, "file")
        .wrong("misuse-not-discarded", |b| {
            file_arguments(b);
            b.kfunc("bpf_dynptr_from_file");
        })
}

fn file_discard() -> Row {
    kfunc("bpf_dynptr_file_discard", "7.3", HELPERS)
        .given(given_content)
        .takes(|b| {
            file_arguments(b);
            b.kfunc("bpf_dynptr_from_file");
            read_file(b);
            b.stack_address(Reg::R1, DYNPTR);
        })
        .gives(0)
        .checks(content_is_there)
        .effect_not_looked_at()
        .wrong("misuse-discarded-twice", |b| {
            file_arguments(b);
            b.kfunc("bpf_dynptr_from_file");
            discard(b);
            discard(b);
        })
        .wrong("misuse-read-afterwards", |b| {
            file_arguments(b);
            b.kfunc("bpf_dynptr_from_file");
            discard(b);
            read_file(b);
        })
        .wrong("misuse-of-other-memory", |b| {
            b.dynptr(DYNPTR, BUFFER, 64);
            discard(b);
        })
}
