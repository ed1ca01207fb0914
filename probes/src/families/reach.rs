//! Which system calls lead to a hook, and which go round it: for one operation the hooks that might be asked, and the ways
//! in which user space can do it.
//!
//! A probe is a `Subject`: its hooks, and a row per way. Each way is a case, which says what comes of it by itself, how
//! often it makes the kernel call each of the hooks, and what user space sees when the hook's program, and no other, returns
//! -EPERM for it.

mod attributes;
mod bpf;
mod connect;
mod content;
mod exec;
mod kill;
mod memory;
mod messages;
mod mounts;
mod names;
mod open;
mod options;
mod receive;
mod served;
mod tasks;
mod truncate;
mod way;

use crate::session::{Session, Stop};
use crate::spec::{Probe, Source};
use way::{Watch, Way};

/// The hooks that several of the probes have programs on: taking the last one off costs a grace period.
pub const KEPT: &[&str] = &["file_open", "mmap_file"];

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let subjects = [
        mounts::SUBJECT,
        exec::SUBJECT,
        truncate::SUBJECT,
        receive::SUBJECT,
        messages::SENDING,
        messages::RECEIVING,
        connect::CONNECTING,
        connect::BINDING,
        open::SUBJECT,
        content::SUBJECT,
        memory::SUBJECT,
        names::RENAMING,
        names::MAKING,
        kill::SUBJECT,
        options::SETTING,
        options::ASKING,
        attributes::EXTENDED,
        attributes::MODE,
        names::UNLINKING,
        tasks::MAKING,
        tasks::BECOMING,
        bpf::SUBJECT,
        served::SUBJECT,
    ];
    subjects.map(Subject::probe).into()
}

/// What a probe is about.
#[derive(Clone, Copy)]
struct Subject {
    /// The probe's name.
    name: &'static str,
    /// What user space does in each of the ways, for the question: "Which ways to .. lead to ..".
    what: &'static str,
    /// The hooks, without `bpf_lsm_`, in the order in which one operation passes them.
    hooks: &'static [&'static str],
    /// The ways.
    ways: &'static [Way],
    /// Where the kernel calls the hooks, or does not.
    sources: &'static [Source],
}

impl Subject {
    fn probe(self) -> Probe {
        let hooks = self.hooks.join(", ");
        let question = format!(
            "Which ways to {} lead to {hooks}, how often, and what does user space see of a denial by each?",
            self.what
        );
        Probe::new(format!("reach/{}", self.name), question, self.sources, move |session| self.run(session))
    }

    fn run(self, session: &mut Session<'_>) -> Result<(), Stop> {
        let mut watch = None;
        session.case("programs", |attempt| {
            watch = Some(Watch::new(attempt, self.hooks)?);
            Ok(())
        })?;
        let Some(mut watch) = watch else { return Ok(()) };
        for way in self.ways {
            session.case(way.name, |attempt| watch.ask(attempt, way))?;
        }
        Ok(())
    }
}
