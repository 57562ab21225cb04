//! Environment variables in the file's strings.
//!
//! `${NAME}` is the variable's value, and it is an error where there is none. `${NAME:-default}`
//! is the default where the variable is missing or empty. `$${` is a plain `${`; any other `$` is
//! itself. What is put in is not expanded again.

use std::borrow::Cow;

/// Looks a variable up; `None` where it is missing or not UTF-8.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a string could not be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ExpandError {
    /// The reference at fault, as written.
    pub(super) reference: String,
    /// What is wrong.
    pub(super) wrong: String,
    /// What to write instead.
    pub(super) help: String,
}

/// `text` with its variables replaced.
pub(super) fn expand<'t>(text: &'t str, env: Env<'_>) -> Result<Cow<'t, str>, ExpandError> {
    if !text.contains("${") {
        return Ok(Cow::Borrowed(text));
    }
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = &reference[2..];
            continue;
        }
        expanded.push_str(before);
        let Some(end) = reference.find('}') else {
            return Err(unclosed(reference));
        };
        expanded.push_str(&value(&reference[..=end], env)?);
        rest = &reference[end + 1..];
    }
    expanded.push_str(rest);
    Ok(Cow::Owned(expanded))
}

/// The value of one `${…}`.
fn value(reference: &str, env: Env<'_>) -> Result<String, ExpandError> {
    let inside = &reference[2..reference.len() - 1];
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_name(name) {
        return Err(ExpandError {
            reference: reference.to_owned(),
            wrong: format!("`{}` is not a variable", reference.escape_debug()),
            help: "write `${NAME}` or `${NAME:-default}`, or `$${` for a plain `${`".to_owned(),
        });
    }
    match (env(name), default) {
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (Some(value), None) => Ok(value),
        (None, None) => Err(ExpandError {
            reference: reference.to_owned(),
            wrong: format!("the environment has no variable `{name}`"),
            help: format!("set it, or write a default: `${{{name}:-default}}`"),
        }),
    }
}

fn unclosed(reference: &str) -> ExpandError {
    ExpandError {
        reference: "${".to_owned(),
        wrong: format!("`{}` has no closing brace", reference.escape_debug()),
        help: "write `${NAME}` or `${NAME:-default}`, or `$${` for a plain `${`".to_owned(),
    }
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("10.0.0.1".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${HOST}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_and_defaults_are_put_in_once() {
        for (text, expanded) in [
            ("plain $ and $5", "plain $ and $5"),
            ("http://${HOST}:80", "http://10.0.0.1:80"),
            ("${HOST}${HOST}", "10.0.0.110.0.0.1"),
            ("${HOST:-x}", "10.0.0.1"),
            ("${MISSING:-x:-y}", "x:-y"),
            ("${MISSING:-}", ""),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY}", ""),
            ("${TRICK}", "${HOST}"),
            ("$${HOST}", "${HOST}"),
            ("$$${HOST}", "$${HOST}"),
            ("$${HOST} ${HOST}", "${HOST} 10.0.0.1"),
        ] {
            assert_eq!(expand(text, &env).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        for (text, wrong) in [
            ("${MISSING}", "the environment has no variable `MISSING`"),
            ("a${HOST", "`${HOST` has no closing brace"),
            ("${}", "`${}` is not a variable"),
            ("${1A}", "`${1A}` is not a variable"),
            ("${A B}", "`${A B}` is not a variable"),
            ("${${HOST}}", "`${${HOST}` is not a variable"),
        ] {
            assert_eq!(expand(text, &env).unwrap_err().wrong, wrong, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[${}:A-C\\-ä]{0,20}") {
            let _ = expand(&text, &env);
        }
    }
}
