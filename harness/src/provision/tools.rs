//! Finding QEMU and virtme-ng, and installing them when that is possible without asking for a privilege.
//!
//! QEMU comes from the system's packages: as root or with a passwordless `sudo` it is installed, otherwise the user
//! is given the exact command; what was begun comes to its end also when this program is ended meanwhile. virtme-ng goes into a virtual Python environment inside the cache, with all that it takes in
//! the versions and with the hashes that `virtme-ng.txt` has.

use crate::cache::{Cache, CacheError};
use crate::child::{ChildError, Command};
use crate::exit::{self, ExitCode};
use crate::interrupt;
use crate::progress::Progress;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The environment variable that names the QEMU to use, as a path or as a program in `PATH`.
pub const QEMU_VARIABLE: &str = "CONFORM_QEMU";
/// The QEMU that is used otherwise.
pub const QEMU: &str = "qemu-system-x86_64";
/// Debian's package of it.
const QEMU_PACKAGE: &str = "qemu-system-x86";
/// The version of virtme-ng that the suite was tried with.
pub const VNG_VERSION: &str = "1.42";
/// What pip is to install for it, each file by its hash.
const VNG_REQUIREMENTS: &str = include_str!("virtme-ng.txt");

/// What apt asks for when an earlier installation was broken off, and how a user does it.
const CONFIGURE: &str = "dpkg --configure -a";
const CONFIGURE_COMMAND: &str = "sudo dpkg --configure -a";

const VERSION_DEADLINE: Duration = Duration::from_secs(60);
const SUDO_DEADLINE: Duration = Duration::from_secs(10);
const INSTALL_DEADLINE: Duration = Duration::from_secs(1800);
const LOCK_PATIENCE: Duration = Duration::from_secs(1800);
/// No file that pip downloads or unpacks comes near this.
const PIP_BYTES: u64 = 256 << 20;

/// What can go wrong with tools.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Something is missing, and only a privileged user can install it.
    #[error("{tool} is missing, and installing it needs a privilege that this user lacks; run: {command}")]
    NeedsPrivilege {
        /// What is missing.
        tool: String,
        /// The exact command.
        command: String,
    },
    /// The tool that a setting names is not there.
    #[error("{variable} is {value:?}, which is no program; correct it or unset it")]
    BadSetting {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// It was installed and is still not there.
    #[error("{tool} is still missing after installing {package}")]
    StillMissing {
        /// What is missing.
        tool: String,
        /// The package.
        package: String,
    },
    /// Installing failed.
    #[error("cannot install {what}; check the network, or install it by hand: {command}")]
    Install {
        /// What.
        what: String,
        /// The command that failed.
        command: String,
        /// Why.
        #[source]
        source: Box<ChildError>,
    },
    /// Somebody broke off an installation, and nothing can be installed until it is brought to its end.
    #[error(
        "cannot install {what}: an installation of packages was broken off before; run: {remedy}, and then again"
    )]
    BrokenOff {
        /// What.
        what: String,
        /// The command that apt asks for.
        remedy: &'static str,
        /// What apt said.
        #[source]
        source: Box<ChildError>,
    },
    /// There is nothing to install with.
    #[error(
        "{tool} is missing, and this machine has no apt-get to install it with; install {package} with its own package manager"
    )]
    NoPackageManager {
        /// What is missing.
        tool: String,
        /// Debian's package of it.
        package: String,
    },
    /// It is missing and may not be fetched.
    #[error("{tool} is missing and fetching is switched off; run once without --offline")]
    Offline {
        /// What is missing.
        tool: String,
    },
    /// It does not work.
    #[error("{} does not work", path.display())]
    Broken {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<ChildError>,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl ExitCode for ToolError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::NeedsPrivilege { .. } => exit::NEEDS_PRIVILEGE,
            Self::BadSetting { .. } => exit::BAD_INPUT,
            Self::StillMissing { .. }
            | Self::Install { .. }
            | Self::BrokenOff { .. }
            | Self::NoPackageManager { .. }
            | Self::Offline { .. }
            | Self::Broken { .. }
            | Self::Cache(_) => exit::INFRASTRUCTURE,
        }
    }
}

/// A tool that was found to work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The program.
    pub path: PathBuf,
    /// The first line of what it says about its version.
    pub version: String,
}

/// The program `name` as a shell would find it; a name with a slash is taken as a path.
#[must_use]
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let usable = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| usable(path));
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| usable(path))
}

