//! Open-coded iterators: new, next, destroy.

use super::body::{BUFFER, Body, IN, OUT};
use super::row::{GOT, KEPT, Row, inode, kfunc};
use crate::insn::{Reg, Size};
use crate::lsm::PAGE;
use crate::session::Ended;

const HELPERS: &str = "kernel/bpf/helpers.c";
const NUM: &str = "kernel/bpf/bpf_iter.c";
const TASKS: &str = "kernel/bpf/task_iter.c";
/// Where an iterator is on the stack; the largest has 4 words.
const ITER: i32 = -64;

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    let num =
        Iterator { stem: "bpf_iter_num", file: NUM, arguments: num, count: 5, word: Size::W, section: false };
    let bits = Iterator {
        stem: "bpf_iter_bits",
        file: HELPERS,
        arguments: bits,
        count: 3,
        word: Size::W,
        section: false,
    };
    let task = Iterator {
        stem: "bpf_iter_task",
        file: TASKS,
        arguments: task,
        count: 1,
        word: Size::DW,
        section: true,
    };
    let css = Iterator {
        stem: "bpf_iter_css",
        file: "kernel/bpf/cgroup_iter.c",
        arguments: css,
        count: 1,
        word: Size::DW,
        section: true,
    };
    let [num, bits, task] = [num, bits, task].map(Iterator::rows);
    let css = css.rows().into_iter().map(|row| {
        row.given(|results| {
            let id = inode("/sys/fs/cgroup").ok_or_else(|| Ended::CouldNotTell("no cgroup".to_owned()))?;
            results.set(IN, id);
            Ok(())
        })
    });
    let bits = bits.into_iter().map(|row| {
        row.given(|results| {
            results.set(BUFFER, 0b1011);
            Ok(())
        })
    });
    num.into_iter().chain(bits).chain(task).chain(css).collect()
}

/// An iterator: three kfuncs with a common stem.
#[derive(Clone, Copy)]
struct Iterator {
    stem: &'static str,
    file: &'static str,
    /// Makes the arguments of `new` after the first; clobbers all.
    arguments: fn(&mut Body<'_>),
    /// How many elements there are.
    count: u64,
    /// The size of what a program can read at the start of an element.
    word: Size,
    /// Whether it needs an RCU section (`KF_RCU_PROTECTED`).
    section: bool,
}

fn num(b: &mut Body<'_>) {
    b.mov_imm(Reg::R2, 0).mov_imm(Reg::R3, 5);
}

fn bits(b: &mut Body<'_>) {
    b.page_address(Reg::R2, BUFFER);
    b.mov_imm(Reg::R3, 1);
}

fn task(b: &mut Body<'_>) {
    b.current(Reg::R2);
    b.enumerator(Reg::R3, "BPF_TASK_ITER_PROC_THREADS");
}

/// The root cgroup and its ancestors, which are none. The reference is given back by `release_cgroup`.
fn css(b: &mut Body<'_>) {
    b.input(Reg::R1, 0);
    b.kfunc("bpf_cgroup_from_id");
    b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0).mov_reg(Reg::R2, KEPT);
    b.member_address(Reg::R2, "cgroup", "self");
    b.enumerator(Reg::R3, "BPF_CGROUP_ITER_ANCESTORS_UP");
}

impl Iterator {
    fn call(self, b: &mut Body<'_>, suffix: &str) {
        b.stack_address(Reg::R1, ITER);
        b.kfunc(&format!("{}_{suffix}", self.stem));
    }

    fn make(self, b: &mut Body<'_>) {
        (self.arguments)(b);
        self.call(b, "new");
    }

    /// Counts the elements in slot 0.
    fn count(self, b: &mut Body<'_>) {
        let (again, end) = (b.fresh("again"), b.fresh("end"));
        b.label(&again);
        self.call(b, "next");
        b.jeq_imm(Reg::R0, 0, &end).mov_imm(Reg::R1, 1).atomic_add(Size::DW, PAGE, OUT, Reg::R1);
        b.ja(&again).label(&end);
    }

    /// Gives back what the arguments hold.
    fn let_go(self, b: &mut Body<'_>) {
        if self.stem == "bpf_iter_css" {
            b.release("bpf_cgroup_release", KEPT);
        }
    }

    fn name(self, suffix: &str) -> &'static str {
        let names: &[&'static str] = &[
            "bpf_iter_num_new",
            "bpf_iter_num_next",
            "bpf_iter_num_destroy",
            "bpf_iter_bits_new",
            "bpf_iter_bits_next",
            "bpf_iter_bits_destroy",
            "bpf_iter_task_new",
            "bpf_iter_task_next",
            "bpf_iter_task_destroy",
            "bpf_iter_css_new",
            "bpf_iter_css_next",
            "bpf_iter_css_destroy",
        ];
        let wanted = format!("{}_{suffix}", self.stem);
        names.iter().find(|name| **name == wanted).copied().unwrap_or(self.stem)
    }

    fn row(self, suffix: &str) -> Row {
        let row = kfunc(self.name(suffix), "6.12", self.file);
        if self.section { row.rcu() } else { row }
    }

    fn rows(self) -> Vec<Row> {
        vec![self.new_row(), self.next_row(), self.destroy_row()]
    }

    fn new_row(self) -> Row {
        self.row("new")
            .takes(move |b| {
                (self.arguments)(b);
                b.stack_address(Reg::R1, ITER);
            })
            .gives(0)
            .then(move |b| self.count(b))
            .finally(move |b| {
                self.call(b, "destroy");
                self.let_go(b);
            })
            .leaves("elements", 0, move || Some(self.count))
            .wrong("misuse-not-destroyed", move |b| {
                self.make(b);
                self.let_go(b);
            })
            .wrong("misuse-made-twice", move |b| {
                self.make(b);
                self.let_go(b);
                self.make(b);
                self.call(b, "destroy");
                self.let_go(b);
            })
    }

    fn next_row(self) -> Row {
        self.row("next")
            .takes(move |b| {
                self.make(b);
                b.stack_address(Reg::R1, ITER);
            })
            .nullable()
            .then(move |b| {
                b.ldx(self.word, Reg::R1, GOT, 0);
                b.mov_imm(Reg::R1, 1).atomic_add(Size::DW, PAGE, OUT, Reg::R1);
            })
            .finally(move |b| {
                self.call(b, "destroy");
                self.let_go(b);
            })
            .leaves("elements", 0, || Some(1))
            .wrong("misuse-not-made", move |b| self.call(b, "next"))
            .wrong("misuse-after-destroy", move |b| {
                self.make(b);
                self.call(b, "destroy");
                self.let_go(b);
                self.call(b, "next");
            })
    }

    fn destroy_row(self) -> Row {
        self.row("destroy")
            .takes(move |b| {
                self.make(b);
                b.stack_address(Reg::R1, ITER);
            })
            .finally(move |b| self.let_go(b))
            .wrong("misuse-not-made", move |b| self.call(b, "destroy"))
            .wrong("misuse-destroyed-twice", move |b| {
                self.make(b);
                self.call(b, "destroy");
                self.let_go(b);
                self.call(b, "destroy");
            })
    }
}
