//! What the suite is compared with, where it is installed: the same kernel booted by virtme-ng's own init to run one
//! command, and `bpftool feature probe` in our guest.

use super::{Bench, ONE, wait};
use crate::child::{self, ChildError};
use crate::exit::{self, Failure};
use crate::provision::tools;
use cpio::newc;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The program in the guest (`probes/src/families/selftest.rs`).
const BPFTOOL: &str = "/usr/sbin/bpftool";
/// How long naming a program's libraries may take, which is done at once.
const LDD_DEADLINE: Duration = Duration::from_secs(60);

impl Bench<'_> {
    /// Everything that there is to compare with. What is missing or does not work here is said, and no figure.
    pub(super) fn compared(&mut self, kernel: &str) -> Result<(), Failure> {
        if let Err(why) = self.bpftool(kernel)? {
            self.progress.say("bench", &format!("compared/bpftool: not taken: {why}"));
        }
        if let Err(why) = self.virtme_ng(kernel)? {
            self.progress.say("bench", &format!("compared/virtme-ng: not taken: {why}"));
        }
        Ok(())
    }

    /// `bpftool feature probe` beside our helpers, which it does not ask about for LSM programs.
    fn bpftool(&mut self, kernel: &str) -> Result<Result<(), String>, Failure> {
        let Some(program) = tools::find_in_path(BPFTOOL) else {
            return Ok(Err(format!("{BPFTOOL} is not there; install the package bpftool")));
        };
        let failed = |error: io::Error| Failure::new(exit::INFRASTRUCTURE, error);
        let folder = self.cache.temp_dir()?;
        let archive = folder.path().join("bpftool.cpio");
        let libraries = libraries("ldd", &program, LDD_DEADLINE).map_err(io::Error::other).map_err(failed)?;
        File::create(&archive).and_then(|file| pack(&program, &libraries, file)).map_err(failed)?;
        let path = archive.to_string_lossy().into_owned();
        let took =
            self.run(&["--kernel", kernel, "--probe", "selftest/bpftool", "--cold", "--bring", &path])?;
        let record = took.runs.first().and_then(|run| run.records.first());
        let well = record.and_then(|record| record.cases.first()?.seen.get("it ends well"));
        let (Some(record), Some("yes")) = (record, well.and_then(serde_json::Value::as_str)) else {
            return Ok(Err("it did not end well in the guest".to_owned()));
        };
        #[expect(clippy::cast_precision_loss, reason = "a figure of a few digits")]
        let theirs = record.micros as f64 / 1e6;
        self.figure("compared/bpftool/feature-probe", theirs, "s");
        if let Some(ours) = self.value("kernel/family/helpers") {
            self.figure("compared/bpftool/helpers-to-it", ours / theirs.max(0.001), "x");
        }
        Ok(Ok(()))
    }

    /// The machine of virtme-ng as its users start it, running `true`.
    fn virtme_ng(&mut self, kernel: &str) -> Result<Result<(), String>, Failure> {
        let Some(vng) = tools::find_vng(&self.cache) else {
            return Ok(Err("virtme-ng is not installed; any run with it installs it".to_owned()));
        };
        let took = self.run(&["--kernel", kernel, "--probe", ONE, "--cold"])?;
        let Some(run) = took.runs.first() else { return Ok(Err("there was no run".to_owned())) };
        let mut command = super::guarded(&self.project.program, &vng.path);
        if run.accel != "kvm" {
            command.arg("--disable-kvm");
        }
        command.args(["--cpus", "1", "--memory", "512M", "--run"]).arg(&run.image.path).args(["--", "true"]);
        let started = Instant::now();
        let (status, _) = wait(command, super::DEADLINE)?;
        let theirs = started.elapsed().as_secs_f64();
        if status != 0 {
            let why = "its init did not come up on this kernel, which may lack 9p, or this system a virtiofsd that it takes";
            return Ok(Err(why.to_owned()));
        }
        self.figure("compared/virtme-ng/one-command", theirs, "s");
        let (cold, warm) = (took.wall.as_secs_f64(), self.value("one-probe/one-kernel"));
        self.figure("compared/virtme-ng/one-probe-cold-to-it", cold / theirs, "x");
        if let Some(warm) = warm {
            self.figure("compared/virtme-ng/one-probe-warm-to-it", warm / theirs, "x");
        }
        Ok(Ok(()))
    }
}

/// The libraries that `ldd` names for a program; none for one that it will not look into, as a static one.
fn libraries(ldd: &str, program: &Path, deadline: Duration) -> Result<Vec<PathBuf>, ChildError> {
    match child::Command::new(ldd, "asking for the libraries of a program", deadline).arg(program).run() {
        Ok(listed) => {
            let words = listed.stdout.split_whitespace();
            Ok(words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
        }
        Err(ChildError::Failed { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Packs a program and its libraries, where they are.
fn pack(program: &Path, libraries: &[PathBuf], mut archive: impl Write) -> io::Result<()> {
    let mut folders = BTreeSet::new();
    for file in std::iter::once(&PathBuf::from(BPFTOOL)).chain(libraries) {
        let name = file.strip_prefix("/").map_err(io::Error::other)?;
        let parents: Vec<&Path> = name.ancestors().skip(1).filter(|it| !it.as_os_str().is_empty()).collect();
        for folder in parents.into_iter().rev() {
            if folders.insert(folder.to_owned()) {
                let head = newc::Builder::new(&folder.to_string_lossy());
                let head = head.set_mode_file_type(newc::ModeFileType::Directory).mode(0o040_755);
                head.write(&mut archive, 0).finish()?;
            }
        }
        let from = if file == Path::new(BPFTOOL) { program } else { file };
        let content = std::fs::read(from)?;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut entry = newc::Builder::new(&name.to_string_lossy()).mode(0o100_755).write(&mut archive, size);
        entry.write_all(&content)?;
        entry.finish()?;
    }
    newc::trailer(&mut archive)?;
    archive.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_that_names_no_libraries_in_time_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let ldd = folder.path().join("ldd");
        let by = |script: &str, deadline| {
            std::fs::write(&ldd, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&ldd, std::fs::Permissions::from_mode(0o700)).unwrap();
            libraries(ldd.to_str().unwrap(), Path::new("/bin/sh"), deadline)
        };
        let lines = "echo 'libc.so.6 => /lib/libc.so.6 (0x7f)'; echo '/lib64/ld.so (0x8f)'";
        let [libc, linker] = ["/lib/libc.so.6", "/lib64/ld.so"].map(PathBuf::from);
        assert_eq!(by(lines, LDD_DEADLINE).unwrap(), [libc, linker]);
        assert!(by("echo 'not a dynamic executable' >&2; exit 1", LDD_DEADLINE).unwrap().is_empty());
        let error = by("exec sleep 600", Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, ChildError::Deadline { .. }), "{error}");
    }
}
