//! Every kind of map, used from a plain and from a sleepable program. Storage that belongs to an object has a family of
//! its own, `storage`.

mod exclusive;
mod table;

use crate::asm::Asm;
use crate::bpf::{
    self, BPF_LSM_CGROUP, BPF_MAP_TYPE_BLOOM_FILTER, BPF_MAP_TYPE_QUEUE, BPF_MAP_TYPE_RINGBUF,
    BPF_MAP_TYPE_STACK, BPF_PROG_TYPE_LSM, LinkSpec, MAP_TYPES, MapSpec, ProgSpec, btf_load, name_in,
};
use crate::btf::Kind;
use crate::btf_build::{BtfBuilder, SIGNED, UNSIGNED};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{LsmProgram, PAGE};
use crate::record::Phase;
use crate::results::{FREE, Results};
use crate::rules::{Cgroup, EXEC, OPEN, ROOT_CGROUP, SESSION, cgroup_frame, insns};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, Source, source};
use crate::triggers::Arm;
use memmap2::MmapOptions;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// The hooks with an inert program.
pub const KEPT: &[&str] = &["file_open"];

const COMPATIBLE: Source = source("7.3", "kernel/bpf/verifier.c", "check_map_prog_compatibility");
const COMPATIBLE_OLD: Source = source("5.10", "kernel/bpf/verifier.c", "check_map_prog_compatibility");
const FUNCTION: Source = source("7.3", "kernel/bpf/verifier.c", "check_map_func_compatibility");

/// What a use leaves in R0.
#[derive(Clone, Copy)]
enum Gives {
    /// A pointer or null.
    Pointer,
    /// A number or a negative errno.
    Number,
    /// A number that differs from run to run, or a negative errno.
    AnyNumber,
    /// Nothing that means anything.
    Nothing,
}

/// A kind of map and how a program uses it.
struct Row {
    /// The probe's name.
    name: &'static str,
    /// `BPF_MAP_TYPE_*`.
    kind: u32,
    /// What it takes to create one, beyond its type.
    spec: fn(&mut MapSpec),
    /// What must be there besides.
    needs: Needs,
    /// The use: R6 is the context and the map is to be named by its descriptor.
    using: fn(&mut Asm, &OwnedFd, &Attempt<'_>) -> Result<(), Ended>,
    /// The name of the use.
    call: &'static str,
    gives: Gives,
    /// Whether nothing is in the map, so that the use finds nothing.
    empty: bool,
}

#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    /// A map in its first place.
    Inner,
    /// The root cgroup in its first place.
    Cgroup,
    /// BTF for its keys and values.
    Btf,
    /// The kernel's own type for its value.
    KernelType(&'static str),
    /// That nothing changes it any more.
    Frozen,
}

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let sources = [COMPATIBLE, COMPATIBLE_OLD];
    let run = Probe::new(
        "maps/used-by-a-sleepable-program",
        "What does each kind of map give a sleepable program that runs and may use it, and what does user space read of it by descriptor?",
        &sources,
        sleepable_run,
    );
    let exclusive = Probe::new(
        "maps/exclusive",
        "May only the program whose hash a map was made with use it, and who else can?",
        &[
            source("7.3", "kernel/bpf/verifier.c", "check_map_prog_compatibility"),
            source("7.3", "kernel/bpf/map_in_map.c", "bpf_map_fd_get_ptr"),
            source("7.3", "kernel/bpf/core.c", "bpf_prog_calc_tag"),
        ],
        exclusive::probe,
    );
    table::ROWS.iter().map(probe).chain([run, exclusive]).collect()
}

fn probe(row: &'static Row) -> Probe {
    let asks = question(row);
    Probe::new(format!("maps/{}", row.name), asks, &[COMPATIBLE, COMPATIBLE_OLD, FUNCTION], move |session| {
        session.case("plain", |attempt| plain(attempt, row))?;
        session.case("sleepable", |attempt| {
            let results = attempt.results()?;
            let map = create(attempt, row)?;
            let program = program(attempt, EXEC.hook, &results, &[(row, &map)])?;
            attempt.load_lsm(&program.sleepable()).map(drop)
        })?;
        if row.call == table::OF_CGROUP {
            session.case("of-a-cgroup", |attempt| of_a_cgroup(attempt, row))?;
        }
        Ok(())
    })
}

