//! Requests and responses as they were received.

use super::wire::Wire;

/// A start line and its fields, in order.
#[derive(Debug, Clone)]
pub struct Head {
    /// Every byte of it, as text.
    pub raw: String,
    /// The request line or status line.
    pub first_line: String,
    /// Names as sent, values trimmed.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// Reads what the balancer wrote, which must be flawless.
    pub fn parse(bytes: &[u8]) -> Self {
        let raw = String::from_utf8_lossy(bytes).into_owned();
        let mut lines = raw.strip_suffix("\r\n\r\n").expect("a whole head").split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .map(|line| {
                let (name, value) = line.split_once(':').expect("a field with a colon");
                assert!(!name.is_empty() && !name.contains([' ', '\t']), "field name in {line:?}");
                (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
            })
            .collect();
        Self { raw, first_line, fields }
    }

    /// The values of every field called `name`, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of the one field called `name`; more than one is a failure.
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "more than one {name} in {:?}", self.raw);
        all.first().copied()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// The members of the list field `name`, over all its lines.
    pub fn list(&self, name: &str) -> Vec<String> {
        let all = self.all(name).join(",");
        all.split(',').map(|item| item.trim().to_owned()).filter(|i| !i.is_empty()).collect()
    }

    /// Whether the list field `name` has the member `token`, in any case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.list(name).iter().any(|item| item.eq_ignore_ascii_case(token))
    }

    fn is_chunked(&self) -> bool {
        assert!(
            !(self.has("transfer-encoding") && self.has("content-length")),
            "both framings in {:?}",
            self.raw
        );
        match self.get("transfer-encoding") {
            Some(coding) => {
                assert_eq!(coding, "chunked", "the only coding we send");
                true
            }
            None => false,
        }
    }

    fn content_length(&self) -> Option<usize> {
        self.get("content-length").map(|v| v.parse().expect("Content-Length is a number"))
    }
}

/// A request as a backend received it.
#[derive(Debug, Clone)]
pub struct Request {
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Whether the body came in chunks.
    pub chunked: bool,
}

impl Request {
    pub fn method(&self) -> &str {
        self.head.first_line.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.head.first_line.split(' ').nth(1).unwrap_or_default()
    }

    /// The whole next request; `None` where the connection ends before it is complete.
    pub fn read(wire: &mut Wire) -> Option<Self> {
        let head = wire.head()?;
        Self::read_body(wire, head)
    }

    /// The body that follows `head`.
    pub fn read_body(wire: &mut Wire, head: Head) -> Option<Self> {
        if head.is_chunked() {
            let (body, trailers, whole) = wire.chunked();
            return whole.then_some(Self { head, body, trailers, chunked: true });
        }
        let length = head.content_length().unwrap_or(0);
        let body = wire.take(length);
        let whole = body.len() == length;
        whole.then_some(Self { head, body, trailers: Vec::new(), chunked: false })
    }
}

/// A response as a client received it.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub framing: Framing,
    /// Whether the body came to the end that its framing announced.
    pub complete: bool,
}

/// How a response's end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// It has no body by its status or method.
    None,
    Length,
    Chunked,
    /// By the end of the connection.
    Close,
}

impl Response {
    /// The next response, to a request of `method`; `None` where the connection ends before its
    /// head is complete.
    pub fn read(wire: &mut Wire, method: &str) -> Option<Self> {
        let head = wire.head()?;
        let mut words = head.first_line.splitn(3, ' ');
        assert!(
            matches!(words.next(), Some("HTTP/1.1")),
            "a response's version is ours: {:?}",
            head.first_line
        );
        let status: u16 = words.next().expect("a status").parse().expect("a status of digits");
        let chunked = head.is_chunked();
        let mut response = Self {
            status,
            head,
            body: Vec::new(),
            trailers: Vec::new(),
            framing: Framing::None,
            complete: true,
        };
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Some(response);
        }
        if chunked {
            response.framing = Framing::Chunked;
            (response.body, response.trailers, response.complete) = wire.chunked();
        } else if let Some(length) = response.head.content_length() {
            response.framing = Framing::Length;
            response.body = wire.take(length);
            response.complete = response.body.len() == length;
        } else {
            response.framing = Framing::Close;
            response.body = wire.rest();
        }
        Some(response)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The Proxy-Status field, or nothing.
    pub fn proxy_status(&self) -> &str {
        self.head.get("proxy-status").unwrap_or_default()
    }

    /// Asserts that this is a failure of the balancer's own, in the field's words.
    #[track_caller]
    pub fn assert_fault(&self, status: u16, error: &str) {
        assert_eq!(self.status, status, "in {:?} {:?}", self.head.raw, self.text());
        let word = format!("error={error}");
        assert!(
            self.proxy_status().starts_with("tinylb") && self.proxy_status().contains(&word),
            "Proxy-Status names {error}: {:?}",
            self.head.raw
        );
    }
}
