//! One program attached more than once.

use crate::lsm::{Attached, LsmProgram};
use crate::rules::{EXEC, SESSION, Site, VOID};
use crate::session::{Attempt, Ended, Session, Stop};

/// While it is attached, and after it was detached; in both ways of attaching that kernels know.
pub(super) fn same_program(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("while-attached", |attempt| twice(attempt, SESSION, true, false))?;
    session.case("while-attached-void", |attempt| twice(attempt, VOID, true, false))?;
    session.case("while-attached-sleepable", |attempt| twice(attempt, EXEC, true, true))?;
    session.case("after-detach", |attempt| twice(attempt, SESSION, false, false))?;
    session.case("after-detach-void", |attempt| twice(attempt, VOID, false, false))?;
    session.case("loaded-twice", |attempt| {
        let results = attempt.results()?;
        let program = LsmProgram::counting(SESSION.hook, &results);
        let _first = attempt.attach_lsm(&program)?;
        let _second = attempt.attach_lsm(&program)?;
        Ok(())
    })
}

/// Attaches a program, and once more while it is attached or after it was detached.
fn twice(attempt: &mut Attempt<'_>, site: Site, while_attached: bool, sleepable: bool) -> Result<(), Ended> {
    let results = attempt.results()?;
    let program = LsmProgram::counting(site.hook, &results);
    let program = if sleepable { program.sleepable() } else { program };
    let Attached { program, link } = attempt.attach_lsm(&program)?;
    let link = while_attached.then_some(link);
    let again = attempt.attach(&program);
    drop(link);
    again.map(drop)
}
