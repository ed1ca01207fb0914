//! What must come of faults before the first machine: in what gets a run ready. No machine is started here.

use super::interruption::{listen, processes_with, wait_for};
use super::{NEW, conform, image_of, must_end, told};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// A program of a few lines of shell.
fn script(path: PathBuf, lines: &str) -> PathBuf {
    std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Cargo has started a compiler by then, which would go on without it.
#[test]
fn a_run_that_is_interrupted_while_the_guest_is_built_says_so_and_leaves_no_compiler() {
    let folder = tempfile::tempdir().unwrap();
    let compiler = script(folder.path().join("compiler"), "echo > \"$1\"; read _");
    let begun = folder.path().join("begun");
    let cargo = script(
        folder.path().join("cargo"),
        &format!("tail -f /dev/null | {} {} & wait", compiler.display(), begun.display()),
    );
    let mut harness = conform()
        .args(["run", "--kernel", NEW, "--vmm", "qemu", "--offline", "--run-dir"])
        .arg(folder.path().join("run"))
        .env("CARGO", cargo)
        .env("CONFORM_CACHE", folder.path().join("cache"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = listen(&mut harness, "building the guest binary", |id| {
        wait_for("the compiler", Duration::from_secs(20), || begun.exists());
        kill(Pid::from_raw(id.cast_signed()), Signal::SIGTERM).unwrap();
    });
    assert_eq!(harness.wait().unwrap().signal(), Some(libc::SIGTERM), "{said}");
    assert!(
        said.contains("ended by SIGTERM; nothing more is recorded and nothing is to be undone"),
        "{said}"
    );
    let compiler = compiler.to_str().unwrap();
    wait_for("the compiler's end", Duration::from_secs(10), || processes_with(compiler).is_empty());
}

/// A `PATH` without QEMU, whose apt-get does `lines`; whoever runs this may install, by a sudo that asks for nothing.
fn packages_by(folder: &Path, lines: &str) -> PathBuf {
    let path = folder.join("bin");
    std::fs::create_dir(&path).unwrap();
    for name in ["env", "timeout", "true", "sleep"] {
        let program = harness::provision::tools::find_in_path(name).unwrap();
        std::os::unix::fs::symlink(program, path.join(name)).unwrap();
    }
    script(path.join("sudo"), "shift; exec \"$@\"");
    script(path.join("apt-get"), lines);
    path
}

/// Broken off between unpacking and configuring, it would leave what nothing can be installed beside.
#[test]
fn a_package_manager_that_has_begun_comes_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    let lines = format!("echo Setting up; sleep 2; echo still there; echo > {}; exit 100", done.display());
    let mut harness = conform()
        .args(["run", "--kernel", NEW, "--vmm", "qemu"])
        .env("PATH", packages_by(folder.path(), &lines))
        .env("CONFORM_CACHE", folder.path().join("cache"))
        .env_remove("CONFORM_QEMU")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = folder.path().join("cache/tools/install.log");
    let said = listen(&mut harness, "installing qemu-system-x86", |id| {
        wait_for("apt's beginning", Duration::from_secs(20), || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("Setting up"))
        });
        kill(Pid::from_raw(id.cast_signed()), Signal::SIGTERM).unwrap();
    });
    assert_eq!(harness.wait().unwrap().signal(), Some(libc::SIGTERM), "{said}");
    assert!(said.contains("ended by SIGTERM; apt-get goes on by itself"), "{said}");
    assert!(!done.exists());
    wait_for("apt's end", Duration::from_secs(20), || done.exists());
    assert!(std::fs::read_to_string(&log).unwrap().contains("still there"));
}

/// Where one was broken off all the same, apt says what is to be done, and so do we.
#[test]
fn an_installation_that_was_broken_off_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "echo \"E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct it.\" >&2; exit 100";
    let output = conform()
        .args(["run", "--kernel", NEW, "--vmm", "qemu"])
        .env("PATH", packages_by(folder.path(), lines))
        .env("CONFORM_CACHE", folder.path().join("cache"))
        .env_remove("CONFORM_QEMU")
        .output()
        .unwrap();
    must_end(&output, 3, &["cannot install qemu-system-x86", "run: sudo dpkg --configure -a"]);
    assert!(!told(&output).contains("updating the system's package lists"), "{}", told(&output));
}

/// Lists that could not be fetched know no modules, and say nothing of whether there are any.
#[test]
fn modules_are_not_given_up_for_lists_that_are_not_there() {
    let cache = tempfile::tempdir().unwrap();
    let image = image_of(NEW);
    let entry = cache.path().join("kernels").join(image.parent().unwrap().file_name().unwrap());
    std::fs::create_dir_all(&entry).unwrap();
    for name in ["vmlinuz", "config", "entry.json"] {
        std::fs::copy(image.with_file_name(name), entry.join(name)).unwrap();
    }
    let output = conform()
        .args(["kernels", "fetch", "--kernel", NEW])
        .env("CONFORM_CACHE", cache.path())
        .envs(
            ["CONFORM_DEBIAN_MIRROR", "CONFORM_DEBIAN_SECURITY_MIRROR"]
                .map(|it| (it, "file:///no/such/mirror")),
        )
        .output()
        .unwrap();
    must_end(&output, 0, &["no modules: cannot update the package lists"]);
    let names = std::fs::read_dir(&entry).unwrap().flatten().map(|it| it.file_name());
    let names: Vec<String> = names.filter_map(|it| it.into_string().ok()).collect();
    assert!(!names.iter().any(|name| name.ends_with(".none")), "{names:?}");
}
