//! Machines without QEMU: the guard is a shell script that only waits, and this process speaks for the guest, over the
//! channel that a machine would have. Everything between a kernel's job and its run is the real thing.

use crate::model::KernelRun;
use crate::run::setup::{Deadlines, Observer, Setup};
use crate::run::tests;
use crate::vmm::launch::CHANNEL;
use conform_boot::layout::{Header, WAITING};
use probes::channel::{GuestEnd, Region};
use probes::protocol::{Announced, Machine, Message, PROTOCOL};
use probes::record::{KernelFacts, Outcome};
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::mem::offset_of;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Says which folder is the machine's, and waits until the file `over` is there or the harness closes the pipe. Who listens
/// to the pipe is gone before the guard is: the harness removes the folder then, and nothing may be written to it.
const GUARD: &str = r#"#!/bin/sh
here=$(dirname "$0") folder=$3
exec 3<&0
(cat <&3 >/dev/null; echo 1 >"$folder/over") 2>/dev/null &
listens=$!
echo "$folder" >"$here/new" && mv "$here/new" "$here/machine"
while [ ! -s "$folder/over" ]; do sleep 0.01; done
cat "$folder/errors" >&2 2>/dev/null
status=$(cat "$folder/over")
kill -9 $listens 2>/dev/null
wait $listens 2>/dev/null
exit "$status"
"#;

/// What the harness waits for, at most.
pub(super) const DEADLINES: Deadlines = Deadlines {
    hello: Duration::from_secs(10),
    probe: Duration::from_secs(10),
    silence: Duration::from_millis(1500),
    power_off: Duration::from_millis(100),
};

/// What a guest does in one boot.
pub(super) type Boot<'a> = &'a (dyn Fn(&mut Guest) + Sync);

/// The guest of one boot, after its harness has said go.
pub(super) struct Guest {
    end: GuestEnd,
    channel: File,
    folder: PathBuf,
    console: File,
}

impl Guest {
    /// Says hello and which probes there are.
    pub(super) fn come_up(&mut self, probes: &[&str]) {
        self.greet();
        self.announce(probes);
    }

    pub(super) fn announce(&mut self, probes: &[&str]) {
        let announced = |probe: &&str| Announced { probe: (*probe).to_owned(), machine: Machine::Shared };
        self.say(&Message::Inventory { probes: probes.iter().map(announced).collect() });
    }

    pub(super) fn greet(&mut self) {
        self.say(&Message::Hello { protocol: PROTOCOL, facts: Box::new(KernelFacts::default()) });
    }

    pub(super) fn say(&mut self, message: &Message) {
        self.end.send(message).unwrap();
    }

    pub(super) fn start(&mut self, probe: &str) {
        self.say(&Message::Start { probe: probe.to_owned() });
    }

    /// Sends a case of the name `name`.
    pub(super) fn case(&mut self, probe: &str, name: &str) {
        self.end.send_case(probe, case(name).as_bytes()).unwrap();
    }

    /// Notes a case, as a probe's process does.
    pub(super) fn note(&mut self, name: &str) {
        assert!(self.end.notes().write(format!("c{}\n", case(name)).as_bytes()));
    }

    pub(super) fn clear(&mut self) {
        self.end.clear();
    }

    pub(super) fn end(&mut self, probe: &str) {
        let probe = probe.to_owned();
        self.say(&Message::End { probe, outcome: Outcome::Observed, warnings: Vec::new(), micros: 1 });
    }

    /// A whole probe without a case.
    pub(super) fn run(&mut self, probe: &str) {
        self.start(probe);
        self.end(probe);
    }

    /// Has the kernel write a line to the console, once everything that was said is read.
    pub(super) fn print(&mut self, line: &str) {
        self.is_read();
        writeln!(self.console, "{line}").unwrap();
    }

    /// Makes the console so long.
    pub(super) fn flood(&mut self, bytes: u64) {
        self.console.set_len(bytes).unwrap();
    }

    /// Has QEMU say something for itself when it ends.
    pub(super) fn qemu_says(&mut self, line: &str) {
        fs::write(self.folder.join("errors"), format!("{line}\n")).unwrap();
    }

    /// Ends the machine with the status that QEMU has when its guest restarts.
    pub(super) fn leave(&mut self) {
        self.is_read();
        let _ = fs::write(self.folder.join("over"), "0\n");
    }

    /// Says nothing, but shows that it lives, until the harness has ended the machine.
    pub(super) fn beat(&self) {
        wait_for("the end of the machine", || {
            self.end.beat();
            !self.folder.exists() || self.folder.join("over").exists()
        });
    }

