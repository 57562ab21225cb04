//! What must hold of the code that reads what others wrote, for any bytes whatever. Each check
//! panics where it does not.
//!
//! The fuzz targets call these with what the fuzzer finds, and `tests/properties.rs` (which takes
//! this file in as a module) with what proptest makes up, so that both hold the code to the same.
//!
//! Where it can be, what is expected is worked out anew and in the plainest way, without the
//! functions that are checked: [`strict::Lines`] is a second reader of heads, slow and pedantic.

pub mod chunked;
pub mod config;
pub mod path;
pub mod proxy_protocol;
pub mod request;
pub mod response;
pub mod strict;

/// What a check of the wire begins with.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// What the circumstances are, some bits each.
    pub choice: u8,
    /// How long the pieces are in which the wire arrives, less one; again from the first when all
    /// are used, and all in one piece where there are none.
    pub pieces: &'a [u8],
    /// What arrives.
    pub wire: &'a [u8],
}

impl<'a> Input<'a> {
    /// The input in what a fuzzer makes: a byte of choice, one whose last three bits say how many
    /// lengths of pieces follow, these, and the wire. `00GET / HTTP/1.1…` is one in which the
    /// circumstances are the plainest, but for bits 4 and 5, and all arrives at once.
    pub fn of(bytes: &'a [u8]) -> Self {
        let [choice, count, rest @ ..] = bytes else {
            return Self { choice: 0, pieces: &[], wire: bytes };
        };
        let (pieces, wire) = rest.split_at(rest.len().min(usize::from(count & 7)));
        Self { choice: *choice, pieces, wire }
    }

    /// Whether bit `n` of the choice is set.
    fn chosen(&self, n: u8) -> bool {
        self.choice >> n & 1 == 1
    }

    /// The wire in pieces.
    fn in_pieces(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.wire;
        let mut lengths = self.pieces.iter().cycle().map(|length| usize::from(*length) + 1);
        std::iter::from_fn(move || {
            let length = lengths.next().unwrap_or(usize::MAX).min(rest.len());
            let (piece, behind) = rest.split_at(length);
            rest = behind;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// Bytes for a message.
fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
