//! Opening, reading, linking, changing files.

use super::Act;
use crate::errno::Errno;
use std::fs::File;

/// `open(2)` of a file in the probe's own `/tmp`.
///
/// # Errors
/// The errno of making the file.
pub fn open() -> Result<Act, Errno> {
    File::create("/tmp/opened")?;
    Ok(Box::new(|arm| arm.during(|| File::open("/tmp/opened").map(drop).map_err(Errno::from))))
}