    /// Waits until the harness has read everything, and has seen that there is no more.
    pub(super) fn is_read(&self) {
        let head = word(&self.channel, offset_of!(Header, head));
        wait_for("the harness to read", || word(&self.channel, offset_of!(Header, tail)) == head);
        std::thread::sleep(20 * super::POLL);
    }
}

fn case(name: &str) -> String {
    format!(r#"{{"name":"{name}","phase":"load","end":"done"}}"#)
}

/// A word of a channel's header.
fn word(channel: &File, at: usize) -> u64 {
    let mut bytes = [0; 8];
    channel.read_exact_at(&mut bytes, at as u64).unwrap();
    u64::from_le_bytes(bytes)
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Keeps what it is told, and stands still for a while when a machine is up.
#[derive(Default)]
struct Notes {
    told: Mutex<Vec<String>>,
    pause: Duration,
}

impl Observer for Notes {
    fn note(&self, _kernel: &str, text: &str) {
        self.told.lock().unwrap().push(text.to_owned());
        if text.starts_with("up:") {
            std::thread::sleep(self.pause);
        }
    }
    fn progress(&self, _kernel: &str, _done: usize, _total: usize) {}
}

/// Runs a kernel whose guests do this, one boot after the other; further boots come to nothing. Gives what the observer
/// was told too.
pub(super) fn run(boots: &[Boot<'_>]) -> (KernelRun, Vec<String>) {
    run_with_a_pause(Duration::ZERO, boots)
}

/// The same, with a harness that stands still for `pause` after the first hello.
pub(super) fn run_with_a_pause(pause: Duration, boots: &[Boot<'_>]) -> (KernelRun, Vec<String>) {
    run_with(pause, DEADLINES, boots)
}

/// The same, with a harness that waits no longer than this.
pub(super) fn run_within(deadlines: Deadlines, boots: &[Boot<'_>]) -> (KernelRun, Vec<String>) {
    run_with(Duration::ZERO, deadlines, boots)
}

fn run_with(pause: Duration, deadlines: Deadlines, boots: &[Boot<'_>]) -> (KernelRun, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let (setup, job) = (Setup { deadlines, ..setup(folder.path()) }, tests::job(folder.path()));
    let notes = Notes { pause, ..Notes::default() };
    let run = std::thread::scope(|scope| {
        let guests = scope.spawn(|| {
            for (at, boot) in boots.iter().enumerate() {
                let mut guest = wait_for_go(folder.path(), at + 1);
                boot(&mut guest);
            }
            // Whatever else is booted ends at once.
            fs::write(folder.path().join("guard"), "#!/bin/sh\nexit 0\n").unwrap();
        });
        let run = crate::run::run_kernel(&setup, &job, &notes);
        guests.join().unwrap();
        run
    });
    (run, notes.told.into_inner().unwrap())
}

/// The guest of boot number `number`, which its harness has sent on.
fn wait_for_go(folder: &Path, number: usize) -> Guest {
    let machine = folder.join("machine");
    wait_for("a machine", || machine.exists());
    let files = PathBuf::from(fs::read_to_string(&machine).unwrap().trim());
    fs::remove_file(&machine).unwrap();
    let channel = File::options().read(true).write(true).open(files.join(CHANNEL)).unwrap();
    channel.write_all_at(&WAITING.to_le_bytes(), offset_of!(Header, stage) as u64).unwrap();
    wait_for("go", || word(&channel, offset_of!(Header, go)) != 0);
    let console = File::options().append(true).open(folder.join(format!("console-{number}.log"))).unwrap();
    let end = GuestEnd::new(Region::map(&channel).unwrap()).unwrap();
    Guest { end, channel, folder: files, console }
}

fn setup(folder: &Path) -> Setup {
    let guard = folder.join("guard");
    fs::write(&guard, GUARD).unwrap();
    fs::set_permissions(&guard, Permissions::from_mode(0o700)).unwrap();
    Setup { guest: b"second stage".as_slice().into(), guard, ..tests::setup(folder) }
}

/// Written between the removal of what the folder holds and its own, a file kept the folder for ever.
#[test]
fn a_scripted_guard_that_is_over_writes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let (setup, files) = (setup(folder.path()), folder.path().join("files"));
    fs::create_dir(&files).unwrap();
    fs::write(files.join("over"), "0\n").unwrap();
    let mut guard = std::process::Command::new(&setup.guard);
    guard.args(["guard", "--remove"]).arg(&files).stdin(std::process::Stdio::piped());
    let mut guard = guard.spawn().unwrap();
    let pipe = guard.stdin.take();
    assert!(guard.wait().unwrap().success());
    fs::remove_file(files.join("over")).unwrap();
    drop(pipe);
    std::thread::sleep(Duration::from_millis(200));
    assert!(!files.join("over").exists());
}
