//! Faults of the TOML itself, in the words and with the advice of all other faults.

use toml::de::Error;

use super::report::Diagnostic;
use super::values::quote;

/// One fault for each line of `text` that has any: what follows on a line is mostly a consequence.
pub(super) fn faults(text: &str, errors: &[Error]) -> Vec<Diagnostic> {
    let place = |error: &Error| error.span().unwrap_or(text.len()..text.len());
    let line = |error: &Error| {
        let before = text.as_bytes().get(..place(error).start).unwrap_or(text.as_bytes());
        before.iter().filter(|b| **b == b'\n').count()
    };
    let mut lines: Vec<_> = errors.iter().map(|error| (line(error), error)).collect();
    // Stable, so that of one line's faults the one that was found first remains.
    lines.sort_by_key(|(line, _)| *line);
    lines.dedup_by_key(|(line, _)| *line);
    lines
        .into_iter()
        .map(|(_, error)| {
            let span = place(error);
            let (title, help) =
                explain(error.message(), text.get(span.clone()).unwrap_or_default());
            Diagnostic::error(title).at(span).help(help)
        })
        .collect()
}

/// A title and advice, from the parser's `message` about `written`.
fn explain(message: &str, written: &str) -> (String, String) {
    let (title, expected) = match message.split_once(", expected ") {
        Some((title, expected)) => (title, Some(expected)),
        None => (message, None),
    };
    // What is broken in this way is a string that begins as a number does: `info` as `inf`.
    let title = match title {
        "invalid float" => "string values must be quoted",
        title => title,
    };
    let help = match title {
        "string values must be quoted" => format!("write `\"{}\"`", written.escape_debug()),
        "invalid mantissa" | "invalid fraction" => {
            "write digits on both sides of the point, such as `0.5`".to_owned()
        }
        "duplicate key" => format!("remove one of the two {}", quote(written)),
        _ => match expected {
            Some(expected) => format!("TOML expects {expected} here"),
            None => "this is not TOML: https://toml.io".to_owned(),
        },
    };
    (title.to_owned(), help)
}
