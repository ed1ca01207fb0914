//! Configuration fragments: what is asked of Kconfig, and which of it a version did not take.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why fragments cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FragmentError {
    /// A fragment cannot be read.
    #[error("cannot read the fragment {}; name an existing file in the row's `fragments`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is neither an option nor a comment.
    #[error("{}:{line}: {text:?} is neither CONFIG_NAME=value nor a comment", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// Two lines ask for different values.
    #[error("{}:{line}: {name} is asked to be {second} here and {first} before; keep one", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The option.
        name: String,
        /// What was asked first.
        first: String,
        /// What is asked here.
        second: String,
    },
}

/// What is asked of Kconfig: each option once, with its value; `n` for one that is to be off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    options: BTreeMap<String, String>,
}

impl Wishes {
    /// Reads fragments and joins them.
    ///
    /// # Errors
    /// [`FragmentError`], with file and line.
    pub fn read(files: &[PathBuf]) -> Result<Self, FragmentError> {
        let mut wishes = Self::default();
        for path in files {
            let text = crate::text::read(path, crate::text::WRITTEN)
                .map_err(|source| FragmentError::Read { path: path.clone(), source })?;
            wishes.add(&text, path)?;
        }
        Ok(wishes)
    }

    fn add(&mut self, text: &str, path: &Path) -> Result<(), FragmentError> {
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            let Some((name, value)) = option(line) else {
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let text = line.to_owned();
                return Err(FragmentError::Line { path: path.to_owned(), line: index + 1, text });
            };
            match self.options.get(name) {
                Some(first) if first != value => {
                    return Err(FragmentError::Contradiction {
                        path: path.to_owned(),
                        line: index + 1,
                        name: name.to_owned(),
                        first: first.clone(),
                        second: value.to_owned(),
                    });
                }
                _ => drop(self.options.insert(name.to_owned(), value.to_owned())),
            }
        }
        Ok(())
    }

    /// As a file for `KCONFIG_ALLCONFIG`.
    #[must_use]
    pub fn text(&self) -> String {
        let line = |(name, value): (&String, &String)| match value.as_str() {
            "n" => format!("# {name} is not set\n"),
            _ => format!("{name}={value}\n"),
        };
        self.options.iter().map(line).collect()
    }

    /// SHA-256 of [`Wishes::text`], lower-case hexadecimal: comments and order do not count.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("{:x}", Sha256::digest(self.text()))
    }

    /// How many options are asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.options.len()
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.options.is_empty()
    }

    /// The options that `config`, a kernel's own configuration file, does not have as asked: `NAME=VALUE`, with the
    /// value that it has. One that the configuration does not mention is off.
    #[must_use]
    pub fn not_taken(&self, config: &str) -> Vec<String> {
        let taken: BTreeMap<&str, &str> = config.lines().filter_map(|line| option(line.trim())).collect();
        let has = |name: &str| taken.get(name).copied().unwrap_or("n");
        let differs = |(name, value): &(&String, &String)| has(name) != value.as_str();
        self.options.iter().filter(differs).map(|(name, _)| format!("{name}={}", has(name))).collect()
    }
}

/// The option that a line sets, with its value.
fn option(line: &str) -> Option<(&str, &str)> {
    if let Some(name) = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
        return name.starts_with("CONFIG_").then_some((name, "n"));
    }
    let (name, value) = line.split_once('=')?;
    let plain = name.strip_prefix("CONFIG_")?;
    let valid = !plain.is_empty() && plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (valid && !value.is_empty()).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(text: &str) -> Result<Wishes, FragmentError> {
        let mut wishes = Wishes::default();
        wishes.add(text, Path::new("a.config")).map(|()| wishes)
    }

    #[test]
    fn options_are_joined_without_comments_and_in_order() {
        let read =
            wishes("# why\nCONFIG_B=y\n\nCONFIG_A=\"x y\"\n# CONFIG_C is not set\nCONFIG_B=y\n").unwrap();
        assert_eq!(read.text(), "CONFIG_A=\"x y\"\nCONFIG_B=y\n# CONFIG_C is not set\n");
        assert_eq!(read.len(), 3);
        assert_eq!(read.digest(), wishes(&read.text()).unwrap().digest());
    }

    #[test]
    fn what_was_not_taken_is_named_with_what_it_is() {
        let read = wishes("CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_D=4\n").unwrap();
        let config = "CONFIG_A=y\nCONFIG_B=m\nCONFIG_C=y\n";
        assert_eq!(read.not_taken(config), ["CONFIG_B=m", "CONFIG_C=y", "CONFIG_D=n"]);
    }

    #[test]
    fn a_wrong_line_and_a_contradiction_are_named_with_their_place() {
        assert_eq!(
            wishes("CONFIG_A=y\nCONFIG_A y\n").unwrap_err().to_string(),
            "a.config:2: \"CONFIG_A y\" is neither CONFIG_NAME=value nor a comment"
        );
        assert_eq!(
            wishes("CONFIG_A=y\nCONFIG_A=n\n").unwrap_err().to_string(),
            "a.config:2: CONFIG_A is asked to be n here and y before; keep one"
        );
    }
}
