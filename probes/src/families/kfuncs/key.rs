//! Kfuncs about keys and signatures, the first that LSM programs had (6.1).

use super::body::{BUFFER, Body, IN, OUT, SECOND};
use super::row::{GOT, KEPT, Row, kfunc};
use crate::insn::{Reg, Size};
use crate::lsm::PAGE;
use crate::rules::signer::{self, Fate, MESSAGE, OWN, SIGNATURE, THREADS, USERS};
use crate::session::Ended;
use crate::spec::source;

const TRACE: &str = "kernel/trace/bpf_trace.c";
/// The keyring of built-in keys (6.1 include/linux/verification.h, `system_keyring_id_check`).
const BUILT_IN: i32 = 0;
/// `KEY_LOOKUP_CREATE` of include/linux/key.h.
const CREATE: i32 = 1;

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![user_key(), system_key(), put(), verify()]
}

fn user_key() -> Row {
    looked_up(USERS, CREATE)
        .leaves("serial number", 0, || signer::serial_of(USERS, true).ok())
        .other("canonical-of-no-thread-keyring", of_no_thread_keyring())
        .other("canonical-of-a-thread-keyring", of_a_thread_keyring())
        .other("canonical-unknown-flag", unknown_flag())
        .cites(source("7.3", "kernel/bpf/helpers.c", "bpf_lookup_user_key"))
}

/// A key that is looked up with these flags, whose serial number is left.
fn looked_up(key: i32, flags: i32) -> Row {
    kfunc("bpf_lookup_user_key", "6.1", TRACE)
        .sleepable()
        .takes(move |b| {
            b.mov_imm(Reg::R1, key).mov_imm(Reg::R2, flags);
        })
        .owned("bpf_key_put")
        .then(|b| {
            b.mov_reg(Reg::R1, GOT);
            b.follow(Reg::R1, "bpf_key", "key");
            b.follow(Reg::R1, "key", "serial");
            b.leave(0, Reg::R1);
        })
}

/// A thread has no keyring of its own until it asks for one.
fn of_no_thread_keyring() -> Row {
    looked_up(THREADS, 0)
        .given(|_| match signer::serial_of(THREADS, false) {
            Err(errno) if errno.raw() == libc::ENOKEY => Ok(()),
            Err(errno) => Err(Ended::could_not("see that the thread has no keyring", errno)),
            Ok(_) => Err(Ended::CouldNotTell("the thread has a keyring already".to_owned())),
        })
        .gives_null("there is none, and it was not asked to make one")
}

/// After [`of_no_thread_keyring`]: user space makes the keyring.
fn of_a_thread_keyring() -> Row {
    looked_up(THREADS, 0)
        .given(|_| {
            signer::serial_of(THREADS, true)
                .map(drop)
                .map_err(|errno| Ended::could_not("make the thread's keyring", errno))
        })
        .leaves("serial number", 0, || signer::serial_of(THREADS, false).ok())
}

/// The flag after the last one (include/linux/key.h, `KEY_LOOKUP_ALL`).
fn unknown_flag() -> Row {
    looked_up(USERS, CREATE | 4).gives_null("it has no such flag")
}

/// What a system keyring is looked up by, and what stands for it in what comes back.
const NUMBER: &str = "its number";

/// The system keyring of this number: 1 and 2 are those of include/linux/verification.h, `VERIFY_USE_SECONDARY_KEYRING` and
/// `VERIFY_USE_PLATFORM_KEYRING`, which the kernel takes without having them
/// (7.3 include/linux/verification.h, `system_keyring_id_check`).
fn of_number(number: i32) -> Row {
    kfunc("bpf_lookup_system_key", "6.1", TRACE)
        .takes(move |b| {
            b.mov_imm(Reg::R1, number);
        })
        .owned("bpf_key_put")
        .then(|b| {
            b.mov_reg(Reg::R1, GOT);
            b.follow(Reg::R1, "bpf_key", "key");
            b.leave(0, Reg::R1);
        })
        .checks(|attempt, _| attempt.see("whether there is such a keyring", "not asked"))
}

