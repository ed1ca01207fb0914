//! Kfuncs about the memory of a cgroup (7.0).

use super::body::{Body, IN, OUT, RESULT};
use super::cgroup::make;
use super::counted::second_of_two;
use super::row::{GOT, KEPT, OPENED, Row, inode, kfunc};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm;
use crate::results::Results;
use crate::rules::{in_child, stay_on};
use crate::session::{Attempt, Ended};
use crate::triggers::children;
use memmap2::MmapMut;
use std::fs::{self, File};
use std::io::Write;

const MEMORY: &str = "mm/bpf_memcontrol.c";

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![
        root(),
        of_cgroup(),
        put(),
        number("bpf_mem_cgroup_memory_events", "MEMCG_HIGH")
            .checks(|attempt, results| {
                attempt.same("result", Some(results.get(RESULT)), in_file("memory.events", "high"));
                attempt.holds("it is more than nothing", results.get(RESULT) > 0);
            })
            .also("no-such-event", -1, |b| {
                b.mov_imm(Reg::R2, 1000);
            }),
        number("bpf_mem_cgroup_vm_events", "PGFAULT")
            .checks(|attempt, results| {
                let known = in_file("memory.stat", "pgfault");
                within(
                    attempt,
                    "the result is pgfault of memory.stat, or nearly",
                    results.get(RESULT),
                    known,
                    (FAULTS - BEHIND, BEHIND),
                );
            })
            .also("no-such-event", -1, |b| {
                b.mov_imm(Reg::R2, 100_000);
            }),
        number("bpf_mem_cgroup_page_state", "NR_SHMEM")
            .checks(|attempt, results| is_the_file(attempt, results.get(RESULT)))
            .also("no-such-counter", -1, |b| {
                b.mov_imm(Reg::R2, 100_000);
            }),
        of_own(kfunc("bpf_mem_cgroup_usage", "7.3", MEMORY).given(|results| give_own(results, true))).checks(
            |attempt, results| {
                let known = fs::read_to_string(format!("{OWN}/memory.current")).ok();
                let known = known.and_then(|text| text.trim().parse().ok());
                let usage = results.get(RESULT);
                within(
                    attempt,
                    "the result is memory.current, or nearly",
                    usage,
                    known,
                    (FILE_BYTES, BATCHES),
                );
            },
        ),
        flush(),
    ]
}

/// A cgroup whose memory is accounted.
const OWN: &str = "/sys/fs/cgroup/kfuncs-memory";
/// A file in memory that a process of this cgroup writes: its pages stay the cgroup's when the process has ended.
const FILE: &str = "/tmp/memory";
/// Its size.
const FILE_BYTES: u64 = 8 << 20;
/// Pages that the process writes to one by one, beyond the limit: more than are accounted at once.
const PAGES: usize = 65;
/// How often it writes to as many pages anew before.
const ROUNDS: usize = 16;
/// As many faults there are at least.
const FAULTS: u64 = (ROUNDS * PAGES) as u64;
/// As many of them may be missing in what is summed up. Without being forced to, the kernel sums up only what is more than
/// 64 a processor, when each of them may have kept 63 to itself (7.3 mm/memcontrol.c, `memcg_rstat_updated` and
/// `memcg_vmstats_needs_flush`); every two seconds it does so in any case, and what comes after counts from nothing.
/// Enough for four processors.
const BEHIND: u64 = 4 * (64 + 63) + 1;
/// Bytes of a page.
const PAGE: usize = 4096;
const PAGE_BYTES: u64 = 4096;
/// By how much a counter may be off that is accounted and summed up in batches.
const BATCHES: u64 = 1 << 20;

/// Makes the cgroup anew, has a process of it do what is counted, and tells the program its number. What is counted is
/// summed up now and then, and when user space reads it if it is `read`.
fn give_own(results: &mut Results, read: bool) -> Result<(), Ended> {
    let cannot = |error: std::io::Error| Ended::could_not("make a cgroup with the memory controller", error);
    // What a case before this one has left.
    let _none = fs::remove_file(FILE);
    let _none = fs::remove_dir(OWN);
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").map_err(cannot)?;
    fs::create_dir(OWN).map_err(cannot)?;
    in_child(|| {
        // What it could not do is seen in the numbers.
        let _done = use_memory();
    })?;
    if read {
        fs::read_to_string(format!("{OWN}/memory.stat")).map_err(cannot)?;
    }
    let id = inode(OWN).ok_or_else(|| Ended::CouldNotTell("no cgroup".to_owned()))?;
    results.set(IN, id);
    Ok(())
}

