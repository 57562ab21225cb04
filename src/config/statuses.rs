//! Sets of statuses as text: `200`, `2xx` or `200-299`.

use std::ops::RangeInclusive;

use super::model::Statuses;
use super::values::{ValueError, quote};

/// Every status that an answer can have (RFC 9110 15).
pub(super) const ANY_STATUS: RangeInclusive<u16> = 100..=599;

/// Statuses of answers that say that something failed.
pub(super) const FAILURES: RangeInclusive<u16> = 400..=599;

/// One part of a set, which must lie `within` another: `200`, `2xx` or `200-299`.
pub(super) fn parse_statuses(
    text: &str,
    within: &RangeInclusive<u16>,
) -> Result<RangeInclusive<u16>, ValueError> {
    let number = |text: &str| match text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse::<u16>().ok(),
        false => None,
    };
    let (first, last) = within.clone().into_inner();
    let refused = |what: String| {
        let class = first / 100;
        let help = format!("write such as `{first}`, `{class}xx` or `{first}-{last}`");
        Err(ValueError::new(what, help))
    };
    let class = text.strip_suffix("xx").and_then(|class| number(&format!("{class}00")));
    let range = match (class, text.split_once('-')) {
        (Some(class), _) => class..=class.saturating_add(99),
        (None, Some((from, to))) => match (number(from.trim_end()), number(to.trim_start())) {
            (Some(from), Some(to)) if from > to => {
                return Err(ValueError::new(
                    format!("{} ends before it begins", quote(text)),
                    format!("write `{to}-{from}`"),
                ));
            }
            (Some(from), Some(to)) => from..=to,
            _ => return refused(format!("{} is not a range of statuses", quote(text))),
        },
        (None, None) => match number(text) {
            Some(status) => status..=status,
            None => return refused(format!("{} is not a status", quote(text))),
        },
    };
    match within.contains(range.start()) && within.contains(range.end()) {
        true => Ok(range),
        false => refused(format!("{} is not within {first} to {last}", quote(text))),
    }
}

impl FromIterator<RangeInclusive<u16>> for Statuses {
    /// In order, and without borders between what touches, so that equal sets are equal.
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_by_key(|range| *range.start());
        let mut joined: Vec<RangeInclusive<u16>> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => joined.push(range),
            }
        }
        Self(joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sets_are_read() {
        for (text, range) in [
            ("200", 200..=200),
            ("2xx", 200..=299),
            ("502-504", 502..=504),
            ("502 - 504", 502..=504),
            ("100-599", 100..=599),
        ] {
            assert_eq!(parse_statuses(text, &ANY_STATUS), Ok(range));
        }
    }

    #[test]
    fn what_is_not_a_status_says_what_to_write() {
        for (text, part) in [
            ("", "`` is not a status; write such as `100`, `1xx` or `100-599`"),
            ("ok", "is not a status"),
            ("20", "is not a status"),
            ("2000", "is not a status"),
            ("+20", "is not a status"),
            ("2XX", "is not a status"),
            ("xx", "is not a status"),
            ("12xx", "is not a status"),
            ("6xx", "`6xx` is not within 100 to 599"),
            ("099", "`099` is not within 100 to 599"),
            ("299-200", "write `200-299`"),
            ("200-", "is not a range"),
            ("2xx-3xx", "is not a range"),
            ("500-600", "is not within"),
        ] {
            let wrong = parse_statuses(text, &ANY_STATUS).unwrap_err().to_string();
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
        let wrong = parse_statuses("3xx", &FAILURES).unwrap_err().to_string();
        assert_eq!(
            wrong,
            "`3xx` is not within 400 to 599; write such as `400`, `4xx` or `400-599`"
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9x-]{0,8}") {
            if let Ok(range) = parse_statuses(&text, &ANY_STATUS) {
                prop_assert!(ANY_STATUS.contains(range.start()) && ANY_STATUS.contains(range.end()));
            }
        }

        #[test]
        fn a_set_has_what_its_parts_have(
            parts in prop::collection::vec((100..600u16, 0..120u16), 0..6),
            status in 90..800u16,
        ) {
            let ranges = || parts.iter().map(|(from, length)| *from..=from + length);
            let set: Statuses = ranges().collect();
            prop_assert_eq!(set.contains(status), ranges().any(|range| range.contains(&status)));
            prop_assert!(set.0.windows(2).all(|pair| pair[0].end() + 1 < *pair[1].start()));
        }
    }
}
