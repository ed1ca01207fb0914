//! Open-coded iterators: new, next, destroy. The first element is looked at, and all are counted.

use super::body::{BUFFER, Body, OUT};
use super::cgroup::{give_own_id, give_root_id, root_id};
use super::row::{GOT, KEPT, Row, kfunc};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::PAGE;
use crate::results::Results;
use crate::session::Ended;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

const HELPERS: &str = "kernel/bpf/helpers.c";
const NUM: &str = "kernel/bpf/bpf_iter.c";
const TASKS: &str = "kernel/bpf/task_iter.c";
const CGROUPS: &str = "kernel/bpf/cgroup_iter.c";
/// The places of the three kfuncs in [`Iterator::names`].
const NEW: usize = 0;
/// As [`NEW`].
const NEXT: usize = 1;
/// As [`NEW`].
const DESTROY: usize = 2;
/// `CSS_TASK_ITER_PROCS` of include/linux/cgroup.h: a process once, not for each of its threads.
const CSS_TASK_ITER_PROCS: i32 = 1;
/// Where an iterator is on the stack; the largest has 4 words.
const ITER: i32 = -64;

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    const NAMES: [&str; 3] = ["bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy"];
    let num = Iterator::new(NAMES, "6.12", NUM, num, || Some(NUMBERS));
    let num = Iterator { word: Size::W, look: NUMBER, ..num };
    const MASK: [&str; 3] = ["bpf_iter_bits_new", "bpf_iter_bits_next", "bpf_iter_bits_destroy"];
    let bits = Iterator::new(MASK, "6.12", HELPERS, bits, || Some(3));
    let bits = Iterator { word: Size::W, given: bit_mask, look: BIT, ..bits };
    const TASK: [&str; 3] = ["bpf_iter_task_new", "bpf_iter_task_next", "bpf_iter_task_destroy"];
    let task = Iterator { section: true, ..Iterator::new(TASK, "6.12", TASKS, task, || Some(1)) };
    const CSS: [&str; 3] = ["bpf_iter_css_new", "bpf_iter_css_next", "bpf_iter_css_destroy"];
    let css = Iterator::new(CSS, "6.12", CGROUPS, css, || Some(1));
    let css = Iterator { given: give_root_id, let_go: release_cgroup, look: CGROUP_ID, ..css };
    let css = Iterator { section: true, object: true, ..css };
    const MEMBERS: [&str; 3] =
        ["bpf_iter_css_task_new", "bpf_iter_css_task_next", "bpf_iter_css_task_destroy"];
    let members = Iterator::new(MEMBERS, "7.3", TASKS, members, || Some(1));
    let members = Iterator { given: give_own_id, let_go: release_cgroup, object: true, ..members };
    const AREAS: [&str; 3] = ["bpf_iter_task_vma_new", "bpf_iter_task_vma_next", "bpf_iter_task_vma_destroy"];
    let areas = Iterator::new(AREAS, "7.3", TASKS, areas, areas_of_maps);
    let areas = Iterator { look: AREA, object: true, ..areas };
    const CACHES: [&str; 3] =
        ["bpf_iter_kmem_cache_new", "bpf_iter_kmem_cache_next", "bpf_iter_kmem_cache_destroy"];
    let caches = Iterator::new(CACHES, "7.3", "kernel/bpf/kmem_cache_iter.c", nothing, slab_caches);
    let caches = Iterator { sleepable: true, look: CACHE, ..caches };
    const BUFFERS: [&str; 3] = ["bpf_iter_dmabuf_new", "bpf_iter_dmabuf_next", "bpf_iter_dmabuf_destroy"];
    let buffers = Iterator::new(BUFFERS, "7.3", "kernel/bpf/dmabuf_iter.c", nothing, || Some(1));
    let buffers = Iterator { sleepable: true, given: dma_buffer, look: BYTES, ..buffers };
    [num, bits, task, css, members, areas, caches, buffers].into_iter().flat_map(Iterator::rows).collect()
}

