//! Several kernels at once: as many machines as asked for, each on a thread that mostly waits.

use super::collect::run_kernel;
use super::setup::{Job, Observer, Setup};
use crate::interrupt;
use crate::model::KernelRun;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs all `jobs`, at most `width` at once, and hands each result to `finished` as it comes.
/// The results come back in the order of the jobs, without those that had not started when somebody asked to stop. The last job starts first: rows go from old to new, newer kernels
/// have more to answer, and a run is over soonest when the short ones come last.
pub fn run_all(
    setup: &Setup,
    jobs: &[Job],
    width: usize,
    observer: &dyn Observer,
    finished: &(dyn Fn(&KernelRun) + Sync),
) -> Vec<KernelRun> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<KernelRun>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..width.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| {
                while let Some((job, slot)) = take(&next, jobs, &results) {
                    // Of the jobs that have not started when somebody asks to stop, there is nothing to hand on.
                    if interrupt::asked().is_some() {
                        break;
                    }
                    let run = match &job.before {
                        Some(run) if run.failure.is_none() => run.clone(),
                        Some(_) | None => {
                            let run = run_kernel(setup, job, observer);
                            finished(&run);
                            run
                        }
                    };
                    if let Ok(mut slot) = slot.lock() {
                        *slot = Some(run);
                    }
                }
            });
        }
    });
    results.into_iter().filter_map(|slot| slot.into_inner().ok().flatten()).collect()
}

fn take<'a, T>(next: &AtomicUsize, jobs: &'a [Job], slots: &'a [T]) -> Option<(&'a Job, &'a T)> {
    let index = jobs.len().checked_sub(1 + next.fetch_add(1, Ordering::Relaxed))?;
    jobs.get(index).zip(slots.get(index))
}
