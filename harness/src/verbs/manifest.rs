//! What a run was started with, kept beside its records, so that an interrupted one can go on, parts can be joined, and what
//! is accepted is known to be of the usual machine and of today's probes.
//!
//! Records of two runs may only stand side by side when nothing that decides them has changed in between: the probes,
//! the guest, each kernel's image and modules, the machine, the options. All of that is in the run folder's `run.json`,
//! and a difference is an error that names it.

use super::cannot;
use super::options::{Options, unusual};
use crate::exit::{self, Failure};
use crate::model::KernelRun;
use crate::provision::{modules, sha256_file};
use crate::report::runs;
use crate::run::{Job, Setup};
use crate::text;
use crate::vmm::MachineSpec;
use crate::vmm::launch::BootFiles;
use crate::vmm::state::Key;
use crate::whole::{self, Readers};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The file in a run folder.
pub(super) const FILE: &str = "run.json";
/// Version of the file.
const FORMAT: u32 = 2;
/// What the manifest calls the guest's digest.
const GUEST: &str = "the guest binary, which holds the probes";
/// What it calls the archive of `--bring`.
const BROUGHT: &str = "what --bring adds";
/// What stands for there being none.
const NOTHING: &str = "nothing";
/// What stands for a kernel of a joined folder, which nobody resumes.
const JOINED: &str = "joined";

/// What a run stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    pub(super) options: Options,
    /// What all kernels share: a name for people, and a digest or version.
    shared: BTreeMap<String, String>,
    /// Each kernel's name, and the digest of all that is its own; of one without an image there is none yet.
    kernels: BTreeMap<String, Option<String>>,
    /// Of a joined folder, the manifests that it was made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Self>,
}

