//! Getting a machine to where it waits for its plan: restored from a saved state where there is one, else booted,
//! and then saved for the next time.

use super::image::{Image, ImageError};
use super::setup::{Job, Observer, Setup};
use crate::interrupt;
use crate::vmm::state::{Key, State};
use crate::vmm::warm::key;
use crate::vmm::{Machine, MachineError, MachineSpec};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a booting machine is looked at.
const POLL: Duration = Duration::from_millis(3);

/// Why no machine can be started at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Starts the machines of one kernel.
pub(super) struct Starter<'a> {
    pub(super) setup: &'a Setup,
    pub(super) job: &'a Job,
    pub(super) observer: &'a dyn Observer,
    /// The kernel's image, which is looked at before and after each start.
    pub(super) image: Image,
    /// Saving has failed once here: it is not tried again in this run.
    pub(super) given_up: bool,
}

impl Starter<'_> {
    /// A machine that waits; `None` when it was lost, or out of time, before it did. Its console is at `console`.
    ///
    /// # Errors
    /// [`StartError`].
    pub(super) fn start(
        &mut self,
        spec: &MachineSpec,
        console: &Path,
    ) -> Result<Option<Machine>, StartError> {
        self.image.check()?;
        let Some(key) = self.key(spec) else { return self.boot(spec, console) };
        if let Some(machine) = self.restore(&key, spec, console) {
            return Ok(Some(machine));
        }
        let Some(mut machine) = self.boot(spec, console)? else { return Ok(None) };
        let Some(store) = &self.setup.states else { return Ok(Some(machine)) };
        match machine.save(store, key, spec) {
            Ok(()) => Ok(Some(machine)),
            Err(_) if interrupt::asked().is_some() => Ok(None),
            Err(error) => {
                self.note(&format!("cannot keep the booted machine, so each run boots it: {error}"));
                self.given_up = true;
                machine.kill();
                self.boot(spec, console)
            }
        }
    }

    /// The key under which such a machine is kept, unless none is to be.
    fn key(&self, spec: &MachineSpec) -> Option<Key> {
        if self.given_up || self.setup.states.is_none() {
            return None;
        }
        let setup = self.setup;
        let key = key(spec, &setup.launcher, &self.job.image.sha256, &setup.qemu_version);
        match key {
            Ok(key) => Some(key),
            Err(error) => {
                self.note(&format!("booting: what the machine depends on cannot be read: {error}"));
                None
            }
        }
    }

    /// The kept machine, if there is one that can be used; one that cannot is dropped.
    fn restore(&self, key: &Key, spec: &MachineSpec, console: &Path) -> Option<Machine> {
        let store = self.setup.states.as_ref()?;
        let state = match store.find(key) {
            Ok(found) => found?,
            Err(error) => {
                self.note(&format!("booting instead of restoring: {error}"));
                return None;
            }
        };
        let path = state.path().to_owned();
        match Machine::restore(state, spec, console, &self.setup.guard) {
            Ok(machine) if machine.waits() => Some(machine),
            Ok(_) => {
                self.drop_state(&path, "the saved guest does not wait");
                None
            }
            // It says nothing against the state.
            Err(_) if interrupt::asked().is_some() => None,
            Err(error) => {
                self.drop_state(&path, &error.to_string());
                None
            }
        }
    }

    fn drop_state(&self, path: &Path, why: &str) {
        State::discard(path);
        self.note(&format!("booting instead of restoring: {why}"));
    }

    fn boot(&mut self, spec: &MachineSpec, console: &Path) -> Result<Option<Machine>, StartError> {
        let setup = self.setup;
        let mut machine = Machine::boot(spec, &setup.launcher, console, &setup.guard)?;
        let deadline = machine.started + setup.deadlines.hello;
        while !machine.waits() {
            if !machine.is_running() || Instant::now() > deadline || interrupt::asked().is_some() {
                machine.kill();
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
        // It has been read since the last look, and is not saved as another.
        self.image.check()?;
        Ok(Some(machine))
    }

    fn note(&self, text: &str) {
        self.observer.note(&self.job.kernel, text);
    }
}
