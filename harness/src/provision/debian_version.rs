//! The order of Debian package versions (Debian Policy 5.6.12), needed to find the newest of a series.

use std::cmp::Ordering;

/// Compares two versions as dpkg does.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    let (epoch_a, upstream_a, revision_a) = split(a);
    let (epoch_b, upstream_b, revision_b) = split(b);
    epoch_a
        .cmp(&epoch_b)
        .then_with(|| compare_part(upstream_a, upstream_b))
        .then_with(|| compare_part(revision_a, revision_b))
}

/// Epoch, upstream version and revision.
fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.parse().unwrap_or(0), upstream, revision)
}

/// Compares by turns a stretch without digits and a number.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !(a.is_empty() && b.is_empty()) {
        let (text_a, rest_a) = split_where(a, |c| c.is_ascii_digit());
        let (text_b, rest_b) = split_where(b, |c| c.is_ascii_digit());
        let (number_a, next_a) = split_where(rest_a, |c| !c.is_ascii_digit());
        let (number_b, next_b) = split_where(rest_b, |c| !c.is_ascii_digit());
        let order = compare_text(text_a, text_b).then_with(|| compare_numbers(number_a, number_b));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (next_a, next_b);
    }
    Ordering::Equal
}

fn split_where(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

/// `~` sorts before the end, the end before letters, letters before everything else.
fn compare_text(a: &str, b: &str) -> Ordering {
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(other) => i32::from(*other) + 256,
    };
    (0..a.len().max(b.len()))
        .map(|at| weight(a.as_bytes().get(at)).cmp(&weight(b.as_bytes().get(at))))
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

/// Numbers of any length; an absent one is zero.
fn compare_numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("6.12.9-1", "6.12.10-1", Ordering::Less)]
    #[case("7.3.4-1~bpo13+1", "7.3.4-1", Ordering::Less)]
    #[case("7.3.4-1~bpo13+1", "7.3.4-1~bpo13+2", Ordering::Less)]
    #[case("1:1.0", "2.0", Ordering::Greater)]
    #[case("1.0~rc1", "1.0", Ordering::Less)]
    #[case("1.0a", "1.0+", Ordering::Less)]
    #[case("6.1.192-2", "6.1.192-2", Ordering::Equal)]
    #[case("6.01", "6.1", Ordering::Equal)]
    fn versions_compare_as_dpkg_says(#[case] a: &str, #[case] b: &str, #[case] want: Ordering) {
        assert_eq!(compare(a, b), want);
        assert_eq!(compare(b, a), want.reverse());
    }
}
