//! A meter of the frames that a client sends, against those who make a connection of HTTP/2 do much
//! work for few bytes: resets of requests just sent (CVE-2023-44487), pings, settings, empty frames,
//! windows opened byte by byte, and what else is well-formed and has no use (CVE-2019-9511 to 9518,
//! CVE-2024-27316).
//!
//! Every such frame costs a token of a bucket that fills up by itself and by answers. What honest
//! clients send in proportion to what they get or ask for is credited beforehand: one that reads a
//! long download updates its windows all the time, one of gRPC pings for each round trip of data to
//! learn the bandwidth, a browser says how urgent each request is. Content costs nothing.
//!
//! The figures lie around those of others: nghttp2 takes 1000 resets at once and 33 a second, Envoy 20
//! window updates for each DATA frame that it sent and 100 PRIORITY frames for each stream.

use std::time::{Duration, Instant};

/// What the client sends first (RFC 9113 3.4).
const PREFACE: usize = 24;

/// The header of a frame (RFC 9113 4.1).
const HEADER: usize = 9;

/// Tokens in a full bucket: as many as all requests of a page that is left while it loads cost, and
/// then some.
const BURST: u32 = 1000;

/// A token comes back after this time, 200 in a second, so that 100 requests in a second can be given
/// up before they are answered.
const REFILL: Duration = Duration::from_millis(5);

/// Tokens that an answer gives back: its request, its trailers, a CONTINUATION, and a reset when the
/// client has read enough.
const ANSWERED: u32 = 4;

/// Frames that a request warrants: its stream's window (Firefox), its priority now and later, one
/// of a type that nobody knows (Chrome).
const REQUEST_CREDIT: u32 = 4;

/// Frames that up to 16 KiB of payload warrant, the most that a DATA frame holds by default: a client
/// that gives back each kibibyte of both windows comes to 32.
const DATA_CREDIT: u32 = 32;
const DATA_FRAME: usize = 16 * 1024;

/// A piece of content is small below this: no window of an honest client is so small for long.
const SMALL_PIECE: usize = 1024;

/// The most credit there ever is. The updates for what was sent come when it is read, which may be
/// a window of many mebibytes later.
const MAX_CREDIT: u32 = 1 << 20;

/// Applied settings change all streams, and are acknowledged.
const SETTINGS_COST: u32 = 5;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;

/// What the meter says of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Fine,
    /// It sends far more than it has a use for: the connection ends with `ENHANCE_YOUR_CALM`.
    Flood,
}

/// The meter of one connection.
#[derive(Debug)]
pub struct Meter {
    /// Bytes that follow the last header, or of the preface, and are not looked at.
    skip: usize,
    /// The header that is arriving, and the length of the padding where there is any.
    header: [u8; HEADER + 1],
    arrived: usize,
    tokens: u32,
    credit: u32,
    filled: Instant,
    is_over: bool,
}

