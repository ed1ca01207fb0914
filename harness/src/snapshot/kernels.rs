//! Sets of kernels as a reader would say them: `all`, `until 6.5`, `6.6 to 6.11`, `from 6.12`, `only 6.1`, `5.7, 6.1`.
//!
//! A phrase is read against the file's own list of kernels and means exactly the kernels of that list that lie
//! between its ends, so nothing is inferred about a kernel that was not run. `from` and `all` keep a file
//! unchanged but for its list when a newer kernel joins that behaves as the newest did.

/// Why a kernel's name cannot stand in a phrase.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',')
}

/// The phrase for the kernels of `all` whose place is in `members` (ascending).
pub(crate) fn phrase(all: &[String], members: &[usize]) -> String {
    if members.len() == all.len() {
        return "all".to_owned();
    }
    let parts: Vec<String> = runs(members).into_iter().map(|(first, last)| part(all, first, last)).collect();
    match parts.as_slice() {
        [one] if !one.contains(' ') => format!("only {one}"),
        several => several.join(", "),
    }
}

/// The runs of neighbours in an ascending list.
fn runs(members: &[usize]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &place in members {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == place => *last = place,
            Some(_) | None => runs.push((place, place)),
        }
    }
    runs
}

fn part(all: &[String], first: usize, last: usize) -> String {
    let (from, to) = (&all[first], &all[last]);
    if last + 1 == all.len() {
        format!("from {from}")
    } else if first == last {
        from.clone()
    } else if first == 0 {
        format!("until {to}")
    } else if first + 1 == last {
        format!("{from}, {to}")
    } else {
        format!("{from} to {to}")
    }
}

/// The places in `all` that a phrase means, ascending.
pub(super) fn members(all: &[String], phrase: &str) -> Result<Vec<usize>, String> {
    if phrase == "all" {
        return Ok((0..all.len()).collect());
    }
    let mut found = vec![false; all.len()];
    for part in phrase.split(", ") {
        let words: Vec<&str> = part.split(' ').collect();
        let (first, last) = match words.as_slice() {
            [name] | ["only", name] => (place(all, name)?, place(all, name)?),
            ["from", name] => (place(all, name)?, all.len() - 1),
            ["until", name] => (0, place(all, name)?),
            [from, "to", to] => (place(all, from)?, place(all, to)?),
            _ => return Err(format!("{part:?} names no kernels (all, only A, until A, from A, A to B)")),
        };
        if first > last {
            return Err(format!("{part:?} names no kernels: they stand in the other order in `kernels`"));
        }
        found[first..=last].fill(true);
    }
    Ok((0..all.len()).filter(|&place| found[place]).collect())
}

fn place(all: &[String], name: &str) -> Result<usize, String> {
    all.iter()
        .position(|known| known == name)
        .ok_or_else(|| format!("{name:?} is not among this file's `kernels`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::made_up::names;
    use rstest::rstest;

    #[rstest]
    #[case(&[0, 1, 2, 3, 4, 5], "all")]
    #[case(&[0], "only 5.7")]
    #[case(&[2], "only 5.9")]
    #[case(&[5], "from 6.12")]
    #[case(&[4, 5], "from 6.6")]
    #[case(&[0, 1], "until 5.8")]
    #[case(&[0, 1, 2], "until 5.9")]
    #[case(&[1, 2], "5.8, 5.9")]
    #[case(&[1, 2, 3], "5.8 to 6.1")]
    #[case(&[0, 2, 4], "5.7, 5.9, 6.6")]
    #[case(&[0, 2, 3, 5], "5.7, 5.9, 6.1, from 6.12")]
    fn phrases_are_read_back(#[case] places: &[usize], #[case] expected: &str) {
        let all = names(&["5.7", "5.8", "5.9", "6.1", "6.6", "6.12"]);
        assert_eq!(phrase(&all, places), expected);
        assert_eq!(members(&all, expected).unwrap(), places);
    }

    #[test]
    fn every_set_is_read_back() {
        let all = names(&["a", "b", "to", "from", "all"]);
        for bits in 1_u32..1 << all.len() {
            let places: Vec<usize> = (0..all.len()).filter(|place| bits >> place & 1 == 1).collect();
            assert_eq!(members(&all, &phrase(&all, &places)).unwrap(), places);
        }
    }

    #[test]
    fn a_newer_kernel_that_agrees_changes_no_phrase() {
        let (old, new) = (names(&["5.7", "6.1"]), names(&["5.7", "6.1", "6.2"]));
        assert_eq!(phrase(&old, &[1]), phrase(&new, &[1, 2]));
    }

    #[rstest]
    #[case("only 6.3", "6.3")]
    #[case("6.1 to 5.7", "order")]
    #[case("before 6.1", "names no kernels")]
    #[case("", "\"\"")]
    fn nonsense_is_refused(#[case] phrase: &str, #[case] says: &str) {
        let problem = members(&names(&["5.7", "6.1"]), phrase).unwrap_err();
        assert!(problem.contains(says), "{problem}");
    }

    #[rstest]
    #[case("6.1", true)]
    #[case("a b", false)]
    #[case("a,b", false)]
    #[case("", false)]
    fn names_without_spaces_and_commas(#[case] name: &str, #[case] good: bool) {
        assert_eq!(is_name(name), good);
    }
}
