//! Whether a kernel's image is still the one that was hashed when the run began. A run takes minutes, and an image may be
//! built anew meanwhile: records of two kernels would stand under one hash, and a machine saved from the new one under the
//! old one's key.

use crate::model::ImageFacts;
use crate::provision::sha256_file;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Why a machine must not be started from an image.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error(
        "the kernel image {} is gone, which was there when the run began; run again, which fetches what the cache lacks",
        .0.display()
    )]
    Gone(PathBuf),
    #[error(
        "the kernel image {} changed during the run: its SHA-256 is {actual}, it was {expected}; run again when nobody writes to it",
        path.display()
    )]
    Changed { path: PathBuf, expected: String, actual: String },
    #[error("the kernel image {} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
}

/// What tells a file from itself after a change, short of reading it: device, inode, size, and the time of the last change
/// of the file and of what is known of it.
#[derive(Debug, PartialEq, Eq)]
struct Stamp([u64; 3], [(i64, i64); 2]);

impl From<Metadata> for Stamp {
    fn from(of: Metadata) -> Self {
        Self([of.dev(), of.ino(), of.size()], [(of.mtime(), of.mtime_nsec()), (of.ctime(), of.ctime_nsec())])
    }
}

/// The image of one kernel.
#[derive(Debug)]
pub(super) struct Image {
    path: PathBuf,
    sha256: String,
    /// Of the file that was last seen to have that hash.
    seen: Option<Stamp>,
}

impl Image {
    pub(super) fn of(facts: &ImageFacts) -> Self {
        Self { path: facts.path.clone(), sha256: facts.sha256.clone(), seen: None }
    }

    /// Checks that the image is what it was: it is hashed the first time, and again when the file is not as it was.
    ///
    /// # Errors
    /// [`ImageError`].
    pub(super) fn check(&mut self) -> Result<(), ImageError> {
        let path = || self.path.clone();
        let failed = |source: io::Error| {
            if source.kind() == io::ErrorKind::NotFound {
                ImageError::Gone(path())
            } else {
                ImageError::Unreadable { path: path(), source }
            }
        };
        // Before it is read, so that a change while it is read is found by the next look.
        let stamp = Stamp::from(std::fs::metadata(&self.path).map_err(failed)?);
        if self.seen.as_ref() == Some(&stamp) {
            return Ok(());
        }
        let actual = sha256_file(&self.path).map_err(failed)?;
        if actual != self.sha256 {
            return Err(ImageError::Changed { path: path(), expected: self.sha256.clone(), actual });
        }
        self.seen = Some(stamp);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_image_in_its_place_is_found_out_and_a_touched_one_is_not_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bzImage");
        std::fs::write(&path, "one").unwrap();
        let sha256 = sha256_file(&path).unwrap();
        let mut image = Image::of(&ImageFacts { path: path.clone(), sha256, ..ImageFacts::default() });
        image.check().unwrap();
        // The same file, touched: its time is another one, and its content is looked at.
        std::fs::write(&path, "one").unwrap();
        image.check().unwrap();
        // Of the same size and time, as a build that copies it with its times leaves it.
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, "two").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        let error = image.check().unwrap_err();
        assert!(
            matches!(error, ImageError::Changed { .. })
                && error.to_string().contains("changed during the run")
        );
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(image.check(), Err(ImageError::Gone(_))));
    }
}