impl Meter {
    /// For a connection that begins `now`.
    pub const fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE,
            header: [0; HEADER + 1],
            arrived: 0,
            tokens: BURST,
            credit: 0,
            filled: now,
            is_over: false,
        }
    }

    /// Looks at the next `bytes` that the client has sent, from the first one of the connection on.
    /// Once it is a flood, it stays one.
    pub fn feed(&mut self, mut bytes: &[u8], now: Instant) -> Verdict {
        self.fill(now);
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = self.wanted();
            let missing = wanted.saturating_sub(self.arrived);
            let (part, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
            if let Some(room) = self.header.get_mut(self.arrived..self.arrived + part.len()) {
                room.copy_from_slice(part);
            }
            self.arrived += part.len();
            bytes = rest;
            if self.arrived < wanted {
                return if self.is_over { Verdict::Flood } else { Verdict::Fine };
            }
            // The header may have shown that more is wanted.
            if self.arrived == self.wanted() {
                self.frame();
            }
        }
    }

    /// How much of a frame is looked at: of padded DATA, also how much of it is padding.
    fn wanted(&self) -> usize {
        match self.header {
            [a, b, c, DATA, flags, ..]
                if self.arrived >= HEADER && flags & PADDED != 0 && [a, b, c] != [0; 3] =>
            {
                HEADER + 1
            }
            _ => HEADER,
        }
    }

    /// Accounts for the frame whose header has arrived.
    fn frame(&mut self) {
        let [a, b, c, kind, flags, _, _, _, _, padding] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let seen = self.arrived - HEADER;
        self.skip = length.saturating_sub(seen);
        self.arrived = 0;
        let padding = if seen > 0 { 1 + usize::from(padding) } else { 0 };
        match kind {
            // The end of a body is worth a frame of its own.
            DATA if length > padding || flags & END_STREAM != 0 => {}
            HEADERS => {
                self.pay(1);
                self.credit = (self.credit + REQUEST_CREDIT).min(MAX_CREDIT);
            }
            PING | PRIORITY | WINDOW_UPDATE => self.pay_by_credit(),
            SETTINGS if flags & ACK == 0 => self.pay(SETTINGS_COST),
            DATA | RST_STREAM | SETTINGS | PUSH_PROMISE | GOAWAY | CONTINUATION => self.pay(1),
            // RFC 9113 4.1 has them ignored, for whatever is invented.
            _ => self.pay_by_credit(),
        }
    }

    fn pay_by_credit(&mut self) {
        match self.credit.checked_sub(1) {
            Some(left) => self.credit = left,
            None => self.pay(1),
        }
    }

    fn pay(&mut self, cost: u32) {
        match self.tokens.checked_sub(cost) {
            Some(left) => self.tokens = left,
            None => self.is_over = true,
        }
    }

    /// Puts in the tokens that have come back by `now`.
    fn fill(&mut self, now: Instant) {
        let past = now.saturating_duration_since(self.filled);
        let tokens = past.as_nanos() / REFILL.as_nanos();
        let missing = BURST - self.tokens;
        match u32::try_from(tokens).ok().filter(|tokens| *tokens < missing) {
            Some(tokens) => {
                self.tokens += tokens;
                self.filled += REFILL * tokens;
            }
            None => {
                self.tokens = BURST;
                self.filled = self.filled.max(now);
            }
        }
    }

    /// The head of an answer goes to the client, whoever made it.
    pub fn answered(&mut self) {
        self.tokens = (self.tokens + ANSWERED).min(BURST);
    }

    /// So many `bytes` of content go to the client, which `is_all` that there is to send at the moment,
    /// or as much as its windows let through.
    ///
    /// Only content counts, not what is written to the socket: answers to pings would pay for pings.
    pub fn sent_data(&mut self, bytes: usize, is_all: bool) {
        // A client that opens its windows byte by byte earns nothing by that.
        if !is_all && bytes < SMALL_PIECE {
            return;
        }
        let frames = u32::try_from(bytes.div_ceil(DATA_FRAME)).unwrap_or(u32::MAX);
        let credit = frames.max(1).saturating_mul(DATA_CREDIT);
        self.credit = self.credit.saturating_add(credit).min(MAX_CREDIT);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// RFC 9218 7.1.
    const PRIORITY_UPDATE: u8 = 0x10;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// A client, and a clock that only it moves.
    struct Client {
        meter: Meter,
        now: Instant,
        last: Verdict,
    }

    impl Client {
        fn new() -> Self {
            let now = Instant::now();
            let mut client = Self { meter: Meter::new(now), now, last: Verdict::Fine };
            client.feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            client.send(SETTINGS, 0, &[0; 18]);
            client.send(SETTINGS, ACK, &[]);
            client.send(WINDOW_UPDATE, 0, &[0; 4]);
            client
        }

        fn feed(&mut self, bytes: &[u8]) {
            self.last = self.meter.feed(bytes, self.now);
        }

        fn send(&mut self, kind: u8, flags: u8, payload: &[u8]) {
            self.feed(&frame(kind, flags, payload));
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
        }

        /// How many of these frames it takes.
        fn flood(mut self, frames: &[(u8, u8, &[u8])]) -> usize {
            for count in 0..5000 {
                for (kind, flags, payload) in frames {
                    self.send(*kind, *flags, payload);
                }
                if self.last == Verdict::Flood {
                    return count;
                }
            }
            usize::MAX
        }
    }

    #[test]
    fn floods_are_cut_off_soon() {
        let request = (HEADERS, 0x4, &b"x"[..]);
        for (frames, most) in [
            // Requests that are given up at once.
            (&[request, (RST_STREAM, 0, &[0; 4])][..], 500),
            (&[(RST_STREAM, 0, &[0; 4])], 1000),
            // Requests that are never answered: over the limit of streams, or malformed.
            (&[request], 1000),
            (&[(PING, 0, &[0; 8])], 1000),
            // We ask twice a minute at most, and in the end.
            (&[(PING, ACK, &[0; 8])], 1000),
            (&[(SETTINGS, 0, &[])], 200),
            (&[(SETTINGS, 0, &[0; 600])], 200),
            (&[(SETTINGS, ACK, &[])], 1000),
            (&[(PRIORITY, 0, &[0; 5])], 1000),
            (&[(WINDOW_UPDATE, 0, &[0, 0, 0, 1])], 1000),
            (&[(WINDOW_UPDATE, 0, &[0, 1, 0, 0])], 1000),
            (&[(DATA, 0, &[])], 1000),
            (&[(DATA, PADDED, &[0])], 1000),
            (&[(DATA, PADDED, &[5, 0, 0, 0, 0, 0])], 1000),
            (&[(HEADERS, 0, &[])], 1000),
            (&[(HEADERS, 0, &[]), (CONTINUATION, 0, &[])], 500),
            (&[(CONTINUATION, 0, &[])], 1000),
            (&[(CONTINUATION, 0, b"x")], 1000),
            (&[(PUSH_PROMISE, 0, &[0; 4])], 1000),
            (&[(GOAWAY, 0, &[0; 8])], 1000),
            (&[(PRIORITY_UPDATE, 0, &[0; 8])], 1000),
            (&[(0xfe, 0, &[0; 8])], 1000),
            // With requests between them, which warrant some.
            (&[request, (PRIORITY, 0, &[0; 5]), (RST_STREAM, 0, &[0; 4])], 500),
        ] {
            let took = Client::new().flood(frames);
            assert!(took <= most, "{frames:?} took {took}");
            assert!(took >= most / 2, "{frames:?} took only {took}");
        }
    }

    /// A window of one byte makes a frame of each byte of a body.
    #[test]
    fn windows_that_are_opened_byte_by_byte_are_a_flood() {
        let mut client = Client::new();
        client.send(HEADERS, 0x5, b"x");
        client.meter.answered();
        for count in 0..2000 {
            client.send(WINDOW_UPDATE, 0, &[0, 0, 0, 1]);
            client.meter.sent_data(1, false);
            assert!(client.last == Verdict::Fine || count > 900, "{count}");
        }
        assert_eq!(client.last, Verdict::Flood);
    }

    #[test]
    fn a_slow_flood_is_one_as_well_and_what_stays_below_is_none() {
        for (pause, verdict) in [(2, Verdict::Flood), (5, Verdict::Fine), (20, Verdict::Fine)] {
            let mut client = Client::new();
            for _ in 0..10_000 {
                client.send(PING, 0, &[0; 8]);
                client.wait(Duration::from_millis(pause));
            }
            assert_eq!(client.last, verdict, "every {pause} ms");
        }
    }

    #[test]
    fn a_flood_stays_one() {
        let mut client = Client::new();
        for _ in 0..1001 {
            client.send(RST_STREAM, 0, &[0; 4]);
        }
        client.wait(Duration::from_secs(3600));
        client.meter.answered();
        client.meter.sent_data(1, true);
        client.feed(&[]);
        assert_eq!(client.last, Verdict::Flood);
    }

    /// As fast as it can, and without a pause that would fill the bucket.
    #[test]
    fn a_million_calls_with_everything_that_belongs_to_them() {
        let mut client = Client::new();
        for _ in 0..1_000_000 {
            client.send(HEADERS, 0x4, &[0; 40]);
            client.send(DATA, 0, &[0; 8]);
            client.send(DATA, END_STREAM, &[]);
            client.meter.answered();
            client.meter.sent_data(8, true);
            client.send(WINDOW_UPDATE, 0, &[0, 0, 0, 8]);
            client.send(WINDOW_UPDATE, 0, &[0, 0, 0, 8]);
            client.send(PING, 0, &[0; 8]);
            client.send(RST_STREAM, 0, &[0; 4]);
        }
        assert_eq!(client.last, Verdict::Fine);
    }

    #[test]
    fn a_million_small_messages_each_way_on_one_stream() {
        let mut client = Client::new();
        client.send(HEADERS, 0x4, &[0; 40]);
        client.meter.answered();
        for _ in 0..1_000_000 {
            client.send(DATA, 0, &[0; 6]);
            client.meter.sent_data(6, true);
            client.send(PING, 0, &[0; 8]);
            client.send(PING, ACK, &[0; 8]);
            client.send(WINDOW_UPDATE, 0, &[0, 0, 0, 6]);
            client.send(WINDOW_UPDATE, 0, &[0, 0, 0, 6]);
        }
        assert_eq!(client.last, Verdict::Fine);
    }

    /// 1 GiB, read late and given back in small pieces of both windows.
    #[test]
    fn a_long_download() {
        for window in [64 * 1024, 16 * 1024 * 1024, 256 * 1024 * 1024] {
            let mut client = Client::new();
            client.send(HEADERS, 0x5, &[0; 40]);
            client.meter.answered();
            for _ in 0..(1 << 30) / window {
                for _ in 0..window / (64 * 1024) {
                    client.meter.sent_data(64 * 1024, false);
                }
                for _ in 0..window / 4096 {
                    client.send(WINDOW_UPDATE, 0, &[0, 0, 16, 0]);
                    client.send(WINDOW_UPDATE, 0, &[0, 0, 16, 0]);
                }
            }
            assert_eq!(client.last, Verdict::Fine, "{window}");
        }
    }

    #[test]
    fn a_long_upload() {
        let mut client = Client::new();
        client.send(HEADERS, 0x4, &[0; 40]);
        for _ in 0..100_000 {
            client.send(DATA, 0, &[0; 100]);
            client.send(DATA, PADDED, &[1, 0, 0]);
        }
        assert_eq!(client.last, Verdict::Fine);
    }

    /// A page, its images said to be more and less urgent, and all of it given up at once.
    #[test]
    fn a_browser_that_leaves() {
        let mut client = Client::new();
        for _ in 0..20 {
            for _ in 0..100 {
                client.send(HEADERS, 0x25, &[0; 40]);
                client.send(WINDOW_UPDATE, 0, &[0, 0xbf, 0, 0]);
                client.send(PRIORITY_UPDATE, 0, &[0; 8]);
                client.send(PRIORITY_UPDATE, 0, &[0; 8]);
            }
            for _ in 0..100 {
                client.send(RST_STREAM, 0, &[0; 4]);
            }
            client.wait(Duration::from_secs(1));
        }
        assert_eq!(client.last, Verdict::Fine);
    }

    /// A proxy in front of many, a third of whom give up before they are answered.
    #[test]
    fn cancelled_calls_among_others() {
        let mut client = Client::new();
        for _ in 0..100_000 {
            for _ in 0..3 {
                client.send(HEADERS, 0x5, &[0; 40]);
            }
            client.send(RST_STREAM, 0, &[0; 4]);
            client.meter.answered();
            client.meter.answered();
        }
        assert_eq!(client.last, Verdict::Fine);
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        (0..12u8, any::<u8>(), vec(any::<u8>(), 0..20))
            .prop_map(|(kind, flags, payload)| frame(kind, flags, &payload))
    }

    proptest! {
        /// However the bytes arrive, the account is the same.
        #[test]
        fn splits_make_no_difference(
            frames in vec(any_frame(), 0..40),
            cuts in vec(1..30usize, 0..40),
        ) {
            let wire = [vec![0; PREFACE], frames.concat()].concat();
            let now = Instant::now();
            let (mut whole, mut split) = (Meter::new(now), Meter::new(now));
            whole.feed(&wire, now);
            let mut rest = &wire[..];
            for cut in cuts.into_iter().chain([wire.len()]) {
                let (part, left) = rest.split_at(cut.min(rest.len()));
                split.feed(part, now);
                rest = left;
            }
            prop_assert_eq!((whole.tokens, whole.credit), (split.tokens, split.credit));
            prop_assert_eq!((whole.skip, whole.arrived), (0, 0));
            prop_assert_eq!((split.skip, split.arrived), (0, 0));
        }

        /// Any bytes at all, at any time.
        #[test]
        fn bytes_that_are_no_frames(bytes in vec(any::<u8>(), 0..2000), at in 0..u64::MAX) {
            let now = Instant::now();
            let mut meter = Meter::new(now);
            let later = now.checked_add(Duration::from_nanos(at)).unwrap_or(now);
            meter.feed(&bytes, later);
            meter.feed(&bytes, now);
        }
    }
}
