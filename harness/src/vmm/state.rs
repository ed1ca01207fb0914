//! Saved machines: a guest that has booted and waits, kept so that the next run need not boot it.
//!
//! A state is one file in the cache, named after the SHA-256 of everything that it depends on ([`Key`]). It holds a line
//! of JSON ([`Head`]) after its SHA-256, and QEMU's migration stream, compressed with a checksum at its end; a file that is
//! cut or changed is found out before the machine it holds runs. States are written beside their place and renamed into it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Changes when a state written by an older harness must not be used.
const FORMAT: u32 = 2;
/// How much all states together may take, in bytes. One takes 23 to 35 MB, and a kernel has nine, for each launcher.
const ROOM: u64 = 12 << 30;
/// Files of a writer that has gone are removed when they are older than this, by the next run that saves or restores
/// machines.
const ABANDONED: Duration = Duration::from_secs(3600);
const SUFFIX: &str = "state";
/// Fast: a state is written once and read for each boot, and reading costs the same at every level.
const LEVEL: i32 = 1;

/// Everything that a saved machine depends on. The guest's second stage is not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// [`FORMAT`].
    format: u32,
    /// SHA-256 of the kernel image.
    pub image: String,
    /// SHA-256 of the initramfs, which holds the first stage.
    pub initramfs: String,
    /// QEMU: version, path, size and time of the binary.
    pub qemu: String,
    /// The command that starts the machine, with its own paths replaced: accelerator, processor, memory, devices
    /// and the kernel's command line are all in it.
    pub command: Vec<String>,
    /// The processor of the host, on which `-cpu max` depends.
    pub processor: String,
}

impl Key {
    /// The key of a machine on this host.
    #[must_use]
    pub fn new(image: &str, initramfs: &str, qemu: &str, command: Vec<String>) -> Self {
        Self {
            format: FORMAT,
            image: image.to_owned(),
            initramfs: initramfs.to_owned(),
            qemu: qemu.to_owned(),
            command,
            processor: processor(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        }
    }

    fn file_name(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        format!("{:x}.{SUFFIX}", Sha256::digest(&text))
    }
}

/// What makes one host's processor different from another's, as far as a guest can see it.
fn processor(cpuinfo: &str) -> String {
    let first = cpuinfo.lines().take_while(|line| !line.is_empty());
    let wanted = ["vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags"];
    let facts: Vec<&str> = first
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| wanted.contains(&name.trim()))
        .map(|(_, value)| value.trim())
        .collect();
    facts.join("; ")
}

/// What stands before the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The key, in full: a state is used only if it is the same.
    pub key: Key,
    /// QEMU's own command line when the machine was saved, with its paths replaced.
    pub qemu: Vec<String>,
}

impl Head {
    /// The line that stands before the stream.
    fn written(&self) -> serde_json::Result<String> {
        let text = serde_json::to_string(self)?;
        Ok(format!("{:x} {text}\n", Sha256::digest(&text)))
    }

    /// What such a line says. Its command is run as it stands, so a line that is not as it was written is refused first.
    fn read(line: &str) -> Result<Self, String> {
        let split = line.strip_suffix('\n').and_then(|line| line.split_once(' '));
        let (sum, text) = split.ok_or("its first line is no head")?;
        if format!("{:x}", Sha256::digest(text)) != sum {
            return Err("its head was changed or is damaged".into());
        }
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

/// What can go wrong with a state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what its name promises.
    #[error("{} is no state of this machine: {why}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl crate::exit::ExitCode for StateError {
    fn exit_code(&self) -> u8 {
        crate::exit::INFRASTRUCTURE
    }
}

/// The folder of the states.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    room: u64,
}

/// A state that was found. Reading it gives the migration stream.
pub struct State {
    /// What stands before the stream.
    pub head: Head,
    path: PathBuf,
    stream: zstd::Decoder<'static, BufReader<File>>,
}

