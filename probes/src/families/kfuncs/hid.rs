//! Kfuncs about HID devices, for which the probe's user space is a device (uhid).
//!
//! They are meant for programs in the path of a device's reports (`CONFIG_HID_BPF`). LSM programs may call what is
//! registered for tracing programs (6.10 kernel/bpf/btf.c, `bpf_prog_type_to_kfunc_hook`), which up to 6.9 is
//! `hid_bpf_get_data` alone, for which such a program gets no argument; on 6.10 all of them; and from 6.11 on none, since
//! they are for struct_ops (`hid_bpf_init` of each version).

use super::body::{BUFFER, Body, IN};
use super::row::{GOT, KEPT, OPENED, Row, kfunc};
use crate::insn::{Reg, Size};
use crate::results::Results;
use crate::session::Ended;
use crate::spec::source;
use crate::triggers::uhid::{self, FEATURE, INPUT_BYTES, OUTPUT_BYTES};
use std::fs::File;

const HID: &str = "drivers/hid/bpf/hid_bpf_dispatch.c";
/// The report that programs send.
const REPORT: [u8; 4] = [1, 2, 3, 4];
const EINVAL: i64 = -(libc::EINVAL as i64);

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![
        allocate(),
        release(),
        get_data(),
        request(),
        output(),
        input("hid_bpf_input_report", "6.10"),
        input("hid_bpf_try_input_report", "6.11").sleepable_for_its_arguments(),
    ]
}

/// Makes the device, and tells the program its number.
fn give_device(results: &mut Results) -> Result<(), Ended> {
    let id = uhid::plug_in().map_err(|errno| Ended::could_not("make a HID device", errno))?;
    results.set(IN, u64::from(id));
    results.set(BUFFER, u64::from(u32::from_le_bytes(REPORT)));
    Ok(())
}

fn row(name: &'static str, version: &'static str) -> Row {
    kfunc(name, version, HID).sleepable().given(give_device)
}

/// `R1 = KEPT = a context of the device`; passes where there is none.
fn first_argument(b: &mut Body<'_>) {
    b.input(Reg::R1, 0);
    b.kfunc("hid_bpf_allocate_context");
    b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0).mov_reg(Reg::R1, KEPT);
}

/// Gives back the context of [`first_argument`].
fn let_go(b: &mut Body<'_>) {
    b.release("hid_bpf_release_context", KEPT);
}

fn allocate() -> Row {
    row("hid_bpf_allocate_context", "6.10")
        .takes(|b| b.input(Reg::R1, 0))
        .owned("hid_bpf_release_context")
        .then(|b| {
            b.mov_reg(Reg::R1, GOT);
            b.follow(Reg::R1, "hid_bpf_ctx", "hid");
            b.follow(Reg::R1, "hid_device", "id");
            b.input(Reg::R2, 0);
            b.sub_reg(Reg::R1, Reg::R2);
            b.leave(0, Reg::R1);
        })
        .leaves("number of its device less the one asked for", 0, || Some(0))
        .spoilt("misuse-pointer-for-number", |b| b.current(Reg::R1))
        .wrong("misuse-written-to", |b| {
            first_argument(b);
            b.st_imm(Size::DW, KEPT, 0, 0);
            let_go(b);
        })
}

/// `reg = how often the device of the context in KEPT is held`.
fn holders(b: &mut Body<'_>, reg: Reg) {
    b.mov_reg(reg, KEPT);
    b.follow(reg, "hid_bpf_ctx", "hid");
    b.follow(reg, "hid_device", "dev.kobj.kref.refcount.refs.counter");
}

/// Each context holds the device: the count goes up by one, and down again.
fn release() -> Row {
    row("hid_bpf_release_context", "6.10")
        .releases()
        .takes(|b| {
            first_argument(b);
            holders(b, Reg::R1);
            b.leave(0, Reg::R1);
            b.input(Reg::R1, 0);
            b.kfunc("hid_bpf_allocate_context");
            b.jeq_imm(Reg::R0, 0, "none");
            holders(b, Reg::R2);
            less_before(b);
            b.leave(1, Reg::R2);
            b.mov_reg(Reg::R1, Reg::R0);
        })
        .then(|b| {
            holders(b, Reg::R2);
            less_before(b);
            b.leave(2, Reg::R2);
        })
        .finally(|b| {
            b.label("none");
            let_go(b);
        })
        .leaves("more holders before", 1, || Some(1))
        .leaves("more holders afterwards", 2, || Some(0))
        .wrong("misuse-null", |b| {
            b.mov_imm(Reg::R1, 0);
            b.kfunc("hid_bpf_release_context");
        })
        .wrong("misuse-another-type", |b| {
            b.context_argument(Reg::R1, 0);
            b.kfunc("hid_bpf_release_context");
        })
}

