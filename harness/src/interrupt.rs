//! Being asked to stop: Ctrl-C, `SIGTERM`, `SIGHUP`.
//!
//! A signal ends this program as it would end any other, unless a verb has said, with [`gracefully`], that it looks at
//! [`asked`] and comes to an end of its own; a second signal ends it then. A signal that is ignored when the program
//! starts stays ignored: a shell that is not interactive starts what it puts into the background without `SIGINT`, and
//! `nohup` without `SIGHUP`. Children are started with the dispositions that this program was started with.

use nix::sys::signal::Signal;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::io::Write as _;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The signal that came, or 0.
static CAME: AtomicI32 = AtomicI32::new(0);
/// How many parts of the program come to an end of their own.
static GRACEFUL: AtomicUsize = AtomicUsize::new(0);

/// What is said when a signal ends this program at once.
static PARTING: Mutex<Option<String>> = Mutex::new(None);

/// From here on, a signal that ends this program at once has it say first what is done and what is not.
pub fn say_in_parting(words: impl Into<String>) {
    exchange_parting(Some(words.into()));
}

/// The same until the result is dropped; then what was to be said before is again.
#[must_use]
pub fn in_parting(words: impl Into<String>) -> Parting {
    Parting(exchange_parting(Some(words.into())))
}

/// See [`in_parting`].
pub struct Parting(Option<String>);

impl Drop for Parting {
    fn drop(&mut self) {
        exchange_parting(self.0.take());
    }
}

fn exchange_parting(words: Option<String>) -> Option<String> {
    std::mem::replace(&mut *PARTING.lock().unwrap_or_else(PoisonError::into_inner), words)
}

/// Listens from now on, on a thread of its own. Call it once, before other threads are started.
///
/// # Errors
/// The system's, when a handler cannot be set.
pub fn listen() -> std::io::Result<()> {
    let mut signals = Signals::new(not_ignored(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]))?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let first = CAME.swap(signal, Ordering::SeqCst) == 0;
            if !(first && GRACEFUL.load(Ordering::SeqCst) > 0) {
                if let Some(words) = &*PARTING.lock().unwrap_or_else(PoisonError::into_inner) {
                    let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
                    // Whoever read it may be gone.
                    let _ = writeln!(std::io::stderr(), "ended by {name}; {words}");
                }
                // Guards notice that this process is gone, and tidy up.
                let _ = emulate_default_handler(signal);
            }
        }
    })?;
    Ok(())
}

/// The signals of `wanted` that this process does not ignore.
pub(crate) fn not_ignored(wanted: &[Signal]) -> Vec<i32> {
    wanted.iter().filter(|&&signal| !is_ignored(signal)).map(|&signal| signal as i32).collect()
}

fn is_ignored(signal: Signal) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the present one to the place, which lives across it and of which
    // zeros are a value.
    let (result, now) =
        unsafe { (libc::sigaction(signal as i32, std::ptr::null(), now.as_mut_ptr()), now.assume_init()) };
    result == 0 && now.sa_sigaction == libc::SIG_IGN
}

/// The signal that asked this program to stop, if one has.
#[must_use]
pub fn asked() -> Option<Signal> {
    Signal::try_from(CAME.load(Ordering::SeqCst)).ok()
}

/// An error once a signal has asked this program to stop, for who waits for something outside of it.
pub(crate) fn check() -> std::io::Result<()> {
    match asked() {
        None => Ok(()),
        // Not `Interrupted`, after which readers and writers try again.
        Some(signal) => Err(std::io::Error::other(format!("interrupted by {}", signal.as_str()))),
    }
}

/// From here until the result is dropped, the first signal only makes [`asked`] say so.
#[must_use]
pub fn gracefully() -> Graceful {
    GRACEFUL.fetch_add(1, Ordering::SeqCst);
    Graceful(())
}

/// See [`gracefully`].
pub struct Graceful(());

impl Drop for Graceful {
    fn drop(&mut self) {
        GRACEFUL.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_in_parting_are_those_of_what_goes_on_now() {
        let now = || PARTING.lock().unwrap().clone();
        let before = now();
        let outer = in_parting("getting ready");
        let inner = in_parting("installing");
        assert_eq!(now().as_deref(), Some("installing"));
        drop(inner);
        assert_eq!(now().as_deref(), Some("getting ready"));
        drop(outer);
        assert_eq!(now(), before);
    }
}