impl Manifest {
    /// Of the run that `setup` and `jobs` make; `without` are the kernels that have no image.
    ///
    /// # Errors
    /// Infrastructure, when a file that is part of a machine cannot be read.
    pub(super) fn of(
        options: Options,
        setup: &Setup,
        jobs: &[Job],
        without: &[KernelRun],
    ) -> Result<Self, Failure> {
        let unreadable = |error| Failure::new(exit::INFRASTRUCTURE, error);
        let known = setup.known.join("\n");
        let brought = setup.bring.as_deref().map(sha256_file).transpose().map_err(unreadable)?;
        let shared = [
            (GUEST, digest(&setup.guest)),
            ("the guest's first stage", sha256_file(&setup.initramfs).map_err(unreadable)?),
            ("the probes that only snapshots name", digest(known.as_bytes())),
            ("QEMU", setup.qemu_version.clone()),
            ("virtme-ng", setup.vng_version.clone().unwrap_or_else(|| NOTHING.to_owned())),
            ("the accelerator", setup.accel.name().to_owned()),
            ("the machine", format!("{} MiB, {} processors", setup.memory_mib, setup.cpus)),
            ("the command lines of QEMU and of the kernel", command_lines(setup)),
            ("the host's processor", digest(Key::new("", "", "", Vec::new()).processor.as_bytes())),
            (BROUGHT, brought.unwrap_or_else(|| NOTHING.to_owned())),
        ];
        let mut kernels: BTreeMap<String, Option<String>> =
            without.iter().map(|run| (run.kernel.clone(), None)).collect();
        for job in jobs {
            kernels.insert(job.kernel.clone(), Some(of_kernel(job).map_err(unreadable)?));
        }
        let shared = shared.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Self { format: FORMAT, options, shared, kernels, parts: Vec::new() })
    }

    /// Writes the file, and drops what an earlier run has left in the folder of the same kernels.
    ///
    /// # Errors
    /// Infrastructure.
    pub(super) fn begin(&self, folder: &Path) -> Result<(), Failure> {
        for kernel in self.kernels.keys() {
            let old = runs::path(folder, kernel)?;
            if old.exists() {
                std::fs::remove_file(&old).map_err(|error| cannot("remove", &old, &error))?;
            }
        }
        self.write(folder)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Infrastructure.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Failure> {
        let text =
            serde_json::to_string_pretty(self).map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?;
        let path = folder.join(FILE);
        let written = whole::write(&path, Readers::Owner, |file| file.write_all(text.as_bytes()));
        written.map_err(|error| cannot("write", &path, &error))
    }

    /// Reads the file of a run folder.
    ///
    /// # Errors
    /// Bad input, when there is none or it is another version's.
    pub(super) fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(FILE);
        let bad = |why: String| {
            let folder = folder.display();
            Failure::new(
                exit::BAD_INPUT,
                anyhow::anyhow!("{folder} is no run to go on with, join or accept: {why}"),
            )
        };
        let text = text::read(&path, text::WRITTEN).map_err(|error| {
            bad(format!("no {FILE} ({error}); no machine had been started in it, or it is none of `conform run`'s; run anew"))
        })?;
        let other = |why: String| bad(format!("{FILE} is not one of this version: {why}; run anew"));
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| other(error.to_string()))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(found) if found != u64::from(FORMAT) => return Err(other(format!("it has format {found}"))),
            Some(_) | None => {}
        }
        serde_json::from_value(value).map_err(|error| other(error.to_string()))
    }

    /// Of the usual machine, with these kernels.
    #[cfg(test)]
    pub(super) fn made_up(kernels: &[&str]) -> Self {
        let shared = [(GUEST, digest(b"g")), (BROUGHT, NOTHING.to_owned())];
        Self {
            format: FORMAT,
            options: Options::none().unwrap(),
            shared: shared.map(|(name, value)| (name.to_owned(), value)).into(),
            kernels: kernels.iter().map(|&kernel| (kernel.to_owned(), Some(digest(b"k")))).collect(),
            parts: Vec::new(),
        }
    }

    /// The same of a selection of probes, or a shard of it.
    #[cfg(test)]
    pub(super) fn with(mut self, probes: &[&str], shard: Option<crate::run::shard::Shard>) -> Self {
        self.options.probe = probes.iter().map(|&probe| probe.to_owned()).collect();
        self.options.shard = shard;
        self
    }

    /// The kernels that the run was one of.
    pub(super) fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.keys().map(String::as_str)
    }

    /// The manifests of the runs that a joined folder was made of; of another, its own.
    pub(super) fn parts(&self) -> &[Self] {
        if self.parts.is_empty() { std::slice::from_ref(self) } else { &self.parts }
    }

    /// The digest of the guest's binary.
    pub(super) fn guest(&self) -> &str {
        self.shared.get(GUEST).map_or(NOTHING, String::as_str)
    }

    /// Whether the run was one of this kernel. A folder may have another run's records besides.
    pub(super) fn has(&self, kernel: &str) -> bool {
        self.kernels.contains_key(kernel)
    }

    /// Why its records are not for snapshots, if they are not: they are of an unusual machine, or of other probes than
    /// those of the binary `guest`.
    pub(super) fn not_for_snapshots(&self, guest: &[u8]) -> Option<String> {
        let brought = |it: &Self| it.shared.get(BROUGHT).is_some_and(|it| it != NOTHING);
        if let Some(what) = self.parts().iter().find_map(|part| unusual(&part.options, brought(part))) {
            return Some(format!("they were made with {what}, and snapshots are of the usual machine"));
        }
        let (was, is) = (self.guest(), digest(guest));
        (was != is).then(|| {
            format!(
                "they were made by another guest than today's: it was {} and is {}",
                short(was),
                short(&is)
            )
        })
    }

    /// The manifest of a folder that has the records of several.
    ///
    /// # Errors
    /// Bad input, when they were not made by one guest and in one way.
    pub(super) fn joined(parts: Vec<(PathBuf, Self)>) -> Result<Self, Failure> {
        let all_parts = parts.iter().flat_map(|(_, part)| part.parts()).cloned().collect();
        let mut parts = parts.into_iter();
        let (first, mut all) = parts.next().ok_or_else(|| {
            Failure::new(exit::NOTHING_SELECTED, anyhow::anyhow!("no run folder was named"))
        })?;
        for (folder, part) in parts {
            let what = |it: &Self| {
                let of = |name: &str| it.shared.get(name).cloned().unwrap_or_default();
                let lsm = it.options.lsm.clone().unwrap_or_else(|| "each row's".to_owned());
                [
                    (GUEST, of(GUEST)),
                    (BROUGHT, of(BROUGHT)),
                    ("--lsm", lsm),
                    ("--cpus", it.options.cpus.to_string()),
                ]
            };
            for ((name, one), (_, other)) in what(&all).into_iter().zip(what(&part)) {
                if one != other {
                    let why = anyhow::anyhow!(
                        "{} and {} are not parts of one run: {name} is {} in the first and {} in the second; run one of \
                         them again",
                        first.display(),
                        folder.display(),
                        short(&one),
                        short(&other)
                    );
                    return Err(Failure::new(exit::BAD_INPUT, why));
                }
            }
            all.kernels.extend(part.kernels);
        }
        all.options.shard = None;
        all.parts = all_parts;
        all.kernels.values_mut().for_each(|digest| *digest = Some(JOINED.to_owned()));
        Ok(all)
    }

    /// What is different now, one sentence each.
    pub(super) fn changes(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, value) in &self.shared {
            let other = now.shared.get(name).map_or("nothing", String::as_str);
            if other != value {
                found.push(format!("{name} was {} and is {}", short(value), short(other)));
            }
        }
        let new = now.shared.iter().filter(|(name, _)| !self.shared.contains_key(*name));
        found.extend(new.map(|(name, value)| format!("{name} was not noted and is {}", short(value))));
        for (kernel, was) in &self.kernels {
            match (was, now.kernels.get(kernel)) {
                (_, None) => found.push(format!("kernel {kernel} is no longer among those to run")),
                (Some(was), Some(Some(is))) if was != is => {
                    found.push(format!(
                        "the image, modules or lsm= of {kernel} were {} and are {}",
                        short(was),
                        short(is)
                    ));
                }
                (Some(_), Some(None)) => found.push(format!("the image of {kernel} is gone")),
                (None, Some(_)) | (Some(_), Some(Some(_))) => {}
            }
        }
        let new = now.kernels.keys().filter(|kernel| !self.kernels.contains_key(*kernel));
        found.extend(new.map(|kernel| format!("kernel {kernel} was not among those to run")));
        found
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// As much of a digest as tells it from another; a text that is none, as it is.
fn short(text: &str) -> &str {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { &text[..12] } else { text }
}

