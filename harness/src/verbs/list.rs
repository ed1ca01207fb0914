//! `conform list`: the probes with their questions, or what the snapshots say of hooks on the whole.

use super::project::{Project, glob_set, probe_globs, probe_infos};
use crate::cli::{AnswerFormat, ListOptions};
use crate::exit::{self, Failure};
use crate::facts;
use crate::report::{coverage, documented, list};

/// Prints what is asked for.
pub(super) fn list(project: &Project, options: &ListOptions) -> Result<u8, Failure> {
    let of_records = options.coverage || options.unfired || options.undocumented || options.unsupported;
    if !of_records {
        if !options.kernels.is_empty() {
            let why = anyhow::anyhow!(
                "list --kernel goes with what is listed from records, such as --coverage or --reasons; the probes are the same everywhere"
            );
            return Err(Failure::new(exit::BAD_INPUT, why));
        }
        return list_probes(project, options);
    }
    let (kernels, snapshots) = project.measured_of(&options.kernels)?;
    let broken = |error: serde_json::Error| Failure::new(exit::INFRASTRUCTURE, error);
    let text = if options.coverage {
        let figures = coverage::coverage(&snapshots, &kernels);
        match options.format {
            AnswerFormat::Table => coverage::coverage_table(&figures),
            AnswerFormat::Json => serde_json::to_string_pretty(&figures).map_err(broken)?,
        }
    } else if options.undocumented || options.unsupported {
        let (claims, items) = (project.claims()?, facts::collect(&snapshots, &kernels));
        let differences = if options.undocumented {
            documented::undocumented(&items, &claims)
        } else {
            documented::unsupported(&items, &claims)
        };
        match options.format {
            AnswerFormat::Table => documented::table(&differences, &kernels, width()),
            AnswerFormat::Json => serde_json::to_string_pretty(&differences).map_err(broken)?,
        }
    } else {
        let unfired = coverage::unfired(&snapshots, &kernels);
        match options.format {
            AnswerFormat::Table => coverage::unfired_table(&unfired, &kernels, width()),
            AnswerFormat::Json => serde_json::to_string_pretty(&unfired).map_err(broken)?,
        }
    };
    super::print(&text);
    Ok(exit::OK)
}

/// Prints the probes.
fn list_probes(project: &Project, options: &ListOptions) -> Result<u8, Failure> {
    let mut globs = options.probes.clone();
    globs.extend(options.family.iter().cloned());
    let dynamic = project.dynamic_ids()?;
    let set = glob_set(&probe_globs(&globs, &dynamic)?)?;
    let probes: Vec<_> = probe_infos(&dynamic)
        .into_iter()
        .filter(|probe| globs.is_empty() || set.is_match(&probe.id))
        .collect();
    match options.format {
        AnswerFormat::Table => super::print(&list::table(&probes, width())),
        AnswerFormat::Json => {
            let text = list::json(&probes).map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?;
            super::print(&text);
        }
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