/// `R2 -= what was left in the first slot`.
fn less_before(b: &mut Body<'_>) {
    b.ldx(Size::DW, Reg::R3, crate::lsm::PAGE, super::body::OUT);
    b.sub_reg(Reg::R2, Reg::R3);
}

/// A context of a program's own has no report, so that there is nothing to get.
fn get_data() -> Row {
    row("hid_bpf_get_data", "6.10")
        .sleepable_for_its_arguments()
        .takes(|b| {
            first_argument(b);
            b.mov_imm(Reg::R2, 0).mov_imm(Reg::R3, INPUT_BYTES);
        })
        .nullable()
        .gives_null("a context that a program has made itself holds no report")
        .then(|b| {
            b.ldx(Size::B, Reg::R1, GOT, 0);
            b.leave(0, Reg::R1);
        })
        .finally(let_go)
        .not_null(Reg::R1)
        .spoilt("misuse-size-not-constant", |b| {
            b.input(Reg::R3, 0);
        })
        .spoilt("misuse-another-type", |b| b.context_argument(Reg::R1, 0))
}

/// What else is asked of a kfunc that takes the context and a buffer with its size.
fn of_memory(row: Row, pointer: Reg, size: Reg) -> Row {
    row.also("empty", EINVAL, move |b| {
        b.mov_imm(size, 0);
    })
    .not_null(Reg::R1)
    .not_null(pointer)
    .spoilt("misuse-buffer-beyond-the-map", move |b| {
        b.mov_imm(size, 8192);
    })
}

/// `pointer, size = the report, and how much of it`.
fn report(b: &mut Body<'_>, pointer: Reg, size: Reg, bytes: i32) {
    b.page_address(pointer, BUFFER);
    b.mov_imm(size, bytes);
}

/// The device is asked for a report, and answers.
fn request() -> Row {
    let row = row("hid_bpf_hw_request", "6.10")
        .on("file_open", || uhid::answering(|| File::open(OPENED).map(drop).map_err(Into::into)))
        .takes(|b| {
            first_argument(b);
            report(b, Reg::R2, Reg::R3, OUTPUT_BYTES);
            b.enumerator(Reg::R4, "HID_FEATURE_REPORT");
            b.enumerator(Reg::R5, "HID_REQ_GET_REPORT");
        })
        .finally(let_go)
        .gives(i64::from(OUTPUT_BYTES))
        .checks(|attempt, results| {
            attempt.same("what the device answers", results.bytes(BUFFER, FEATURE.len()), FEATURE.to_vec());
        })
        .also("no-such-report", EINVAL, |b| {
            b.mov_imm(Reg::R4, 7);
        })
        .also("no-such-request", EINVAL, |b| {
            b.mov_imm(Reg::R5, 7);
        })
        .cites(source("6.10", "drivers/hid/uhid.c", "uhid_hid_get_report"));
    of_memory(row, Reg::R2, Reg::R3)
}

/// The device is sent a report.
fn output() -> Row {
    let row = row("hid_bpf_hw_output_report", "6.10")
        .takes(|b| {
            first_argument(b);
            report(b, Reg::R2, Reg::R3, OUTPUT_BYTES);
        })
        .finally(let_go)
        .gives(i64::from(OUTPUT_BYTES))
        .checks(|attempt, _| match uhid::output() {
            Ok(sent) => attempt.same("what the device gets", sent, REPORT.to_vec()),
            Err(errno) => attempt.see("what the device gets", errno.name()),
        })
        .cites(source("6.10", "drivers/hid/uhid.c", "uhid_hid_output_raw"));
    of_memory(row, Reg::R2, Reg::R3)
}

/// The kernel takes a report as if the device had sent it.
fn input(name: &'static str, version: &'static str) -> Row {
    let row = row(name, version)
        .given(|_| uhid::listen().map_err(|errno| Ended::could_not("listen to the device's reports", errno)))
        .takes(|b| {
            first_argument(b);
            b.enumerator(Reg::R2, "HID_INPUT_REPORT");
            report(b, Reg::R3, Reg::R4, INPUT_BYTES);
        })
        .finally(let_go)
        .gives(0)
        .checks(|attempt, _| match uhid::heard() {
            Ok(text) => {
                let shown =
                    text.split_once("= ").and_then(|(_, rest)| rest.lines().next()).unwrap_or_default();
                attempt.same("the report that the kernel shows", shown.trim(), "01 02");
            }
            Err(errno) => attempt.see("the report that the kernel shows", errno.name()),
        })
        .also("no-such-report", EINVAL, |b| {
            b.mov_imm(Reg::R2, 7);
        })
        .cites(source("6.10", "drivers/hid/hid-debug.c", "hid_dump_report"));
    of_memory(row, Reg::R3, Reg::R4)
}
