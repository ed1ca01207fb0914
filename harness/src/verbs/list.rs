//! `conform list`: the probes with their questions.

use super::project::{glob_set, probe_globs, probe_infos};
use crate::cli::{Format, ListOptions};
use crate::exit::{self, Failure};
use crate::report::list;

/// Prints the probes.
pub(super) fn list(options: &ListOptions) -> Result<u8, Failure> {
    let mut globs = options.probes.clone();
    globs.extend(options.family.iter().cloned());
    let set = glob_set(&probe_globs(&globs)?)?;
    let probes: Vec<_> =
        probe_infos().into_iter().filter(|probe| globs.is_empty() || set.is_match(&probe.id)).collect();
    match options.format {
        Format::Table => super::print(&list::table(&probes, width())),
        Format::Json => {
            let text = list::json(&probes).map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?;
            super::print(&text);
        }
        Format::Junit | Format::Markdown => return Err(super::no_such_format("list")),
    }
    Ok(exit::OK)
}

/// Columns of the terminal, 110 where there is none.
pub(super) fn width() -> u16 {
    terminal_width().unwrap_or(110)
}

fn terminal_width() -> Option<u16> {
    // SAFETY: winsize is plain data and TIOCGWINSZ fills it.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live winsize.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 40).then_some(size.ws_col)
}