/// Writes the file, and as many pages more as must not be beyond it.
fn use_memory() -> std::io::Result<()> {
    // Each processor has some pages in hand, so on two of them as many pages as these would not be beyond the limit.
    stay_on(0)?;
    write_file(FILE, FILE_BYTES)?;
    for _ in 0..ROUNDS {
        write_pages()?;
    }
    fs::write(format!("{OWN}/memory.high"), fs::read_to_string(format!("{OWN}/memory.current"))?)?;
    write_pages()?;
    fs::write(format!("{OWN}/memory.high"), "max")
}

/// Writes a file as a process of the cgroup, which this one is from then on.
fn write_file(path: &str, bytes: u64) -> std::io::Result<()> {
    fs::write(format!("{OWN}/cgroup.procs"), "0")?;
    let mut file = File::create(path)?;
    for _ in 0..bytes / PAGE_BYTES {
        file.write_all(&[1; PAGE])?;
    }
    Ok(())
}

/// Writes to pages of its own, each of which is a fault: too few together to be given as one that is huge.
fn write_pages() -> std::io::Result<()> {
    let mut pages = MmapMut::map_anon(PAGES * PAGE)?;
    pages.chunks_mut(PAGE).for_each(|page| page[0] = 1);
    Ok(())
}

/// The number that a file of the cgroup has for `key`.
fn in_file(file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("{OWN}/{file}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

/// Notes whether a number is what user space knows, or less than `off` more or less, and no less than is certain.
fn within(attempt: &mut Attempt<'_>, key: &str, number: u64, known: Option<u64>, (least, off): (u64, u64)) {
    match known {
        Some(known) => attempt.holds(key, number >= least && number.abs_diff(known) < off),
        None => attempt.see(key, "user space could not find out"),
    }
}

/// Notes whether a number of bytes is that of memory that is a file's.
fn is_the_file(attempt: &mut Attempt<'_>, bytes: u64) {
    let known = in_file("memory.stat", "shmem");
    within(attempt, "it is shmem of memory.stat, or nearly", bytes, known, (FILE_BYTES - BATCHES, BATCHES));
}

/// `KEPT = the memory of the cgroup`.
fn own_memory(b: &mut Body<'_>) {
    b.input(Reg::R1, 0);
    b.kfunc("bpf_cgroup_from_id");
    b.jeq_imm(Reg::R0, 0, "pass").mov_reg(GOT, Reg::R0).mov_reg(Reg::R1, GOT);
    b.member_address(Reg::R1, "cgroup", "self");
    b.kfunc("bpf_get_mem_cgroup");
    b.mov_reg(KEPT, Reg::R0);
    b.release("bpf_cgroup_release", GOT);
    b.jeq_imm(KEPT, 0, "pass");
}

/// A kfunc whose first argument is the memory of the cgroup.
fn of_own(row: Row) -> Row {
    row.takes(|b| {
        own_memory(b);
        b.mov_reg(Reg::R1, KEPT);
    })
    .finally(|b| b.release("bpf_put_mem_cgroup", KEPT))
    .not_null(Reg::R1)
    .spoilt("misuse-another-type", |b| b.context_argument(Reg::R1, 0))
}

/// A kfunc that gives a number of a kind.
fn number(name: &'static str, kind: &'static str) -> Row {
    of_own(kfunc(name, "7.3", MEMORY).given(|results| give_own(results, true)))
        .takes(move |b| {
            own_memory(b);
            b.enumerator(Reg::R2, kind);
            b.mov_reg(Reg::R1, KEPT);
        })
        .minus_one_is_a_number()
}

/// How often memory is used and the program run. The kernel sums up every two seconds of itself (7.3 mm/memcontrol.c,
/// FLUSH_TIME), which may fall between the one and the other, but not each time.
const USES: usize = 3;
/// Bytes that are written each time: more pages than are left until somebody asks (as [`BEHIND`]).
const USE_BYTES: u64 = 4 << 20;

/// Has a process of the cgroup write another file, and opens the file that the program is there for.
fn use_and_open() -> Result<(), Errno> {
    for number in 0..USES {
        children::in_child(|| write_file(&format!("{FILE}-{number}"), USE_BYTES).map_err(Errno::from))?;
        File::open(OPENED)?;
    }
    Ok(())
}

/// `R0 = NR_SHMEM of the memory in KEPT`.
fn shmem(b: &mut Body<'_>) {
    b.enumerator(Reg::R2, "NR_SHMEM");
    b.mov_reg(Reg::R1, KEPT);
    b.kfunc("bpf_mem_cgroup_page_state");
}

/// What nobody has read yet is summed up by it: before the call the number is that of what was summed up last.
fn flush() -> Row {
    let (after, before, grown) = (OUT, OUT + 8, OUT + 16);
    of_own(kfunc("bpf_mem_cgroup_flush_stats", "7.3", MEMORY).sleepable())
        .on("file_open", use_and_open)
        .given(|results| give_own(results, false))
        .takes(move |b| {
            own_memory(b);
            shmem(b);
            b.stx(Size::DW, lsm::PAGE, before, Reg::R0).mov_reg(Reg::R1, KEPT);
        })
        .then(move |b| {
            shmem(b);
            b.stx(Size::DW, lsm::PAGE, after, Reg::R0).ldx(Size::DW, Reg::R1, lsm::PAGE, before);
            b.jge_reg(Reg::R1, Reg::R0, "as before").ldx(Size::DW, Reg::R1, lsm::PAGE, grown);
            b.add_imm(Reg::R1, 1).stx(Size::DW, lsm::PAGE, grown, Reg::R1).label("as before");
        })
        .checks(move |attempt, results| {
            attempt.holds("shmem is more after the call than before", results.get(grown) > 0);
            is_the_file(attempt, results.get(after));
        })
}

/// Leaves the id of the cgroup of what is in [`GOT`].
fn leave_id(b: &mut Body<'_>) {
    b.mov_reg(Reg::R1, GOT);
    b.follow(Reg::R1, "mem_cgroup", "css.cgroup");
    b.follow(Reg::R1, "cgroup", "kn");
    b.follow(Reg::R1, "kernfs_node", "id");
    b.leave(0, Reg::R1);
}

fn root_id() -> Option<u64> {
    inode("/sys/fs/cgroup")
}

fn root() -> Row {
    kfunc("bpf_get_root_mem_cgroup", "7.3", MEMORY).owned("bpf_put_mem_cgroup").then(leave_id).leaves(
        "cgroup id",
        0,
        root_id,
    )
}

fn of_cgroup() -> Row {
    kfunc("bpf_get_mem_cgroup", "7.3", MEMORY)
        .takes(|b| {
            b.current_cgroup(Reg::R1);
            b.member_address(Reg::R1, "cgroup", "self");
        })
        .owned("bpf_put_mem_cgroup")
        .then(leave_id)
        .leaves("cgroup id", 0, root_id)
        .rcu()
        .not_null(Reg::R1)
}

/// Where a cgroup's memory counts who holds it.
const REFCNT: (&str, &str) = ("mem_cgroup", "css.refcnt");
/// A cgroup with nobody in it, whose memory is accounted: nobody else counts.
const EMPTY: &str = "/sys/fs/cgroup/kfuncs-no-memory";

fn give_empty(results: &mut Results) -> Result<(), Ended> {
    let cannot = |error: std::io::Error| Ended::could_not("make a cgroup with the memory controller", error);
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").map_err(cannot)?;
    results.set(IN, make(EMPTY)?);
    Ok(())
}

/// Of memory that is had a second time the count goes up by one, and down again. The root's is not counted at all (7.3
/// include/linux/cgroup_refcnt.h, CSS_NO_REF).
fn put() -> Row {
    let again = |b: &mut Body<'_>| {
        b.mov_reg(Reg::R1, KEPT);
        b.member_address(Reg::R1, "mem_cgroup", "css");
        b.kfunc("bpf_get_mem_cgroup");
    };
    second_of_two(
        kfunc("bpf_put_mem_cgroup", "7.3", MEMORY).given(give_empty),
        "bpf_put_mem_cgroup",
        REFCNT,
        own_memory,
        again,
    )
    .wrong("misuse-of-another-type", |b| {
        b.current(Reg::R1);
        b.acquire_task();
        b.mov_reg(Reg::R1, Reg::R0);
        b.kfunc("bpf_put_mem_cgroup");
    })
}
