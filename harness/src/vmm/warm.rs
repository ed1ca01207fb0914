//! Saving a machine that waits, and starting one from what was saved.
//!
//! The stream passes through this program in both directions, so that it is compressed and checked on the way and no
//! shell is needed. A restored machine stands still until its plan is in place: restoring fills the channel, which is
//! guest memory to QEMU, with what it held when the machine was saved.

use super::launch::{BootFiles, Launcher, MachineSpec};
use super::machine::{Machine, MachineError};
use super::qmp::{LOOK, Qmp, QmpError, connect, is_pause};
use super::state::{Head, Key, State, StateError, Store};
use crate::interrupt;
use serde_json::json;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long saving or restoring may take in all; on an idle machine both take less than a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes per second: no limit that matters. QEMU's default is made for networks.
const BANDWIDTH: u64 = 1 << 40;
/// What stands for a machine's own paths in a key and in a saved command line.
const PLACES: [&str; 3] = ["@FILES@", "@IMAGE@", "@INITRAMFS@"];

/// Why a machine could not be saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum WarmError {
    /// The monitor.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The file.
    #[error(transparent)]
    State(#[from] StateError),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The stream between QEMU and the file.
    #[error("the saved machine cannot be {what}: {source}")]
    Stream {
        /// `written` or `read`.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// QEMU's process was not found.
    #[error("cannot find the process of qemu that uses {}", .0.display())]
    NoProcess(PathBuf),
}

/// The key of the machine that `spec` describes.
///
/// # Errors
/// When the initramfs or QEMU cannot be read.
pub fn key(spec: &MachineSpec, launcher: &Launcher, image_sha256: &str, version: &str) -> io::Result<Key> {
    use sha2::Digest;
    let [files, image, initramfs] = PLACES.map(PathBuf::from);
    let placed = MachineSpec { image, initramfs, ..spec.clone() };
    let (program, arguments) = placed.command(launcher, &BootFiles::within(&files));
    let mut command = vec![program.to_string_lossy().into_owned()];
    command.extend(arguments.iter().map(|word| word.to_string_lossy().into_owned()));
    let facts = fs::metadata(&launcher.qemu)?;
    let modified = facts.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let qemu = format!("{version}; {}; {} bytes; {modified:?}", launcher.qemu.display(), facts.len());
    let initramfs = format!("{:x}", sha2::Sha256::digest(fs::read(&spec.initramfs)?));
    Ok(Key::new(image_sha256, &initramfs, &qemu, command))
}

impl Machine {
    /// Saves this machine, which waits, and leaves it standing still; [`Machine::go`] sends it on.
    ///
    /// # Errors
    /// [`WarmError`]; the machine must then be given up.
    pub fn save(&mut self, store: &Store, key: Key, spec: &MachineSpec) -> Result<(), WarmError> {
        let deadline = Instant::now() + PATIENCE;
        let files = self.files.path().to_owned();
        let words = command_line_of(&files.join(super::launch::CHANNEL))
            .ok_or_else(|| WarmError::NoProcess(files.join(super::launch::CHANNEL)))?;
        let qemu = words.iter().map(|word| displaced(word, &files, spec)).collect();
        let mut writer = store.create(&Head { key, qemu })?;

        let mut qmp = Qmp::connect(&files.join(super::launch::MONITOR), deadline, &mut || self.is_running())?;
        qmp.command("stop", json!({}))?;
        qmp.command("migrate-set-parameters", json!({ "max-bandwidth": BANDWIDTH }))?;
        let written = |source| WarmError::Stream { what: "written", source };
        let socket = files.join("out");
        let listener = UnixListener::bind(&socket).map_err(written)?;
        qmp.command("migrate", json!({ "uri": format!("unix:{}", socket.display()) }))?;
        // QEMU connects before it answers, so this does not wait.
        listener.set_nonblocking(true).map_err(written)?;
        let mut stream = patiently(deadline, || {
            let accepted = listener.accept();
            if accepted.as_ref().is_err_and(is_pause) {
                std::thread::sleep(Duration::from_millis(2));
            }
            accepted
        })
        .map_err(written)?
        .0;
        stream.set_nonblocking(false).map_err(written)?;
        stream.set_read_timeout(Some(LOOK)).map_err(written)?;
        pass_on(&mut stream, &mut writer, deadline).map_err(written)?;
        qmp.until("query-migrate", deadline, |status| match status {
            "completed" => Ok(true),
            "failed" | "cancelled" => {
                Err(QmpError::Refused { command: "migrate".into(), why: status.to_owned() })
            }
            _ => Ok(false),
        })?;
        store.publish(writer)?;
        qmp.has_time();
        self.monitor = Some(qmp);
        Ok(())
    }

    /// Starts the machine that `state` holds, up to where it was saved, standing still.
    ///
    /// # Errors
    /// [`WarmError`]; nothing is left running.
    pub fn restore(
        mut state: State,
        spec: &MachineSpec,
        console: &Path,
        guard: &Path,
    ) -> Result<Self, WarmError> {
        let deadline = Instant::now() + PATIENCE;
        let words = state.head.qemu.clone();
        let mut machine = Self::launch(console, guard, |files| {
            let mut words = words.iter().map(|word| placed(word, files, spec));
            let program = words.next().unwrap_or_default();
            let mut arguments: Vec<std::ffi::OsString> = words.map(Into::into).collect();
            arguments.extend(["-S".into(), "-incoming".into()]);
            arguments.push(format!("unix:{}", files.join("in").display()).into());
            (program.into(), arguments)
        })?;
        let files = machine.files.path().to_owned();
        let read = |source| WarmError::Stream { what: "read", source };
        let mut lives = || machine.is_running();
        let mut stream = connect(&files.join("in"), deadline, &mut lives).map_err(read)?;
        stream.set_write_timeout(Some(LOOK)).map_err(read)?;
        pass_on(&mut state, &mut stream, deadline).map_err(read)?;
        drop(stream);
        let mut qmp = Qmp::connect(&files.join(super::launch::MONITOR), deadline, &mut lives)?;
        qmp.until("query-status", deadline, |status| Ok(status != "inmigrate"))?;
        qmp.has_time();
        machine.monitor = Some(qmp);
        machine.restored = true;
        Ok(machine)
    }
}

/// Copies all of `from` to `to` by `deadline`. What of the two is a socket has a timeout, [`LOOK`].
fn pass_on(from: &mut impl Read, to: &mut impl Write, deadline: Instant) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = patiently(deadline, || from.read(&mut buffer))?;
        let mut rest = buffer.get(..count).unwrap_or_default();
        if rest.is_empty() {
            return to.flush();
        }
        while !rest.is_empty() {
            let written = patiently(deadline, || to.write(rest))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = rest.get(written..).unwrap_or_default();
        }
    }
}

