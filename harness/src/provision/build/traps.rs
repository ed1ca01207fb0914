//! What old trees need under today's compilers and pahole: variables of `make` and a wrapper, never a patch.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A kernel's major and minor version.
type Series = (u32, u32);

/// One thing that is done to get a tree built, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remedy {
    /// A variable for `make`: `NAME=value`.
    pub(super) variable: String,
    /// What it is good for.
    pub(super) reason: &'static str,
}

/// The remedies for a release. `folder` is a private one, into which wrappers are written; it has to outlive the build.
///
/// # Errors
/// When the wrapper cannot be written.
pub(super) fn remedies(series: Series, folder: &Path) -> io::Result<Vec<Remedy>> {
    let plain = |variable: &str, reason| Remedy { variable: variable.to_owned(), reason };
    let mut all = vec![
        plain("KBUILD_BUILD_TIMESTAMP=1970-01-01", "the same sources give the same image"),
        plain("KBUILD_BUILD_USER=conform", "the same sources give the same image"),
        plain("KBUILD_BUILD_HOST=conform", "the same sources give the same image"),
        plain("ARCH=x86_64", "a tree that somebody set to another architecture"),
        plain("CROSS_COMPILE=", "a tree that somebody set to another compiler"),
        plain("WERROR=0", "objtool and libbpf of old trees do not stop at a newer compiler's warnings"),
    ];
    if series < (6, 0) {
        all.push(plain(
            "HOSTCFLAGS=-Wno-error=use-after-free -Wno-error=format-truncation",
            "the build's own tools do not stop at a newer compiler's warnings",
        ));
        let wrapper = folder.join("pahole");
        write_wrapper(&wrapper)?;
        all.push(Remedy {
            variable: format!("PAHOLE={}", wrapper.display()),
            reason: "a kernel before 6.0 cannot read enum64 and tags, which newer pahole writes",
        });
    }
    Ok(all)
}

/// A pahole that leaves out what old kernels cannot read.
fn write_wrapper(path: &Path) -> io::Result<()> {
    let script = "#!/bin/sh\n\
                  exec pahole --skip_encoding_btf_enum64 --skip_encoding_btf_type_tag \
                  --skip_encoding_btf_decl_tag \"$@\"\n";
    fs::write(path, script)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_kernels_get_the_wrapper() {
        let folder = tempfile::tempdir().unwrap();
        let has = |series| {
            let all = remedies(series, folder.path()).unwrap();
            all.iter().any(|remedy| remedy.variable.starts_with("PAHOLE="))
        };
        assert!(has((5, 19)) && !has((6, 0)) && !has((6, 14)));
        let mode = fs::metadata(folder.path().join("pahole")).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111);
    }
}