/// A digest of how a machine is started, its own paths and its `lsm=`, which are each kernel's, replaced.
fn command_lines(setup: &Setup) -> String {
    let spec = MachineSpec {
        image: "@IMAGE@".into(),
        initramfs: "@INITRAMFS@".into(),
        lsm: "@LSM@".into(),
        append: Vec::new(),
        memory_mib: setup.memory_mib,
        cpus: setup.cpus,
        accel: setup.accel,
    };
    let (program, arguments) = spec.command(&setup.launcher, &BootFiles::within(Path::new("@FILES@")));
    let words = std::iter::once(program.into_os_string()).chain(arguments);
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    digest(words.join("\n").as_bytes())
}

/// All that one kernel's records depend on and others' do not.
fn of_kernel(job: &Job) -> std::io::Result<String> {
    let modules = modules::beside(&job.image.path).map(|path| sha256_file(&path)).transpose()?;
    let words = [
        job.image.sha256.as_str(),
        modules.as_deref().unwrap_or("none"),
        &job.lsm,
        &job.release_prefix,
        &format!("{}/{}", job.part.index, job.part.of),
    ];
    Ok(digest(words.join("\n").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(guest: &str, kernel: &str) -> Manifest {
        let mut made = Manifest::made_up(&[kernel]);
        made.shared.insert(GUEST.into(), digest(guest.as_bytes()));
        made
    }

    #[test]
    fn what_was_not_noted_then_is_a_change_too() {
        let was = manifest("g", "7.3");
        let mut now = was.clone();
        assert!(was.changes(&now).is_empty());
        now.shared.insert("virtme-ng".into(), "1.40".into());
        assert_eq!(was.changes(&now), ["virtme-ng was not noted and is 1.40"]);
    }

    #[test]
    fn a_kernel_without_an_image_at_first_is_held_to_the_one_it_gets() {
        let mut was = manifest("g", "7.3");
        was.kernels.insert("7.3".into(), None);
        let with = |image: &str| {
            let mut now = was.clone();
            now.kernels.insert("7.3".into(), Some(digest(image.as_bytes())));
            now
        };
        assert_eq!(was.changes(&with("a")), [""; 0]);
        // As written by the run that went on.
        let folder = tempfile::tempdir().unwrap();
        with("a").write(folder.path()).unwrap();
        let changes = Manifest::read(folder.path()).unwrap().changes(&with("b"));
        assert!(changes[0].starts_with("the image, modules or lsm= of 7.3 were"), "{changes:?}");
    }

    #[test]
    fn what_a_machine_is_made_of_is_in_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let setup = crate::run::tests::setup(folder.path());
        let of = |setup: &Setup| Manifest::of(Options::none().unwrap(), setup, &[], &[]).unwrap();
        let changes = |change: &dyn Fn(&mut Setup)| {
            let mut other = setup.clone();
            change(&mut other);
            of(&setup).changes(&of(&other)).join("; ")
        };
        assert_eq!(changes(&|_| ()), "");
        let archive = folder.path().join("more.cpio");
        std::fs::write(&archive, "more").unwrap();
        assert!(changes(&|it| it.bring = Some(archive.clone())).starts_with("what --bring adds was nothing"));
        let found = changes(&|it| it.vng_version = Some("virtme-ng 1.40".into()));
        assert_eq!(found, "virtme-ng was nothing and is virtme-ng 1.40");
        let lines = "the command lines of QEMU and of the kernel was";
        assert!(changes(&|it| it.launcher.qemu = "/other/qemu".into()).starts_with(lines));
        assert!(changes(&|it| it.cpus = 2).contains(lines));
    }

    #[test]
    fn only_the_usual_machine_and_todays_guest_make_snapshots() {
        let usual = manifest("g", "7.3");
        assert_eq!(usual.not_for_snapshots(b"g"), None);
        assert!(usual.not_for_snapshots(b"h").unwrap().contains("another guest than today's"));
        let with = |change: &dyn Fn(&mut Manifest)| {
            let mut other = usual.clone();
            change(&mut other);
            other.not_for_snapshots(b"g").unwrap()
        };
        assert!(with(&|it| it.options.lsm = Some("bpf".into())).contains("--lsm bpf"));
        assert!(with(&|it| it.options.cpus = 2).contains("--cpus 2"));
        assert!(with(&|it| it.options.deadline = Some(89)).contains("--deadline 89 (the usual is 90)"));
        assert!(with(&|it| it.options.patience = 99).contains("--patience 99"));
        let mut patient = usual.clone();
        (patient.options.deadline, patient.options.patience) = (Some(90), 300);
        assert_eq!(patient.not_for_snapshots(b"g"), None);
        let mut hasty = usual.clone();
        hasty.options.deadline = Some(5);
        let joined = Manifest::joined(vec![("a".into(), usual.clone()), ("b".into(), hasty)]).unwrap();
        assert!(joined.not_for_snapshots(b"g").unwrap().contains("--deadline 5"));
        assert!(with(&|it| drop(it.shared.insert(BROUGHT.into(), digest(b"b")))).contains("--bring"));
        assert!(with(&|it| drop(it.shared.remove(GUEST))).contains("it was nothing"));
    }

    #[test]
    fn parts_of_one_run_are_joined_and_of_two_are_not() {
        let part = |guest: &str, kernel: &str| (PathBuf::from(kernel), manifest(guest, kernel));
        let joined = Manifest::joined(vec![part("g", "6.1"), part("g", "7.3")]).unwrap();
        assert!(joined.has("6.1") && joined.has("7.3") && !joined.has("6.12"));
        let failure = Manifest::joined(vec![part("g", "6.1"), part("h", "7.3")]).unwrap_err();
        assert_eq!(failure.code, exit::BAD_INPUT);
        assert!(failure.to_string().contains("6.1 and 7.3 are not parts of one run: the guest"), "{failure}");
        let (folder, mut other) = part("g", "7.3");
        other.options.cpus = 2;
        let failure = Manifest::joined(vec![part("g", "6.1"), (folder, other)]).unwrap_err();
        assert!(failure.to_string().contains("--cpus is 1 in the first and 2"), "{failure}");
    }

    #[test]
    fn another_formats_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Manifest::read(folder.path()).unwrap_err().to_string().contains("no run.json"));
        std::fs::write(folder.path().join(FILE), r#"{"format": 1}"#).unwrap();
        assert!(Manifest::read(folder.path()).unwrap_err().to_string().contains("it has format 1"));
        manifest("g", "7.3").begin(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), manifest("g", "7.3"));
    }
}