/// What the first element is, which is never 0, and what user space knows it to be.
#[derive(Clone, Copy)]
struct Look {
    key: &'static str,
    /// Leaves it in slot 0. The element is in [`GOT`], its first word in R1.
    leave: fn(&mut Body<'_>),
    known: fn() -> Option<u64>,
}

/// An iterator: three kfuncs with a common stem.
#[derive(Clone, Copy)]
struct Iterator {
    /// New, next, destroy.
    names: [&'static str; 3],
    version: &'static str,
    file: &'static str,
    /// Makes the arguments after the iterator itself.
    arguments: fn(&mut Body<'_>),
    /// Gives back what the arguments hold.
    let_go: fn(&mut Body<'_>),
    /// Makes user space ready.
    given: fn(&mut Results) -> Result<(), Ended>,
    /// How many elements there are.
    count: fn() -> Option<u64>,
    /// What is seen of the first element.
    look: Look,
    word: Size,
    /// Whether it needs an RCU section (`KF_RCU_PROTECTED`).
    section: bool,
    /// Whether it needs a program that may sleep.
    sleepable: bool,
    /// Whether its second argument is a kernel object and may not be NULL.
    object: bool,
}

/// The first number, and how many there are.
const FIRST: u64 = 7;
const NUMBERS: u64 = 5;
/// Three bits, and the number of the first.
const BITS: u64 = 0b10_1100;
const FIRST_BIT: u64 = 2;

const NUMBER: Look = Look { key: "the number", leave: |b| b.leave(0, Reg::R1), known: || Some(FIRST) };
const BIT: Look = Look { key: "the bit", leave: |b| b.leave(0, Reg::R1), known: || Some(FIRST_BIT) };
const TGID: Look = Look { key: "its tgid", leave: |b| leave(b, &[["task_struct", "tgid"]]), known: our_pid };
const AREA: Look =
    Look { key: "its begin", leave: |b| leave(b, &[["vm_area_struct", "vm_start"]]), known: first_area };
const BYTES: Look =
    Look { key: "its size", leave: |b| leave(b, &[["dma_buf", "size"]]), known: || Some(DMA_BYTES) };
const CGROUP_ID: Look = Look {
    key: "id of its cgroup",
    leave: |b| leave(b, &[["cgroup_subsys_state", "cgroup"], ["cgroup", "kn"], ["kernfs_node", "id"]]),
    known: root_id,
};
const CACHE: Look = Look { key: "the beginning of its name", leave: leave_name, known: first_name };

/// Leaves what is found in the element by following these members.
fn leave(b: &mut Body<'_>, members: &[[&str; 2]]) {
    b.mov_reg(Reg::R1, GOT);
    for [record, member] in members {
        b.follow(Reg::R1, record, member);
    }
    b.leave(0, Reg::R1);
}

/// Leaves as much of a cache's name as a slot holds.
fn leave_name(b: &mut Body<'_>) {
    b.mov_reg(Reg::R3, GOT);
    b.follow(Reg::R3, "kmem_cache", "name");
    b.page_address(Reg::R1, OUT);
    b.mov_imm(Reg::R2, 8).call(helper::PROBE_READ_KERNEL_STR);
}

/// No arguments beside the iterator.
fn nothing(_: &mut Body<'_>) {}

fn bit_mask(results: &mut Results) -> Result<(), Ended> {
    results.set(BUFFER, BITS);
    Ok(())
}

fn our_pid() -> Option<u64> {
    Some(u64::from(std::process::id()))
}

/// Lines of `/proc/self/maps` but the one that is not of the process (`[vsyscall]`).
fn areas_of_maps() -> Option<u64> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    u64::try_from(maps.lines().filter(|line| !line.ends_with("[vsyscall]")).count()).ok()
}

/// Where the first area of the process begins.
fn first_area() -> Option<u64> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    u64::from_str_radix(maps.split('-').next()?, 16).ok()
}

/// Lines of `/proc/slabinfo` after the two of its head.
fn slab_caches() -> Option<u64> {
    let caches = fs::read_to_string("/proc/slabinfo").ok()?;
    u64::try_from(caches.lines().count().checked_sub(2)?).ok()
}

/// The name in the first of these lines, cut off and padded as [`leave_name`] leaves it: both go through the kernel's own
/// list (7.3 mm/slab_common.c, `slab_start`; kernel/bpf/kmem_cache_iter.c, `bpf_iter_kmem_cache_next`).
fn first_name() -> Option<u64> {
    let caches = fs::read_to_string("/proc/slabinfo").ok()?;
    let name = caches.lines().nth(2)?.split_whitespace().next()?;
    let mut word = [0; 8];
    word.iter_mut().zip(name.bytes().take(7)).for_each(|(to, from)| *to = from);
    Some(u64::from_le_bytes(word))
}

/// Bytes of the one DMA buffer that there is.
const DMA_BYTES: u64 = 8192;

/// `struct dma_heap_allocation_data` of include/uapi/linux/dma-heap.h.
#[repr(C)]
struct Allocation {
    length: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

/// `DMA_HEAP_IOCTL_ALLOC`.
const ALLOCATE: libc::c_ulong = 0xc018_4800;

/// Makes a DMA buffer, which lives as long as the process; one is enough for all cases.
fn dma_buffer(_: &mut Results) -> Result<(), Ended> {
    /// The process that made one last: others may share this memory.
    static MADE_BY: AtomicU32 = AtomicU32::new(0);
    let cannot = |error: Errno| Ended::could_not("make a DMA buffer", error);
    if MADE_BY.load(Ordering::Relaxed) == std::process::id() {
        return Ok(());
    }
    let heap = File::open("/dev/dma_heap/system").map_err(|error| cannot(error.into()))?;
    let mut wanted =
        Allocation { length: DMA_BYTES, fd: 0, fd_flags: libc::O_RDWR.cast_unsigned(), heap_flags: 0 };
    // SAFETY: the request reads and writes the structure that it is for.
    Errno::result(unsafe { libc::ioctl(heap.as_raw_fd(), ALLOCATE, &raw mut wanted) }).map_err(cannot)?;
    // Its descriptor stays open until the process ends.
    MADE_BY.store(std::process::id(), Ordering::Relaxed);
    Ok(())
}

fn num(b: &mut Body<'_>) {
    b.mov_imm(Reg::R2, FIRST.cast_signed()).mov_imm(Reg::R3, (FIRST + NUMBERS).cast_signed());
}

fn bits(b: &mut Body<'_>) {
    b.page_address(Reg::R2, BUFFER);
    b.mov_imm(Reg::R3, 1);
}

fn task(b: &mut Body<'_>) {
    b.current(Reg::R2);
    b.enumerator(Reg::R3, "BPF_TASK_ITER_PROC_THREADS");
}

/// `R2 = the state of the cgroup` of which user space gave the id. The reference is given back by `release_cgroup`.
fn cgroup(b: &mut Body<'_>) {
    b.input(Reg::R1, 0);
    b.kfunc("bpf_cgroup_from_id");
    b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0).mov_reg(Reg::R2, KEPT);
    b.member_address(Reg::R2, "cgroup", "self");
}

/// The root cgroup and its ancestors, which are none.
fn css(b: &mut Body<'_>) {
    cgroup(b);
    b.enumerator(Reg::R3, "BPF_CGROUP_ITER_ANCESTORS_UP");
}

/// The processes of a cgroup.
fn members(b: &mut Body<'_>) {
    cgroup(b);
    b.mov_imm(Reg::R3, CSS_TASK_ITER_PROCS);
}

/// The areas of the current task's memory, from the lowest address on.
fn areas(b: &mut Body<'_>) {
    b.current(Reg::R2);
    b.mov_imm(Reg::R3, 0);
}

fn release_cgroup(b: &mut Body<'_>) {
    b.release("bpf_cgroup_release", KEPT);
}

impl Iterator {
    fn new(
        names: [&'static str; 3],
        version: &'static str,
        file: &'static str,
        arguments: fn(&mut Body<'_>),
        count: fn() -> Option<u64>,
    ) -> Self {
        Self {
            names,
            version,
            file,
            arguments,
            let_go: nothing,
            given: |_| Ok(()),
            count,
            look: TGID,
            word: Size::DW,
            section: false,
            sleepable: false,
            object: false,
        }
    }

    fn call(self, b: &mut Body<'_>, which: usize) {
        b.stack_address(Reg::R1, ITER);
        b.kfunc(self.names[which]);
    }

    fn make(self, b: &mut Body<'_>) {
        (self.arguments)(b);
        self.call(b, NEW);
    }

    /// Counts the elements in slot 0.
    fn count(self, b: &mut Body<'_>) {
        let (again, end) = (b.fresh("again"), b.fresh("end"));
        b.label(&again);
        self.call(b, NEXT);
        b.jeq_imm(Reg::R0, 0, &end).mov_imm(Reg::R1, 1).atomic_add(Size::DW, PAGE, OUT, Reg::R1);
        b.ja(&again).label(&end);
    }

    /// The rules of making one hold for the two other kfuncs of themselves: a program that cannot make an iterator says
    /// nothing about them.
    fn row(self, which: usize) -> Row {
        let row = kfunc(self.names[which], self.version, self.file).given(self.given);
        match (self.section, self.sleepable, which) {
            (true, _, NEW) => row.rcu(),
            (true, ..) => row.never_sleeps().wrong_sleepable("misuse-after-the-rcu-section", move |b| {
                b.kfunc("bpf_rcu_read_lock");
                self.make(b);
                b.kfunc("bpf_rcu_read_unlock");
                self.call(b, which);
                self.end(b, which);
            }),
            (false, true, NEW) => row.sleepable(),
            (false, true, _) => {
                row.sleepable_for_its_arguments().wrong("misuse-in-an-rcu-section", move |b| {
                    self.make(b);
                    b.kfunc("bpf_rcu_read_lock");
                    self.call(b, which);
                    b.kfunc("bpf_rcu_read_unlock");
                    self.end(b, which);
                })
            }
            (false, false, _) => row,
        }
    }

    /// What ends a right program that has called one of them.
    fn end(self, b: &mut Body<'_>, which: usize) {
        if which != DESTROY {
            self.call(b, DESTROY);
        }
        (self.let_go)(b);
    }

    fn rows(self) -> Vec<Row> {
        vec![self.new_row(), self.next_row(), self.destroy_row()]
    }

    fn new_row(self) -> Row {
        let row = self
            .row(NEW)
            .takes(move |b| {
                (self.arguments)(b);
                b.stack_address(Reg::R1, ITER);
            })
            .gives(0)
            .then(move |b| self.count(b))
            .finally(move |b| {
                self.call(b, DESTROY);
                (self.let_go)(b);
            })
            .leaves("elements", 0, self.count)
            .wrong("misuse-not-destroyed", move |b| {
                self.make(b);
                (self.let_go)(b);
            })
            .wrong("misuse-made-twice", move |b| {
                self.make(b);
                (self.let_go)(b);
                self.make(b);
                self.call(b, DESTROY);
                (self.let_go)(b);
            });
        if self.object { row.not_null(Reg::R2) } else { row }
    }

    fn next_row(self) -> Row {
        let row = self
            .row(NEXT)
            .takes(move |b| {
                self.make(b);
                b.stack_address(Reg::R1, ITER);
            })
            .nullable()
            .then(move |b| {
                b.ldx(self.word, Reg::R1, GOT, 0);
                (self.look.leave)(b);
            })
            .finally(move |b| {
                self.call(b, DESTROY);
                (self.let_go)(b);
            })
            .leaves(self.look.key, 0, self.look.known);
        row.wrong("misuse-not-made", move |b| self.call(b, NEXT)).wrong("misuse-after-destroy", move |b| {
            self.make(b);
            self.call(b, DESTROY);
            (self.let_go)(b);
            self.call(b, NEXT);
        })
    }

    fn destroy_row(self) -> Row {
        self.row(DESTROY)
            .takes(move |b| {
                self.make(b);
                self.count(b);
                b.stack_address(Reg::R1, ITER);
            })
            .finally(move |b| (self.let_go)(b))
            .leaves("elements before", 0, self.count)
            .effect_not_looked_at()
            .wrong("misuse-not-made", move |b| self.call(b, DESTROY))
            .wrong("misuse-destroyed-twice", move |b| {
                self.make(b);
                self.call(b, DESTROY);
                (self.let_go)(b);
                self.call(b, DESTROY);
            })
    }
}
