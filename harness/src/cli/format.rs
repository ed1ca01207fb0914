//! In which forms verbs print: each takes those that it has, so that no other is found wanting when all is done.

use clap::ValueEnum;

/// How verdicts on documentation are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DocsFormat {
    /// For people
    Table,
    /// For programs; field names are documented in `harness::docs`
    Json,
    /// For a page
    Markdown,
    /// For a GitHub workflow: annotations on the lines of the page
    Github,
}

/// How answers are printed that are no results of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AnswerFormat {
    /// For people
    Table,
    /// For programs: one JSON document
    Json,
}

/// How differences between kernels are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DiffFormat {
    /// For people
    Table,
    /// For programs: one JSON document
    Json,
    /// For a page
    Markdown,
}

/// How the results of a run are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs: one JSON document with a schema number; field names are documented in `harness::report::json`
    Json,
    /// For CI: JUnit XML, a suite per kernel
    Junit,
    /// For a page: the table as Markdown
    Markdown,
}

#[cfg(test)]
mod tests {
    use crate::cli::Cli;
    use clap::Parser as _;
    use rstest::rstest;

    /// What takes minutes or hours shall not be refused when it is done.
    #[rstest]
    #[case(&["bench"], &["table", "json"])]
    #[case(&["doctor"], &["table", "json"])]
    #[case(&["soak"], &["table", "json"])]
    #[case(&["list"], &["table", "json"])]
    #[case(&["show", "a/b"], &["table", "json"])]
    #[case(&["explain", "a/b"], &["table", "json"])]
    #[case(&["kernels", "list"], &["table", "json"])]
    #[case(&["kernels", "fetch"], &["table", "json"])]
    #[case(&["kernels", "build", "5.9"], &["table", "json"])]
    #[case(&["diff", "6.1", "6.12"], &["table", "json", "markdown"])]
    #[case(&["run"], &["table", "json", "markdown", "junit"])]
    #[case(&["merge", "a"], &["table", "json", "markdown", "junit"])]
    fn a_verb_takes_the_formats_that_it_has(#[case] verb: &[&str], #[case] formats: &[&str]) {
        for format in ["table", "json", "markdown", "junit", "xml"] {
            let words = [&["conform"], verb, &["--format", format]].concat();
            let taken = Cli::try_parse_from(words);
            assert_eq!(taken.is_ok(), formats.contains(&format), "{verb:?} {format}");
        }
    }
}