fn question(row: &Row) -> String {
    let kind = name_in(MAP_TYPES, row.kind).unwrap_or("a map");
    let how = match row.name {
        "hash-without-preallocation" => " made without preallocation",
        "hash-with-btf" => " made with BTF",
        _ => "",
    };
    match row.call {
        table::NAMED => format!("May a plain and a sleepable program name a map of type {kind}?"),
        table::STORED => format!(
            "Can a plain and a sleepable program store in and look up a {kind}{how}, and does user space read it?"
        ),
        table::OF_CGROUP => {
            format!(
                "Can a plain, a sleepable and a cgroup's program use a map of type {kind} with {}, and what does that give?",
                row.call
            )
        }
        call => {
            let map = if row.empty { "an empty map" } else { "a map" };
            let gives = if matches!(row.gives, Gives::Nothing) { "" } else { ", and what does that give" };
            format!("Can a plain and a sleepable program use {map} of type {kind} with {call}{gives}?")
        }
    }
}

/// A program that uses these maps one after the other, and leaves in the page what each gives.
fn program(
    attempt: &Attempt<'_>,
    hook: &str,
    results: &Results,
    uses: &[(&Row, &Made)],
) -> Result<LsmProgram, Ended> {
    let mut using = Ok(());
    let program = LsmProgram::framed(hook, results, |asm| {
        for (slot, (row, map)) in (FREE..).step_by(8).zip(uses) {
            let used = (row.using)(asm, &map.map, attempt);
            using = std::mem::replace(&mut using, Ok(())).and(used);
            asm.stx(Size::DW, PAGE, slot, Reg::R0);
        }
    });
    using.map(|()| program)
}

/// Creates a map, loads a program that uses it, and if that gives something has it run.
fn plain(attempt: &mut Attempt<'_>, row: &Row) -> Result<(), Ended> {
    let mut results = attempt.results()?;
    results.name_nobody();
    let map = create(attempt, row)?;
    let program = program(attempt, OPEN.hook, &results, &[(row, &map)])?;
    if matches!(row.gives, Gives::Nothing) {
        return attempt.load_lsm(&program).map(drop);
    }
    let _running = attempt.run_lsm(&program)?;
    let mut act = (OPEN.recipe)().map_err(|errno| Ended::could_not("make the trigger ready", errno))?;
    let outcome = attempt.trigger(|| act(Arm::new(&results)));
    if !matches!(row.needs, Needs::Cgroup) {
        attempt.runs(results.runs());
    }
    attempt.outcome("user space sees", &outcome);
    attempt.see(&format!("{} gives", row.call), row.gave(results.get(FREE)));
    if let Some(read) = read_back(row, &map) {
        attempt.see("user space reads from it", read);
    }
    if matches!(row.needs, Needs::Cgroup) {
        let other = Cgroup::new("other")?;
        put(&map.map, other.as_fd().as_raw_fd())?;
        results.set(FREE, NEITHER);
        let outcome = attempt.trigger(|| act(Arm::new(&results)));
        attempt.runs(results.runs());
        attempt.outcome("user space sees then", &outcome);
        attempt.see("it gives with a cgroup there that the task is not in", row.gave(results.get(FREE)));
    }
    Ok(())
}

/// What no use gives.
const NEITHER: u64 = 77;

/// Puts what a descriptor leads to into the map's first place.
fn put(map: &OwnedFd, fd: RawFd) -> Result<(), Ended> {
    bpf::map_update(map, &[0; 4], &fd.to_ne_bytes(), bpf::BPF_ANY)
        .map_err(|errno| Ended::could_not("put something into the map", errno))
}

/// The same from a program of the root cgroup, which the kernel gives storage of its own when it is attached (6.0
/// kernel/bpf/cgroup.c, bpf_cgroup_storages_alloc). The helper never gives null (6.0 there, `bpf_get_local_storage`): that
/// the pointer leads to the storage is seen by what is stored through it.
fn of_a_cgroup(attempt: &mut Attempt<'_>, row: &Row) -> Result<(), Ended> {
    let mut results = attempt.results()?;
    results.name_nobody();
    let map = create(attempt, row)?;
    let mut using = Ok(());
    let asm = cgroup_frame(&results, |asm| {
        using = (row.using)(asm, &map.map, attempt);
        asm.stx(Size::DW, PAGE, FREE, Reg::R0).st_imm(Size::DW, Reg::R0, 0, 7);
    });
    using?;
    let program = attempt.load_lsm(&LsmProgram::of_cgroup(SESSION.hook, asm))?;
    let root = Cgroup::root()?;
    let spec = LinkSpec { target: Some(root.as_fd()), attach_type: BPF_LSM_CGROUP, ..LinkSpec::default() };
    let _link = attempt.calls(Phase::Attach, bpf::link_create(&program, &spec))?;
    let mut act = SESSION.ready()?;
    let outcome = attempt.trigger(|| act(Arm::new(&results)));
    attempt.runs(results.runs());
    attempt.outcome("user space sees", &outcome);
    attempt.see(&format!("{} gives", row.call), row.gave(results.get(FREE)));
    let mut key = [0; 16];
    let read = bpf::map_next_key(&map.map, None, &mut key).and_then(|_| value(&map.map, &key));
    attempt.see("user space reads from it", read.map_or_else(Errno::name, |read| read.to_string()));
    Ok(())
}

