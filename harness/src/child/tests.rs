//! Children that end, are ended, and come to their end.

use super::*;

fn shell(script: &str, seconds: u64) -> Command {
    Command::new("sh", "the test's shell", Duration::from_secs(seconds)).args(["-c", script])
}

#[test]
fn output_is_captured_and_logged() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let output = shell("echo out; echo err >&2", 20).log(&log).run().unwrap();
    assert_eq!(output.stdout, "out\n");
    assert!(output.tail.contains("out\n") && output.tail.contains("err\n"));
    assert!(std::fs::read_to_string(log).unwrap().contains("err\n"));
}

#[test]
fn a_failure_shows_the_tail() {
    let error = shell("echo why it failed; exit 7", 20).run().unwrap_err();
    assert!(error.to_string().contains("exit status: 7"), "{error}");
    assert!(error.to_string().contains("  | why it failed"), "{error}");
}

#[test]
fn the_deadline_kills_grandchildren_too() {
    let started = Instant::now();
    let error = shell("sleep 600 & echo \"begun $!\"; sleep 600", 1).run().unwrap_err();
    assert!(matches!(error, ChildError::Deadline { .. }), "{error}");
    let grandchild = error.tail().trim().strip_prefix("begun ").unwrap().to_owned();
    assert!(started.elapsed() < Duration::from_secs(30));
    // Whoever adopts it may not have taken note of its end yet.
    let stat = || std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
    let runs = || !stat().is_empty() && !stat().contains(") Z ");
    let until = Instant::now() + GONE;
    while runs() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!runs(), "{}", stat());
}

/// As of a process of another user, whom the signal does not reach.
#[test]
fn what_cannot_be_killed_is_left_alone() {
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let started = Instant::now();
    assert_eq!(reap(&mut child), None);
    assert!(started.elapsed() < GONE * 2);
    child.kill().unwrap();
    assert!(reap(&mut child).is_some());
}

#[test]
fn what_is_to_write_a_little_writes_no_more() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let script = format!("head -c 100000 /dev/zero > {}", file.path().display());
    let error = shell(&script, 20).writes_no_more_than(4096).run().unwrap_err();
    assert!(error.to_string().contains("File too large"), "{error}");
    assert_eq!(file.path().metadata().unwrap().len(), 4096);
}

#[test]
fn dropping_kills() {
    let running = shell("sleep 600", 700).spawn().unwrap();
    let stat = PathBuf::from(format!("/proc/{}/stat", running.pid()));
    assert!(stat.exists());
    drop(running);
    assert!(!stat.exists());
}

/// The thread that starts a child stands for the harness: the kernel ends the others with it.
#[test]
fn what_must_not_be_broken_off_comes_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let started = |name: &'static str, finishes: bool| {
        let script = format!("sleep 0.5; echo said; echo more >&2; echo > {}", path(name).display());
        let log = path("log");
        std::thread::spawn(move || {
            let command = shell(&script, 20);
            let command = if finishes { command.finishes(log) } else { command };
            std::mem::forget(command.spawn().unwrap());
        })
        .join()
        .unwrap();
    };
    started("broken off", false);
    started("finished", true);
    let until = Instant::now() + Duration::from_secs(20);
    while !path("finished").exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(path("finished").exists() && !path("broken off").exists());
    assert_eq!(std::fs::read_to_string(path("log")).unwrap(), "said\nmore\n");
    let error = shell("echo why >&2; exit 3", 20).finishes(path("log")).run().unwrap_err();
    assert_eq!(error.tail(), "why\n");
}

#[test]
fn a_missing_program_is_named() {
    let error = Command::new("no-such-program-here", "a test", Duration::from_secs(1)).run().unwrap_err();
    assert!(matches!(error, ChildError::NotFound { .. }));
    assert!(error.to_string().contains("no-such-program-here"));
}
