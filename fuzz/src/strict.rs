//! A second reader of heads, which takes nothing but what RFC 9112 has senders send.

/// A head: its start line and its field lines, in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Lines<'a> {
    pub start: &'a [u8],
    pub fields: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Lines<'a> {
    /// The lines of `head`, which must be all of it; `None` where anything about them is wrong.
    pub fn of(head: &'a [u8]) -> Option<Self> {
        let mut lines = Vec::new();
        let mut rest = head;
        loop {
            let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
            let line = &rest[..end];
            rest = &rest[end + 2..];
            match line {
                [] if rest.is_empty() => break,
                [] => return None,
                _ => lines.push(line),
            }
        }
        let is_text = |line: &[u8]| line.iter().all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..));
        if !lines.iter().all(|line| is_text(line)) {
            return None;
        }
        let (start, fields) = lines.split_first()?;
        let fields: Option<Vec<_>> = fields.iter().map(|line| field(line)).collect();
        Some(Self { start, fields: fields? })
    }

    /// The values of a field, in order.
    pub fn values(&self, name: &str) -> Vec<&'a [u8]> {
        let named = |field: &&(&[u8], &[u8])| field.0.eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(named).map(|(_, value)| *value).collect()
    }

    /// The elements of all the lists that a field has, in lower case.
    pub fn elements(&self, name: &str) -> Vec<String> {
        let values = self.values(name);
        let elements = values.iter().flat_map(|value| value.split(|b| *b == b','));
        let text = |element: &[u8]| show_lower(trim(element));
        elements.map(text).filter(|element| !element.is_empty()).collect()
    }

    /// The fields of which `is_other` says so of the name in lower case, and that are not named in
    /// `Connection`, which cannot name what the proxy acts on.
    pub fn others(&self, is_other: impl Fn(&str) -> bool) -> Vec<(&'a [u8], &'a [u8])> {
        let named = self.elements("connection");
        let stays = |field: &&(&[u8], &[u8])| {
            let name = show_lower(field.0);
            is_other(&name) && (is_acted_on(&name) || !named.contains(&name))
        };
        self.fields.iter().filter(stays).copied().collect()
    }

    /// The length of the body in `Content-Length`, and whether `Transfer-Encoding` says chunked.
    /// `None` where that is not said in exactly one way.
    pub fn framing(&self) -> Option<(Option<u64>, bool)> {
        let (lengths, codings) = (self.values("content-length"), self.values("transfer-encoding"));
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Some((None, false)),
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Some((None, true)),
            ([first, rest @ ..], []) => {
                let number = |text: &[u8]| {
                    let text = std::str::from_utf8(text).ok()?;
                    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok())?
                };
                let length = number(first)?;
                let same = rest.iter().all(|other| number(other) == Some(length));
                same.then_some((Some(length), false))
            }
            _ => None,
        }
    }
}

fn show_lower(bytes: &[u8]) -> String {
    bytes.to_ascii_lowercase().escape_ascii().to_string()
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|b| *b == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    (!name.is_empty() && name.iter().all(is_token)).then(|| (name, trim(value)))
}

fn trim(bytes: &[u8]) -> &[u8] {
    let is_text = |b: &u8| !matches!(b, b' ' | b'\t');
    let start = bytes.iter().position(is_text).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(is_text).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// Whether `Connection` cannot take away the field of this name, in lower case.
fn is_acted_on(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "date",
        "expect",
        "forwarded",
        "host",
        "max-forwards",
        "proxy-status",
        "trailer",
        "via",
        "x-request-id",
    ];
    let plain = with_hyphens(name);
    NAMES.contains(&name) || plain.starts_with("x-forwarded-") || plain == "x-client-subject"
}

/// A name in which everything but letters and digits is a hyphen.
pub fn with_hyphens(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}
