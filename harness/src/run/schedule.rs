//! Several kernels at once: as many machines as asked for, each on a thread that mostly waits.

use super::collect::run_kernel;
use super::setup::{Job, Observer, Setup};
use crate::interrupt;
use crate::model::KernelRun;
use std::sync::Mutex;
use std::time::Duration;

/// Runs all `jobs`, at most `width` at once, and hands each result to `finished` as it comes.
/// The results come back in the order of the jobs, without those that had not started when somebody asked to stop: which
/// job one is of, its kernel says.
pub fn run_all(
    setup: &Setup,
    jobs: &[Job],
    width: usize,
    observer: &dyn Observer,
    finished: &(dyn Fn(&KernelRun) + Sync),
) -> Vec<KernelRun> {
    let queue = Mutex::new(shortest_first(jobs));
    let results: Vec<Mutex<Option<KernelRun>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..width.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| {
                while let Some((job, slot)) = take(&queue, jobs, &results) {
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

/// The places of the jobs, so that the last has to start first: the longest as far as that is known. Those that were never
/// run may be longer than any. Of two with nothing between them the later one is taken for the longer: rows go from old
/// to new, and newer kernels have more to answer.
fn shortest_first(jobs: &[Job]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..jobs.len()).collect();
    places.sort_by_key(|&place| (jobs[place].expected.unwrap_or(Duration::MAX), place));
    places
}

fn take<'a, T>(queue: &Mutex<Vec<usize>>, jobs: &'a [Job], slots: &'a [T]) -> Option<(&'a Job, &'a T)> {
    let place = queue.lock().ok()?.pop()?;
    jobs.get(place).zip(slots.get(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ImageFacts;
    use probes::protocol::Part;

    fn job(expected: Option<u64>) -> Job {
        Job {
            kernel: String::new(),
            image: ImageFacts::default(),
            lsm: String::new(),
            release_prefix: String::new(),
            folder: std::path::PathBuf::new(),
            part: Part::default(),
            expected: expected.map(Duration::from_secs),
            before: None,
        }
    }

    #[test]
    fn the_longest_starts_first_and_before_it_what_nobody_knows() {
        let jobs = [job(Some(180)), job(None), job(Some(40)), job(None), job(Some(70)), job(Some(40))];
        assert_eq!(shortest_first(&jobs), [2, 5, 4, 0, 1, 3]);
    }
}