/// One sleepable program that uses a map of every kind of which such a program is accepted: to attach one for each
/// would take longer than all else in this family.
fn sleepable_run(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("one-after-the-other", |attempt| {
        let mut results = attempt.results()?;
        results.name_nobody();
        let mut maps = Vec::new();
        for row in table::ROWS.iter().filter(|row| !matches!(row.gives, Gives::Nothing)) {
            // A kernel without the kind, or that refuses the program, says so in the kind's own probe.
            let Ok(map) = create(attempt, row) else { continue };
            let alone = program(attempt, EXEC.hook, &results, &[(row, &map)])?.sleepable();
            let id = attempt.hook(EXEC.hook)?;
            let spec = ProgSpec {
                expected_attach_type: alone.attach_type,
                attach_btf_id: id,
                flags: alone.flags,
                ..ProgSpec::new(BPF_PROG_TYPE_LSM, "alone", insns(&alone.asm)?)
            };
            if attempt.ask(&spec, 0).is_ok() {
                maps.push((row, map));
            }
        }
        let uses: Vec<(&Row, &Made)> = maps.iter().map(|(row, map)| (*row, map)).collect();
        let all = program(attempt, EXEC.hook, &results, &uses)?.sleepable();
        let _attached = attempt.attach_lsm(&all)?;
        let mut act = (EXEC.recipe)().map_err(|errno| Ended::could_not("make the trigger ready", errno))?;
        let outcome = attempt.trigger(|| act(Arm::new(&results)));
        attempt.runs(results.runs());
        attempt.outcome("user space sees", &outcome);
        for (slot, (row, map)) in (FREE..).step_by(8).zip(&uses) {
            let gave = format!("{} gives {}", row.call, row.gave(results.get(slot)));
            let read = read_back(row, map);
            let read = read.map(|read| format!("; user space reads {read}")).unwrap_or_default();
            attempt.see(row.name, gave + &read);
        }
        Ok(())
    })
}

impl Row {
    /// In words what a use has left.
    fn gave(&self, given: u64) -> String {
        let given = given.cast_signed();
        match self.gives {
            Gives::Pointer if given == 0 => "null".to_owned(),
            Gives::Pointer => "a pointer".to_owned(),
            Gives::Number | Gives::AnyNumber if given < 0 => {
                format!("-{}", Errno::from_raw(i32::try_from(-given).unwrap_or(i32::MAX)))
            }
            Gives::Number => given.to_string(),
            Gives::AnyNumber => "a number".to_owned(),
            Gives::Nothing => "nothing".to_owned(),
        }
    }
}

/// What user space reads, by the map's descriptor, of the 7 that programs store; `None` of kinds that store nothing.
fn read_back(row: &Row, map: &Made) -> Option<String> {
    let key = vec![0; if row.name == "lpm-trie" { 8 } else { 4 }];
    let read = match (row.kind, &map.inner) {
        (BPF_MAP_TYPE_QUEUE | BPF_MAP_TYPE_STACK, _) => value(&map.map, &[]),
        (BPF_MAP_TYPE_BLOOM_FILTER, _) => return Some(may_be_in(&map.map)),
        (BPF_MAP_TYPE_RINGBUF, _) => first_record(&map.map),
        (_, Some(inner)) => value(inner, &0_u32.to_ne_bytes()),
        _ if row.call == table::STORED => value(&map.map, &key),
        _ => return None,
    };
    Some(read.map_or_else(Errno::name, |read| read.to_string()))
}

/// What a filter says of the 7 that programs store and of a number that they do not.
fn may_be_in(filter: &OwnedFd) -> String {
    let of = |number: u64| match bpf::map_lookup(filter, &[], &mut number.to_ne_bytes()) {
        Ok(()) => "may be in it".to_owned(),
        Err(Errno::ENOENT) => "is not".to_owned(),
        Err(errno) => format!("gives {errno}"),
    };
    format!("that 7 {} and 8 {}", of(7), of(8))
}

