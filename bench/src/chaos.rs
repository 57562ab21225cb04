//! What is asked and answered in the chaos run. An id decides everything: the method, the sizes, the
//! bytes. So whoever knows it can tell an answer to another request, or one put together from two.

/// SplitMix64: from a number to one that looks drawn.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a over 64 bits.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Between 0 and 1.
pub fn share(number: u64) -> f64 {
    (mix(number) >> 11) as f64 / (1_u64 << 53) as f64
}

/// A request's id, written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(pub u64);

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Id {
    /// Reads what [`Id`] writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let id = u64::from_str_radix(text, 16).ok().map(Self)?;
        (id.to_string() == text).then_some(id)
    }

    /// Half of all requests are GETs, three of ten are PUTs, two of ten POSTs.
    pub fn method(self) -> Method {
        match mix(self.0 ^ 1) % 10 {
            0..5 => Method::Get,
            5..8 => Method::Put,
            _ => Method::Post,
        }
    }

    /// The body of the request, up to 40 KiB; small ones are the most frequent.
    pub fn request_body(self) -> Vec<u8> {
        match self.method() {
            Method::Get => Vec::new(),
            Method::Put | Method::Post => filler(self.0, scaled(self.0 ^ 2, 16, 40 << 10)),
        }
    }

    /// Whether the request's body is sent in chunks.
    pub fn chunks_request(self) -> bool {
        mix(self.0 ^ 3).is_multiple_of(4)
    }

    /// Whether the answer's body is sent in chunks.
    pub fn chunks_answer(self) -> bool {
        mix(self.0 ^ 4).is_multiple_of(4)
    }

    /// Whether the client says that this is the last request of its connection.
    pub fn closes(self) -> bool {
        mix(self.0 ^ 5).is_multiple_of(32)
    }

    /// What the backend works on it, in microseconds.
    pub fn work(self) -> u64 {
        1000 + mix(self.0 ^ 6) % 4000
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "HTTP says what they are")]
pub enum Method {
    Get,
    Put,
    Post,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Get, Self::Put, Self::Post];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
        }
    }
}

/// Bytes that follow from `seed`.
fn filler(seed: u64, length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(8) as u64).map(|n| mix(seed ^ mix(n)));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(length);
    bytes
}

/// Between `least` and `most`, as often in each octave.
fn scaled(number: u64, least: usize, most: usize) -> usize {
    let octaves = (most as f64 / least as f64).log2();
    (least as f64 * (octaves * share(number)).exp2()) as usize
}

/// The body of an answer, from about 100 bytes to about 100 KiB: a line that tells whose it is, filler,
/// and the checksum of both. The filler is another one for each answer that a backend gives (`nonce`),
/// so that pieces of two answers never make a third.
pub fn answer(id: Id, backend: &str, nonce: u64, received: &[u8]) -> Vec<u8> {
    let size = scaled(id.0 ^ 7, 16, 100 << 10);
    let method = id.method().name();
    let received = checksum(received);
    let mut body = format!(
        "id={id} backend={backend} nonce={nonce:016x} method={method} received={received:016x} \
         size={size}\n"
    )
    .into_bytes();
    body.extend(filler(id.0 ^ mix(nonce), size));
    let sum = checksum(&body);
    body.extend(format!("\nsum={sum:016x}\n").into_bytes());
    body
}

/// Whether `body` is an answer to the request `id` with the body `sent`. Where it is not, says why.
pub fn check(id: Id, sent: &[u8], body: &[u8]) -> Result<(), String> {
    let end = body.iter().position(|&byte| byte == b'\n').ok_or("the answer has no first line")?;
    let line = String::from_utf8_lossy(&body[..end]);
    let word = |name: &str| {
        let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.ok_or(format!("the answer's first line has no {name}"))
    };
    if word("id")? != id.to_string() {
        return Err(format!("the answer to {}", word("id")?));
    }
    if word("received")? != format!("{:016x}", checksum(sent)) {
        return Err("the backend received another body".into());
    }
    let nonce = u64::from_str_radix(word("nonce")?, 16).map_err(|_| "the nonce is no number")?;
    if answer(id, word("backend")?, nonce, sent) != body {
        return Err("the answer's bytes are not what the backend sent".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_passes_and_a_changed_one_does_not() {
        for number in 0..200 {
            let id = Id(mix(number));
            let sent = id.request_body();
            let body = answer(id, "b1", number, &sent);
            assert_eq!(check(id, &sent, &body), Ok(()));
            assert!((130..101 << 10).contains(&body.len()), "{}", body.len());

            assert!(check(Id(id.0 ^ 1), &sent, &body).is_err());
            assert!(check(id, b"something else", &body).is_err());
            let mut changed = body.clone();
            let middle = changed.len() - 25;
            changed[middle] ^= 1;
            assert!(check(id, &sent, &changed).is_err());
            // The start of one answer and the end of another one to the same request.
            let other = answer(id, "b1", number + 1, &sent);
            let half = body.len() / 2 + 60;
            assert!(check(id, &sent, &[&body[..half], &other[half..]].concat()).is_err());
        }
    }

    #[test]
    fn methods_come_in_their_shares() {
        let count = |method| (0..10_000).filter(|&n| Id(mix(n)).method() == method).count();
        assert!((4_700..5_300).contains(&count(Method::Get)));
        assert!((2_700..3_300).contains(&count(Method::Put)));
        assert!((1_700..2_300).contains(&count(Method::Post)));
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        assert_eq!(Id::parse("00000000000000ff"), Some(Id(255)));
        for wrong in ["ff", "00000000000000FF", "+0000000000000ff", "", "00000000000000fg"] {
            assert_eq!(Id::parse(wrong), None, "{wrong}");
        }
    }
}
