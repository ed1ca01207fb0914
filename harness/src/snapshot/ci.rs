//! Whether this is continuous integration, where no snapshot is ever written.

/// Whether this process runs in continuous integration, where nothing is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ci {
    /// `CI` is set: nothing is written.
    Yes,
    /// A person's machine.
    No,
}

impl Ci {
    /// As the environment says; `CI` may be set to an empty string, `0` or `false` to say no, as insta reads it.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_value(std::env::var("CI").ok().as_deref())
    }

    /// As this value of `CI` says.
    #[must_use]
    pub fn from_value(value: Option<&str>) -> Self {
        match value {
            None | Some("" | "0" | "false") => Self::No,
            Some(_) => Self::Yes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(None, Ci::No)]
    #[case(Some(""), Ci::No)]
    #[case(Some("false"), Ci::No)]
    #[case(Some("true"), Ci::Yes)]
    #[case(Some("1"), Ci::Yes)]
    fn ci(#[case] value: Option<&str>, #[case] expected: Ci) {
        assert_eq!(Ci::from_value(value), expected);
    }
}