fn system_key() -> Row {
    kfunc("bpf_lookup_system_key", "6.1", TRACE)
        .takes(|b| {
            b.mov_imm(Reg::R1, BUILT_IN);
        })
        .owned("bpf_key_put")
        .then(|b| {
            b.mov_reg(Reg::R1, GOT);
            b.follow(Reg::R1, "bpf_key", "has_ref");
            b.leave(0, Reg::R1);
        })
        // The kernel's own keyrings are not counted.
        .leaves("counted", 0, || Some(0))
        .other("canonical-of-the-secondary-keyring", of_number(1).leaves(NUMBER, 0, || Some(1)))
        .other("canonical-of-the-platform-keyring", of_number(2).leaves(NUMBER, 0, || Some(2)))
        .other("canonical-of-no-keyring", of_number(3).gives_null("no keyring has this number"))
        .cites(source("6.1", "include/linux/verification.h", "system_keyring_id_check"))
        .cites(source("7.3", "kernel/bpf/helpers.c", "bpf_lookup_system_key"))
}

/// `R0 = a key of the user`, looked up by the id of its keyring.
pub(super) fn look_up(b: &mut Body<'_>) {
    b.mov_imm(Reg::R1, USERS).mov_imm(Reg::R2, CREATE);
    b.kfunc("bpf_lookup_user_key");
}

/// `R0 = the keyring of built-in keys`.
fn look_up_built_in(b: &mut Body<'_>) {
    b.mov_imm(Reg::R1, BUILT_IN);
    b.kfunc("bpf_lookup_system_key");
}

/// `reg = how often the key in KEPT is held`.
fn holders(b: &mut Body<'_>, reg: Reg) {
    b.mov_reg(reg, KEPT);
    b.follow(reg, "bpf_key", "key");
    b.follow(reg, "key", "usage.refs.counter");
}

/// `R2 = how often the key in KEPT is held`, less what was left in the first slot.
fn more_holders(b: &mut Body<'_>) {
    holders(b, Reg::R2);
    b.ldx(Size::DW, Reg::R3, PAGE, OUT).sub_reg(Reg::R2, Reg::R3);
}

/// Of a key that is looked up a second time the count goes up by one, and down again.
fn put() -> Row {
    kfunc("bpf_key_put", "6.1", TRACE)
        .releases()
        .sleepable_for_its_arguments()
        .takes(|b| {
            look_up(b);
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0);
            holders(b, Reg::R1);
            b.leave(0, Reg::R1);
            look_up(b);
            b.jeq_imm(Reg::R0, 0, "none");
            more_holders(b);
            b.leave(1, Reg::R2);
            b.mov_reg(Reg::R1, Reg::R0);
        })
        .then(|b| {
            more_holders(b);
            b.leave(2, Reg::R2);
        })
        .finally(|b| {
            b.label("none");
            b.release("bpf_key_put", KEPT);
        })
        .leaves("more holders before", 1, || Some(1))
        .leaves("more holders afterwards", 2, || Some(0))
        .other("canonical-of-a-system-key", put_of_the_system())
        .wrong("misuse-of-another-type", |b| {
            // Where nothing but keys can be acquired (6.1), what is not will have to do.
            if b.knows("bpf_task_acquire") {
                b.current(Reg::R1);
                b.acquire_task();
                b.mov_reg(Reg::R1, Reg::R0);
            } else {
                b.context_argument(Reg::R1, 0);
            }
            b.kfunc("bpf_key_put");
        })
        .cites(source("7.3", "kernel/bpf/helpers.c", "bpf_key_put"))
}

/// Nothing is counted of the kernel's own keyrings, and what has one looked up need not sleep.
fn put_of_the_system() -> Row {
    kfunc("bpf_key_put", "6.1", TRACE)
        .takes(|b| {
            look_up_built_in(b);
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R1, Reg::R0);
        })
        .effect_not_looked_at()
}

