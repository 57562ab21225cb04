//! Status codes of gRPC by their names, as in "Status codes and their use in gRPC", in lower case.

use super::model::GrpcStatuses;
use super::values::{ValueError, quote, suggest};

/// The names of the codes from 1 on. 0 is `ok`, which is no failure.
const FAILURES: [&str; 16] = [
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// The code of a failure.
pub(super) fn parse_grpc_failure(text: &str) -> Result<GrpcStatuses, ValueError> {
    match FAILURES.iter().position(|name| *name == text) {
        Some(index) => Ok(GrpcStatuses(1 << (index + 1))),
        None if text == "ok" => Err(ValueError::new(
            "`ok` is no failure",
            "write such as `unavailable` or `resource_exhausted`",
        )),
        None => Err(ValueError::new(
            format!("{} is not a status of gRPC", quote(text)),
            suggest(text, &FAILURES),
        )),
    }
}

impl FromIterator<Self> for GrpcStatuses {
    /// What is in any of them.
    fn from_iter<I: IntoIterator<Item = Self>>(sets: I) -> Self {
        Self(sets.into_iter().fold(0, |all, set| all | set.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_codes() {
        let codes = |names: &[&str]| {
            let sets = names.iter().map(|name| parse_grpc_failure(name));
            sets.collect::<Result<GrpcStatuses, _>>().unwrap()
        };
        for (name, code) in [("cancelled", 1), ("unavailable", 14), ("unauthenticated", 16)] {
            assert_eq!(codes(&[name]).0, 1 << code);
            assert!(codes(&[name]).contains(code));
        }
        let two = codes(&["unavailable", "resource_exhausted", "unavailable"]);
        assert_eq!((0..32).filter(|code| two.contains(*code)).collect::<Vec<_>>(), [8, 14]);
        assert_eq!(codes(&[]), GrpcStatuses::default());
    }

    #[test]
    fn what_is_no_failure_of_grpc_is_refused() {
        for (text, part) in [
            ("ok", "write such as `unavailable`"),
            ("UNAVAILABLE", "did you mean `unavailable`?"),
            ("not-found", "did you mean `not_found`?"),
            ("14", "write one of `cancelled`, `unknown`"),
            ("", "is not a status of gRPC"),
        ] {
            let wrong = parse_grpc_failure(text).unwrap_err().to_string();
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
    }
}