/// A state being written. Dropping it leaves nothing behind.
pub struct Writer {
    path: PathBuf,
    stream: zstd::Encoder<'static, tempfile::NamedTempFile>,
}

impl Store {
    /// The store in `folder`, which is made if need be.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn open(folder: PathBuf) -> Result<Self, StateError> {
        fs::create_dir_all(&folder).map_err(|source| io_error("make", &folder, source))?;
        let store = Self { folder, room: ROOM };
        store.remove_abandoned();
        Ok(store)
    }

    /// The state of `key`, if there is one.
    ///
    /// # Errors
    /// [`StateError`], when there is one that cannot be used.
    pub fn find(&self, key: &Key) -> Result<Option<State>, StateError> {
        let path = self.folder.join(key.file_name());
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|source| io_error("open", &path, source))?,
        };
        // What is used stays longest. A time that cannot be set makes the state go earlier, no more.
        let _ = file.set_modified(SystemTime::now());
        let mut file = BufReader::new(file);
        let mut line = String::new();
        file.by_ref().take(1 << 20).read_line(&mut line).map_err(|source| io_error("read", &path, source))?;
        let head = Head::read(&line).map_err(|why| StateError::Wrong { path: path.clone(), why })?;
        if head.key != *key {
            return Err(StateError::Wrong { path, why: "its key is another's".into() });
        }
        let stream = zstd::Decoder::with_buffer(file).map_err(|source| io_error("read", &path, source))?;
        Ok(Some(State { head, path, stream }))
    }

    /// Begins to write a state.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn create(&self, head: &Head) -> Result<Writer, StateError> {
        let path = self.folder.join(head.key.file_name());
        let failed = |source| io_error("write", &path, source);
        let mut file = tempfile::Builder::new().prefix("half-").tempfile_in(&self.folder).map_err(failed)?;
        let line = head.written().map_err(|error| failed(error.into()))?;
        file.write_all(line.as_bytes()).map_err(failed)?;
        let mut stream = zstd::Encoder::new(file, LEVEL).map_err(failed)?;
        stream.include_checksum(true).map_err(failed)?;
        Ok(Writer { path, stream })
    }

    /// Puts a state in its place and drops the oldest ones beyond the room there is.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn publish(&self, writer: Writer) -> Result<(), StateError> {
        let path = writer.path;
        let file = writer.stream.finish().map_err(|source| io_error("write", &path, source))?;
        file.persist(&path).map_err(|error| io_error("publish", &path, error.error))?;
        self.tidy(&path);
        Ok(())
    }

    /// The files of the folder with their times and lengths: the states, or what is none.
    fn files(&self, states: bool) -> Vec<(SystemTime, u64, PathBuf)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let facts = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
        facts
            .filter(|(path, _)| path.extension().is_some_and(|it| it == SUFFIX) == states)
            .map(|(path, facts)| (facts.modified().unwrap_or(SystemTime::UNIX_EPOCH), facts.len(), path))
            .collect()
    }

    /// Removes what a killed writer has left. What cannot be removed is left to the next run.
    fn remove_abandoned(&self) {
        for (modified, _, path) in self.files(false) {
            if modified.elapsed().is_ok_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Drops the oldest states that are beyond the room. `kept` stays.
    fn tidy(&self, kept: &Path) {
        let mut states = self.files(true);
        let mut total: u64 = states.iter().map(|(_, length, _)| length).sum();
        states.sort();
        for (_, length, path) in states {
            if total <= self.room {
                return;
            }
            // One that cannot be removed is tried again with the next state.
            if path != kept && fs::remove_file(&path).is_ok() {
                total -= length;
            }
        }
    }
}

impl State {
    /// Removes the file: it was found to be of no use.
    pub fn discard(path: &Path) {
        let _ = fs::remove_file(path);
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Read for State {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(into)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(image: &str) -> Key {
        Key::new(image, "i", "q", vec!["qemu".into()])
    }

    fn put(store: &Store, image: &str, bytes: &[u8]) -> PathBuf {
        let mut writer = store.create(&Head { key: key(image), qemu: vec!["q".into()] }).unwrap();
        writer.write_all(bytes).unwrap();
        let path = writer.path.clone();
        store.publish(writer).unwrap();
        path
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("states")).unwrap();
        (folder, store)
    }

    /// Bytes that cannot be compressed (a xorshift generator).
    fn noise(length: usize) -> Vec<u8> {
        let mut word = 0x9e37_79b9_7f4a_7c15_u64;
        let next = || {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()[3]
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn what_was_saved_is_read_back_under_the_same_key_only() {
        let (_folder, store) = store();
        put(&store, "a", b"stream");
        let mut text = String::new();
        store.find(&key("a")).unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "stream");
        assert!(store.find(&key("b")).unwrap().is_none());
    }

    #[test]
    fn a_changed_or_cut_stream_is_found_out() {
        let (_folder, store) = store();
        let path = put(&store, "a", &noise(100_000));
        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        for bad in [&changed[..], &whole[..whole.len() - 1]] {
            fs::write(&path, bad).unwrap();
            let mut state = store.find(&key("a")).unwrap().unwrap();
            assert!(io::copy(&mut state, &mut io::sink()).is_err());
        }
    }

    #[test]
    fn a_changed_head_is_found_out() {
        let (_folder, store) = store();
        let path = put(&store, "a", b"stream");
        let whole = fs::read(&path).unwrap();
        let length = whole.iter().position(|&byte| byte == b'\n').unwrap();
        // The last but four is the name of QEMU's program.
        for at in [0, 70, length - 4, length - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            let error = store.find(&key("a")).err().unwrap().to_string();
            assert!(error.contains("is no state of this machine: its"), "{at}: {error}");
        }
    }

    #[test]
    fn a_state_under_another_ones_name_is_refused() {
        let (_folder, store) = store();
        let path = put(&store, "a", b"stream");
        fs::rename(&path, path.with_file_name(key("b").file_name())).unwrap();
        let error = store.find(&key("b")).err().unwrap();
        assert!(error.to_string().contains("its key is another's"), "{error}");
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let (_folder, mut store) = store();
        store.room = 150_000;
        let paths: Vec<PathBuf> = ["a", "b", "c"]
            .iter()
            .enumerate()
            .map(|(at, image)| {
                let path = put(&store, image, &noise(60_000 + at));
                let age = Duration::from_secs(100 - at as u64);
                if let Ok(file) = File::options().append(true).open(&path) {
                    file.set_modified(SystemTime::now() - age).unwrap();
                }
                path
            })
            .collect();
        assert_eq!(paths.iter().map(|path| path.exists()).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let (folder, store) = store();
        drop(store.create(&Head { key: key("a"), qemu: Vec::new() }).unwrap());
        assert_eq!(fs::read_dir(folder.path().join("states")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_writer_has_left_goes_with_the_next_run() {
        let (folder, store) = store();
        let states = folder.path().join("states");
        let kept = put(&store, "a", b"stream");
        let half = |name: &str, age: Duration| {
            let path = states.join(name);
            File::create(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
            path
        };
        let (left, under_way) = (half("half-1", ABANDONED * 2), half("half-2", ABANDONED / 2));
        File::options()
            .append(true)
            .open(&kept)
            .unwrap()
            .set_modified(SystemTime::now() - ABANDONED * 2)
            .unwrap();
        Store::open(states).unwrap();
        assert_eq!([left, under_way, kept].map(|path| path.exists()), [false, true, true]);
    }

    #[test]
    fn another_processor_is_another_key() {
        let one = "processor\t: 0\nmodel name\t: X\nflags\t\t: fpu\ncpu MHz\t\t: 1\n\nprocessor\t: 1\nflags\t: no\n";
        assert_eq!(processor(one), "X; fpu");
    }
}
