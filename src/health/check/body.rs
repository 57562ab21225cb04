//! What a check reads of an answer's body, and what it looks for in it.

use h2::RecvStream;
use memchr::memmem;
use regex_lite::Regex;

use crate::config::BodyMatch;

/// The most of a body that is read, in bytes: what says that all is well stands near its beginning,
/// and many checks are made at once.
pub const MAX_BODY: usize = 64 * 1024;

/// What a body must have in it.
#[derive(Debug)]
pub(super) enum Pattern {
    Contains(String),
    Matches(Regex),
}

/// A body, or its beginning.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) is_whole: bool,
}

/// Reads a body in HTTP/2, at most [`MAX_BODY`] of it.
pub(super) async fn read_http2(mut incoming: RecvStream) -> Result<Body, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data?;
        let room = MAX_BODY - bytes.len();
        bytes.extend_from_slice(data.get(..room).unwrap_or(&data));
        if data.len() > room {
            return Ok(Body { bytes, is_whole: false });
        }
        incoming.flow_control().release_capacity(data.len())?;
    }
    Ok(Body { bytes, is_whole: true })
}

impl Pattern {
    pub(super) fn new(wanted: &BodyMatch) -> Result<Self, &'static str> {
        Ok(match wanted {
            BodyMatch::Contains(text) => Self::Contains(text.clone()),
            BodyMatch::Matches(regex) => {
                Self::Matches(Regex::new(regex).map_err(|_| "the check's pattern is not valid")?)
            }
        })
    }

    /// Looks for it in `body`, where expressions see bytes that are not UTF-8 as U+FFFD.
    ///
    /// # Errors
    /// That it is not there, in words.
    pub(super) fn find_in(&self, body: &Body) -> Result<(), String> {
        let is_there = match self {
            Self::Contains(text) => memmem::find(&body.bytes, text.as_bytes()).is_some(),
            Self::Matches(regex) => regex.is_match(&String::from_utf8_lossy(&body.bytes)),
        };
        if is_there {
            return Ok(());
        }
        let what = match body.is_whole {
            true => "the body".to_owned(),
            false => format!("the beginning of the body, {} KiB,", MAX_BODY >> 10),
        };
        Err(match self {
            Self::Contains(text) => format!("{what} lacks `{}`", text.escape_debug()),
            // Expressions are full of backslashes, which are to stay single.
            Self::Matches(regex) => {
                format!("{what} does not match `{}`", regex.as_str().replace(char::is_control, " "))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pattern: &BodyMatch, bytes: &[u8], is_whole: bool) -> Result<(), String> {
        Pattern::new(pattern).unwrap().find_in(&Body { bytes: bytes.to_vec(), is_whole })
    }

    #[test]
    fn text_is_found_anywhere_and_as_it_stands() {
        let ok = BodyMatch::Contains("o.k".into());
        assert_eq!(find(&ok, b"all \xff is o.k now", true), Ok(()));
        assert_eq!(find(&ok, b"ork", true), Err("the body lacks `o.k`".into()));
        let part = Err("the beginning of the body, 64 KiB, lacks `o.k`".into());
        assert_eq!(find(&ok, b"ork", false), part);
        let odd = BodyMatch::Contains("a\n\u{1b}".into());
        assert_eq!(find(&odd, b"", true), Err("the body lacks `a\\n\\u{1b}`".into()));
    }

    #[test]
    fn expressions_are_matched_on_text_whatever_the_bytes_are() {
        let ok = BodyMatch::Matches(r"^o\w$".into());
        assert_eq!(find(&ok, b"ok", true), Ok(()));
        assert_eq!(find(&ok, b"o.", true), Err(r"the body does not match `^o\w$`".into()));
        assert_eq!(find(&BodyMatch::Matches("^.ok$".into()), b"\xffok", true), Ok(()));
        let invalid = BodyMatch::Matches("(".into());
        assert_eq!(Pattern::new(&invalid).unwrap_err(), "the check's pattern is not valid");
    }
}