/// Tries until it is done, the deadline has passed, or a signal asks this program to stop.
fn patiently<T>(deadline: Instant, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        interrupt::check()?;
        if Instant::now() > deadline {
            let what = format!("not done after {} s", PATIENCE.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        match act() {
            Err(error) if is_pause(&error) || error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// The command line of the QEMU that uses the channel at `path`; a launcher may have put others before it.
fn command_line_of(path: &Path) -> Option<Vec<String>> {
    let path = path.to_string_lossy().into_owned();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let program = fs::read_link(entry.path().join("exe")).ok()?;
        if !program.file_name()?.as_bytes().starts_with(b"qemu-system") {
            return None;
        }
        let text = fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<String> =
            text.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        // What follows the last zero is not a word.
        let words = words.split_last().map(|(_, words)| words.to_vec())?;
        words.iter().any(|word| word.contains(&path)).then_some(words)
    })
}

fn displaced(word: &str, files: &Path, spec: &MachineSpec) -> String {
    let paths = [files, &spec.image, &spec.initramfs];
    paths
        .iter()
        .zip(PLACES)
        .fold(word.to_owned(), |word, (path, place)| word.replace(path.to_string_lossy().as_ref(), place))
}

fn placed(word: &str, files: &Path, spec: &MachineSpec) -> String {
    let paths = [files, &spec.image, &spec.initramfs];
    paths
        .iter()
        .zip(PLACES)
        .fold(word.to_owned(), |word, (path, place)| word.replace(place, path.to_string_lossy().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    /// A stream that never stops, and that always has a little: no single read waits long.
    #[test]
    fn a_stream_that_drips_is_given_up() {
        let (mut from, mut theirs) = UnixStream::pair().unwrap();
        from.set_read_timeout(Some(LOOK)).unwrap();
        let drips = std::thread::spawn(move || {
            while theirs.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let started = Instant::now();
        let error = pass_on(&mut from, &mut io::sink(), started + Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(from);
        drips.join().unwrap();
        // And one that nobody takes.
        let (mut to, _theirs) = UnixStream::pair().unwrap();
        to.set_write_timeout(Some(LOOK)).unwrap();
        let error = pass_on(&mut io::repeat(1), &mut to, Instant::now() + LOOK).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() < PATIENCE / 3);
    }

    /// Whose program is not there any more, for instance.
    #[test]
    fn a_state_whose_qemu_ends_at_once_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let guard = folder.path().join("guard");
        fs::write(&guard, "#!/bin/sh\nexit 127\n").unwrap();
        fs::set_permissions(&guard, fs::Permissions::from_mode(0o700)).unwrap();
        let store = Store::open(folder.path().join("states")).unwrap();
        let key = Key::new("i", "i", "q", Vec::new());
        let writer = store.create(&Head { key: key.clone(), qemu: vec!["/no/such/qemu".into()] }).unwrap();
        store.publish(writer).unwrap();
        let state = store.find(&key).unwrap().unwrap();
        let spec = MachineSpec {
            image: "/i".into(),
            initramfs: "/i".into(),
            lsm: "bpf".into(),
            append: Vec::new(),
            memory_mib: 1,
            cpus: 1,
            accel: crate::vmm::Accel::Tcg,
        };
        let started = Instant::now();
        let error = Machine::restore(state, &spec, &folder.path().join("console"), &guard).err().unwrap();
        assert!(error.to_string().contains("qemu ended before it could be reached"), "{error}");
        assert!(started.elapsed() < PATIENCE / 3);
    }
}