/// The QEMU to use, if there is one; nothing is installed.
///
/// # Errors
/// [`ToolError::BadSetting`] or [`ToolError::Broken`].
pub fn find_qemu() -> Result<Option<Tool>, ToolError> {
    let setting = std::env::var(QEMU_VARIABLE).ok().filter(|value| !value.is_empty());
    match (setting.as_deref().map(find_in_path), setting) {
        (Some(Some(path)), _) => with_version(path).map(Some),
        (_, Some(value)) => Err(ToolError::BadSetting { variable: QEMU_VARIABLE, value }),
        _ => find_in_path(QEMU).map(with_version).transpose(),
    }
}

/// The QEMU to use, installed if need be.
///
/// # Errors
/// [`ToolError`]; [`ToolError::NeedsPrivilege`] holds the command for the user.
pub fn ensure_qemu(cache: &Cache, progress: &Progress, offline: bool) -> Result<Tool, ToolError> {
    if let Some(tool) = find_qemu()? {
        return Ok(tool);
    }
    if offline {
        return Err(ToolError::Offline { tool: QEMU.into() });
    }
    install(QEMU, &[QEMU_PACKAGE], cache, progress)?;
    find_qemu()?.ok_or_else(|| ToolError::StillMissing { tool: QEMU.into(), package: QEMU_PACKAGE.into() })
}

fn with_version(path: PathBuf) -> Result<Tool, ToolError> {
    let purpose = format!("asking {} for its version", path.display());
    match Command::new(&path, purpose, VERSION_DEADLINE).arg("--version").run() {
        Ok(output) => {
            let version = output.stdout.lines().next().unwrap_or_default().trim().to_owned();
            Ok(Tool { path, version })
        }
        Err(source) => Err(ToolError::Broken { path, source: Box::new(source) }),
    }
}

/// Who may install packages here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// The user is root.
    Root,
    /// `sudo` asks for no password.
    Sudo,
    /// Neither.
    None,
}

/// Finds out who may install packages here, without ever asking for a password.
#[must_use]
pub fn privilege() -> Privilege {
    if nix::unistd::geteuid().is_root() {
        return Privilege::Root;
    }
    match Command::new("sudo", "asking sudo", SUDO_DEADLINE).args(["-n", "true"]).run() {
        Ok(_) => Privilege::Sudo,
        Err(_) => Privilege::None,
    }
}

/// The command by which a user installs `packages`.
#[must_use]
pub fn install_command(packages: &[&str]) -> String {
    format!("sudo apt-get install -y --no-install-recommends {}", packages.join(" "))
}

