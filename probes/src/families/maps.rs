//! Every kind of map, used from a plain and from a sleepable program. Storage that belongs to an object has a family of
//! its own, `storage`.

mod table;

use crate::asm::Asm;
use crate::bpf::{MAP_TYPES, MapSpec, btf_load, name_in};
use crate::btf_build::{BtfBuilder, SIGNED, UNSIGNED};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{LsmProgram, PAGE};
use crate::results::FREE;
use crate::rules::OPEN;
use crate::session::{Attempt, Ended};
use crate::spec::{Probe, Source, source};
use crate::triggers::Arm;
use std::os::fd::{AsRawFd, OwnedFd};

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
    /// Whether it holds maps, needs BTF, or neither.
    needs: Needs,
    /// The use: R6 is the context and the map is to be named by its descriptor.
    using: fn(&mut Asm, &OwnedFd, &Attempt<'_>) -> Result<(), Ended>,
    /// The name of the use.
    call: &'static str,
    gives: Gives,
}

#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    Inner,
    Btf,
}

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    table::ROWS.iter().map(probe).collect()
}

fn probe(row: &'static Row) -> Probe {
    let kind = name_in(MAP_TYPES, row.kind).unwrap_or("a map");
    let asks = format!(
        "Can a plain and a sleepable program use a map of type {kind} with {}, and what does that give?",
        row.call
    );
    Probe::new(format!("maps/{}", row.name), asks, &[COMPATIBLE, COMPATIBLE_OLD, FUNCTION], move |session| {
        for (name, sleepable) in [("plain", false), ("sleepable", true)] {
            session.case(name, |attempt| try_row(attempt, row, sleepable))?;
        }
        Ok(())
    })
}

/// Creates a map and loads a program that uses it. A plain one whose use gives something is attached, and a file
/// opened; that each is attached would take twice the time and say little more.
fn try_row(attempt: &mut Attempt<'_>, row: &Row, sleepable: bool) -> Result<(), Ended> {
    let mut results = attempt.results()?;
    results.name_nobody();
    let map = create(attempt, row)?;
    let mut using = Ok(());
    let program = LsmProgram::framed(OPEN.hook, &results, |asm| {
        using = (row.using)(asm, &map.map, attempt);
        asm.stx(Size::DW, PAGE, FREE, Reg::R0);
    });
    using?;
    let only_loaded = sleepable || matches!(row.gives, Gives::Nothing);
    let program = attempt.load_lsm(&if sleepable { program.sleepable() } else { program })?;
    if only_loaded {
        return Ok(());
    }
    let _link = attempt.attach(&program)?;
    let mut act = (OPEN.recipe)().map_err(|errno| Ended::could_not("make the trigger ready", errno))?;
    let outcome = attempt.trigger(|| act(Arm::new(&results)));
    attempt.runs(results.runs());
    attempt.outcome("user space sees", &outcome);
    let given = results.get(FREE).cast_signed();
    let word = match row.gives {
        Gives::Pointer if given == 0 => "null".to_owned(),
        Gives::Pointer => "a pointer".to_owned(),
        Gives::Number if given < 0 => {
            format!("-{}", Errno::from_raw(i32::try_from(given).unwrap_or(i32::MIN)))
        }
        Gives::Number => given.to_string(),
        Gives::Nothing => "nothing".to_owned(),
    };
    attempt.see(&format!("{} gives", row.call), word);
    Ok(())
}

/// A map with what it refers to.
struct Made {
    map: OwnedFd,
    _inner: Option<OwnedFd>,
    _btf: Option<OwnedFd>,
}

fn create(attempt: &mut Attempt<'_>, row: &Row) -> Result<Made, Ended> {
    let mut spec = MapSpec { key_size: 4, value_size: 8, max_entries: 4, ..MapSpec::default() };
    spec.map_type = row.kind;
    (row.spec)(&mut spec);
    let (mut inner, mut btf) = (None, None);
    match row.needs {
        Needs::Nothing => {}
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
    }
    Ok(Made { map: attempt.map(&spec)?, _inner: inner, _btf: btf })
}