/// The first number of an element; of a map per CPU, that of the one which the program ran on: the others have 0.
fn value(map: &OwnedFd, key: &[u8]) -> Result<u64, Errno> {
    let info = bpf::map_info(map)?;
    let mut value = vec![0; usize::try_from(info.value_bytes()?).unwrap_or(0)];
    bpf::map_lookup(map, key, &mut value)?;
    let each = usize::try_from(info.value_size.next_multiple_of(8)).unwrap_or(8).max(8);
    Ok(value.chunks(each).map(|cpu| cpu.first_chunk().map_or(0, |first| u64::from_ne_bytes(*first))).sum())
}

/// The first record of a ring buffer: behind the producer's page, a header of 8 bytes and then 8 of data.
fn first_record(map: &OwnedFd) -> Result<u64, Errno> {
    const PAGE_BYTES: usize = 4096;
    // SAFETY: the mapping is of a BPF map, which nobody truncates, and no program writes to it any more.
    let pages =
        unsafe { MmapOptions::new().offset(PAGE_BYTES as u64).len(3 * PAGE_BYTES).map(map.as_raw_fd()) };
    let pages = pages.map_err(Errno::from)?;
    let record = pages.get(PAGE_BYTES + 8..).and_then(|bytes| bytes.first_chunk());
    Ok(record.map_or(0, |record| u64::from_ne_bytes(*record)))
}

/// A map with what it refers to.
struct Made {
    map: OwnedFd,
    inner: Option<OwnedFd>,
    _btf: Option<OwnedFd>,
}

fn create(attempt: &mut Attempt<'_>, row: &Row) -> Result<Made, Ended> {
    let mut spec = MapSpec { key_size: 4, value_size: 8, max_entries: 4, ..MapSpec::default() };
    spec.map_type = row.kind;
    (row.spec)(&mut spec);
    let (mut inner, mut btf, mut cgroup) = (None, None, None);
    match row.needs {
        Needs::Nothing => {}
        Needs::Cgroup => {
            let folder = File::open(ROOT_CGROUP);
            cgroup = Some(folder.map_err(|error| Ended::could_not("open the root cgroup", error))?);
        }
        Needs::Inner => {
            let map = attempt.map(&MapSpec::array(8, 1))?;
            spec.inner_map_fd = Some(map.as_raw_fd());
            inner = Some(map);
        }
        Needs::Btf => {
            let mut types = BtfBuilder::new();
            let key = types.int("int", 4, SIGNED);
            let value = types.int("unsigned long long", 8, UNSIGNED);
            let made =
                btf_load(&types.finish()).map_err(|error| Ended::could_not("load the map's BTF", error))?;
            spec.btf_fd = Some(made.as_raw_fd());
            spec.btf_key_type_id = key;
            spec.btf_value_type_id = value;
            btf = Some(made);
        }
        Needs::KernelType(name) => {
            let types = attempt.btf()?;
            let found = types.find(Kind::Struct, name).and_then(|id| Some((id, types.size_of(id)?)));
            let found = found.ok_or_else(|| Ended::Absent(format!("struct {name}")))?;
            (spec.btf_vmlinux_value_type_id, spec.value_size) = found;
            // It must have BTF of its own, whatever is in it (6.12 kernel/bpf/syscall.c, map_create).
            let mut own = BtfBuilder::new();
            own.int("int", 4, SIGNED);
            let made =
                btf_load(&own.finish()).map_err(|error| Ended::could_not("load the map's BTF", error))?;
            spec.btf_fd = Some(made.as_raw_fd());
            btf = Some(made);
        }
        Needs::Frozen => {}
    }
    let map = attempt.map(&spec)?;
    if matches!(row.needs, Needs::Frozen) {
        bpf::map_freeze(&map).map_err(|errno| Ended::could_not("freeze the map", errno))?;
    }
    let held = match row.needs {
        Needs::Inner => inner.as_ref().map(AsRawFd::as_raw_fd),
        Needs::Cgroup => cgroup.as_ref().map(AsRawFd::as_raw_fd),
        Needs::Nothing | Needs::Btf | Needs::KernelType(_) | Needs::Frozen => None,
    };
    if let Some(fd) = held {
        put(&map, fd)?;
    }
    Ok(Made { map, inner, _btf: btf })
}