/// Installs Debian packages for `tool`, or tells how.
fn install(tool: &str, packages: &[&str], cache: &Cache, progress: &Progress) -> Result<(), ToolError> {
    let command = install_command(packages);
    if find_in_path("apt-get").is_none() {
        return Err(ToolError::NoPackageManager { tool: tool.to_owned(), package: packages.join(" ") });
    }
    let privilege = privilege();
    if privilege == Privilege::None {
        return Err(ToolError::NeedsPrivilege { tool: tool.to_owned(), command });
    }
    let _lock = cache.lock("install", progress, LOCK_PATIENCE)?;
    let task = progress.task("install", &format!("installing {}", packages.join(" ")));
    let log = cache.root().join("tools").join("install.log");
    // Broken off between unpacking and configuring, it would leave what nothing can be installed beside.
    let _parting = interrupt::in_parting(format!(
        "apt-get goes on by itself and ends what it has begun ({}); no machine was started, and nothing is to be undone",
        log.display()
    ));
    let limit = INSTALL_DEADLINE.as_secs().to_string();
    let apt = |arguments: &[&str]| {
        let mut line = match privilege {
            // The deadline's signal does not reach a process of root's, which must end by itself.
            Privilege::Sudo => vec!["sudo", "-n", "timeout", "--kill-after=10", &limit],
            Privilege::Root | Privilege::None => vec![],
        };
        // sudo drops the environment; `env` behind it sets the variable either way.
        line.extend(["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "apt-get", "-q"]);
        line.extend(["-o", "DPkg::Lock::Timeout=300"]);
        line.extend(arguments);
        Command::new(line[0], command.clone(), INSTALL_DEADLINE).args(&line[1..]).finishes(&log).run()
    };
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    // The lists may be absent or too old to know what can be downloaded; only then are they worth fetching.
    let outcome = apt(&arguments).or_else(|first| {
        if first.tail().contains(CONFIGURE) {
            return Err(first);
        }
        task.message("updating the system's package lists");
        apt(&["update"])?;
        task.message(&format!("installing {}", packages.join(" ")));
        apt(&arguments)
    });
    drop(task);
    outcome.map(drop).map_err(|error| not_installed(packages.join(" "), command, error))
}

/// What apt's failure is called, and what helps.
fn not_installed(what: String, command: String, error: ChildError) -> ToolError {
    let source = Box::new(error);
    if source.tail().contains(CONFIGURE) {
        return ToolError::BrokenOff { what, remedy: CONFIGURE_COMMAND, source };
    }
    ToolError::Install { what, command, source }
}

/// What building a kernel takes, beside a shell: programs, and the package of each.
const BUILD_PROGRAMS: [(&str, &str); 9] = [
    ("gcc", "gcc"),
    ("pahole", "dwarves"),
    ("make", "make"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("xz", "xz-utils"),
    ("curl", "curl"),
];
/// Headers that the build's own tools include, and the package of each.
const BUILD_HEADERS: [(&str, &str); 3] =
    [("gelf.h", "libelf-dev"), ("openssl/evp.h", "libssl-dev"), ("zlib.h", "zlib1g-dev")];

/// What a build needs, installed if need be; gives the compiler and pahole.
///
/// # Errors
/// [`ToolError`].
pub fn ensure_build_tools(cache: &Cache, progress: &Progress) -> Result<Vec<Tool>, ToolError> {
    let programs = BUILD_PROGRAMS.iter().filter(|(name, _)| find_in_path(name).is_none());
    let headers = BUILD_HEADERS.iter().filter(|(name, _)| !has_header(name));
    let missing: Vec<&str> = programs.chain(headers).map(|&(_, package)| package).collect();
    if !missing.is_empty() {
        install("what building a kernel takes", &missing, cache, progress)?;
    }
    let tool = |(name, package): &(&str, &str)| {
        let missing = || ToolError::StillMissing { tool: (*name).to_owned(), package: (*package).to_owned() };
        let tool = find_in_path(name).ok_or_else(missing).and_then(with_version)?;
        let version = format!("{name}: {}", tool.version);
        Ok(Tool { version, ..tool })
    };
    BUILD_PROGRAMS.iter().take(2).map(tool).collect()
}

/// Whether the compiler finds a header; without a compiler the answer does not matter, for all is installed then.
fn has_header(name: &str) -> bool {
    let folders = ["/usr/include", "/usr/local/include", "/usr/include/x86_64-linux-gnu"];
    folders.iter().any(|folder| Path::new(folder).join(name).is_file())
}

/// The folder of virtme-ng's environment.
fn vng_dir(cache: &Cache) -> PathBuf {
    cache.root().join("tools").join(format!("virtme-ng-{VNG_VERSION}"))
}

/// virtme-ng if it is in the cache and works; nothing is installed.
#[must_use]
pub fn find_vng(cache: &Cache) -> Option<Tool> {
    let dir = vng_dir(cache);
    // Written last: an environment without it was left half-made.
    dir.join("complete").exists().then(|| with_version(dir.join("bin/vng")).ok()).flatten()
}

/// virtme-ng, installed into the cache if need be.
///
/// # Errors
/// [`ToolError`].
pub fn ensure_vng(cache: &Cache, progress: &Progress, offline: bool) -> Result<Tool, ToolError> {
    if let Some(tool) = find_vng(cache) {
        return Ok(tool);
    }
    if offline {
        return Err(ToolError::Offline { tool: "virtme-ng".into() });
    }
    let _lock = cache.lock("virtme-ng", progress, LOCK_PATIENCE)?;
    if let Some(tool) = find_vng(cache) {
        return Ok(tool);
    }
    let python = ensure_python(cache, progress)?;
    let dir = vng_dir(cache);
    make_environment(&python, &dir, progress)?;
    let tool = with_version(dir.join("bin/vng"))?;
    let marker = dir.join("complete");
    std::fs::write(&marker, &tool.version).map_err(|e| CacheError::io("write", &marker, e))?;
    progress.say("install", &format!("{} is ready", tool.version));
    Ok(tool)
}

/// How pip installs only files whose hashes the requirements have. What is built from sources would be another file, and
/// run before it is looked at.
const HASHED: [&str; 4] = ["--require-hashes", "--only-binary", ":all:", "--requirement"];

/// Makes the environment in place: its scripts hold their own path, so that it cannot be renamed into place.
fn make_environment(python: &Path, dir: &Path, progress: &Progress) -> Result<(), ToolError> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(|e| CacheError::io("remove", dir, e))?;
    }
    let what = format!("installing virtme-ng {VNG_VERSION}");
    let _task = progress.task("install", &what);
    let log = dir.with_extension("log");
    let failed = |command: String| {
        move |error| ToolError::Install {
            what: format!("virtme-ng {VNG_VERSION}"),
            command,
            source: Box::new(error),
        }
    };
    Command::new(python, "making a Python environment", INSTALL_DEADLINE)
        .args([OsStr::new("-m"), OsStr::new("venv"), dir.as_os_str()])
        .log(&log)
        .run()
        .map_err(failed(format!("python3 -m venv {}", dir.display())))?;
    let requirements = dir.join("requirements.txt");
    std::fs::write(&requirements, VNG_REQUIREMENTS)
        .map_err(|error| CacheError::io("write", &requirements, error))?;
    Command::new(dir.join("bin/python"), what, INSTALL_DEADLINE)
        .args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"])
        .args(HASHED)
        .arg(&requirements)
        .log(&log)
        .writes_no_more_than(PIP_BYTES)
        .run()
        .map_err(failed(format!(
            "{} install {} {}",
            dir.join("bin/pip").display(),
            HASHED.join(" "),
            requirements.display()
        )))?;
    Ok(())
}

/// A Python that can make environments, if there is one.
#[must_use]
pub fn find_python() -> Option<PathBuf> {
    let python = find_in_path("python3")?;
    let works = Command::new(&python, "asking Python for venv", VERSION_DEADLINE)
        .args(["-c", "import venv, ensurepip"])
        .run();
    works.is_ok().then_some(python)
}

fn ensure_python(cache: &Cache, progress: &Progress) -> Result<PathBuf, ToolError> {
    if let Some(python) = find_python() {
        return Ok(python);
    }
    let packages = ["python3", "python3-venv"];
    install("python3 with venv", &packages, cache, progress)?;
    find_python().ok_or_else(|| ToolError::StillMissing {
        tool: "python3 with venv".into(),
        package: packages.join(" "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_does() {
        let shell = find_in_path("sh").unwrap();
        assert_eq!(find_in_path(shell.to_str().unwrap()), Some(shell));
        assert_eq!(find_in_path("no-such-program-here"), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(find_in_path(file.path().to_str().unwrap()), None, "not executable");
    }

    #[test]
    fn a_missing_privilege_tells_the_command() {
        let error =
            ToolError::NeedsPrivilege { tool: QEMU.into(), command: install_command(&[QEMU_PACKAGE]) };
        assert_eq!(error.exit_code(), exit::NEEDS_PRIVILEGE);
        assert!(
            error.to_string().ends_with("sudo apt-get install -y --no-install-recommends qemu-system-x86")
        );
    }

    #[test]
    fn an_installation_that_was_broken_off_before_is_named_with_the_remedy() {
        let by = |words: &str| {
            let script = format!("echo \"{words}\" >&2; exit 100");
            let error = Command::new("sh", "installing", VERSION_DEADLINE).args(["-c", &script]).run();
            not_installed(QEMU_PACKAGE.into(), install_command(&[QEMU_PACKAGE]), error.unwrap_err())
        };
        let error = by(
            "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem.",
        );
        assert!(matches!(error, ToolError::BrokenOff { .. }), "{error}");
        assert!(error.to_string().contains("run: sudo dpkg --configure -a, and"), "{error}");
        assert!(matches!(by("E: Unable to fetch some archives"), ToolError::Install { .. }));
    }

    #[test]
    fn what_pip_installs_has_a_version_and_a_hash() {
        let lines: Vec<&str> = VNG_REQUIREMENTS.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.first().unwrap().starts_with(&format!("virtme-ng=={VNG_VERSION} ")), "{lines:?}");
        for line in lines {
            let (name, hash) = line.split_once(" --hash=sha256:").unwrap();
            assert!(name.contains("=="), "{line}");
            assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
        }
    }

    #[test]
    fn offline_never_installs() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        std::fs::create_dir(vng_dir(&cache)).unwrap();
        assert_eq!(find_vng(&cache), None, "half-made");
        let error = ensure_vng(&cache, &Progress::silent(), true).unwrap_err();
        assert!(matches!(error, ToolError::Offline { .. }), "{error}");
    }
}