/// Where the two dynptrs are on the stack: of the message, and of its signature.
const SIGNED: i32 = -16;
const BY: i32 = -32;

/// The process's own keyring has the signer's certificate.
fn verify() -> Row {
    verified_with(|b| {
        b.mov_imm(Reg::R1, OWN).mov_imm(Reg::R2, 0);
        b.kfunc("bpf_lookup_user_key");
    })
    .sleepable_but_for_its_arguments(verified_with(look_up_built_in))
    .gives(0)
    .also("of-another-message", -i64::from(libc::EKEYREJECTED), |b| {
        b.st_imm(Size::B, PAGE, BUFFER, 0);
    })
    .also("of-no-signature", -i64::from(libc::EBADMSG), |b| {
        b.st_imm(Size::B, PAGE, SECOND, 0);
    })
    .other("canonical-with-keys-of-another-ring", verified_with(look_up).gives(-i64::from(libc::ENOKEY)))
    .other("canonical-with-a-keyring-of-its-own", verified_with_keyring(Fate::Kept).gives(0))
    .other(
        "canonical-with-a-keyring-that-nobody-may-search",
        verified_with_keyring(Fate::Closed).gives(-i64::from(libc::ENOKEY)),
    )
    .other(
        "canonical-with-a-revoked-keyring",
        verified_with_keyring(Fate::Revoked).gives(-i64::from(libc::EKEYREVOKED)),
    )
    .other(
        "canonical-with-an-expired-keyring",
        verified_with_keyring(Fate::Expired).gives(-i64::from(libc::EKEYEXPIRED)),
    )
    .other(
        "canonical-with-the-built-in-keys",
        verified_with(look_up_built_in).gives(-i64::from(libc::ENOKEY)),
    )
    .not_null(Reg::R3)
    .spoilt("misuse-uninitialised-dynptr", |b| b.stack_address(Reg::R1, -64))
    .cites(source("7.3", "kernel/bpf/helpers.c", "bpf_verify_pkcs7_signature"))
    .cites(source("7.3", "crypto/asymmetric_keys/pkcs7_trust.c", "pkcs7_validate_trust"))
}

/// What a dynptr counts it in.
fn size(bytes: &[u8]) -> i32 {
    i32::try_from(bytes.len()).unwrap_or(i32::MAX)
}

/// The keys of a keyring that user space has made. It is found whatever is to be said of it; the question comes when it is
/// used (6.1 kernel/trace/bpf_trace.c, `bpf_lookup_user_key`: `KEY_DEFER_PERM_CHECK`), and that a keyring may not be searched
/// looks like one without the key (6.12 crypto/asymmetric_keys/asymmetric_type.c, `find_asymmetric_key`).
fn verified_with_keyring(fate: Fate) -> Row {
    verified_with(|b| {
        b.input(Reg::R1, 0);
        b.mov_imm(Reg::R2, 0);
        b.kfunc("bpf_lookup_user_key");
    })
    .given(move |results| {
        results.set(IN, signer::keyring(fate)?);
        Ok(())
    })
}

/// A message and its signature, held against the keys that `keys` looks up.
fn verified_with(keys: fn(&mut Body<'_>)) -> Row {
    kfunc("bpf_verify_pkcs7_signature", "6.1", TRACE)
        .sleepable()
        .given(|results| {
            results.set_bytes(BUFFER, &MESSAGE);
            results.set_bytes(SECOND, SIGNATURE);
            signer::add()
        })
        .takes(move |b| {
            b.dynptr(SIGNED, BUFFER, size(&MESSAGE));
            b.dynptr(BY, SECOND, size(SIGNATURE));
            keys(b);
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0);
            b.stack_address(Reg::R1, SIGNED);
            b.stack_address(Reg::R2, BY);
            b.mov_reg(Reg::R3, KEPT);
        })
        .finally(|b| b.release("bpf_key_put", KEPT))
}
