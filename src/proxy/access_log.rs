//! The access log: one line a request, made by the worker, written by a thread of its own.
//!
//! A worker never waits for it: lines are gathered in blocks, blocks go into a bounded queue, and
//! what does not fit is dropped and counted.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crate::config::AccessLog as Format;
use crate::error::Error;
use crate::stats::{RetryReason, RetryReasons, WorkerStats};

/// A block is handed over once it is this large in bytes, or [`FLUSH_EVERY`] has passed.
const BLOCK: usize = 32 * 1024;

/// How long a line may wait for its block to fill.
pub const FLUSH_EVERY: Duration = Duration::from_millis(50);

/// Blocks that may wait to be written: a few megabytes, which a disk that pauses for a second can
/// leave behind.
const QUEUED_BLOCKS: usize = 128;

/// What is told of one request. Of one that could not be understood, less is known.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The method as sent.
    pub method: Option<&'a [u8]>,
    /// The host asked, with its port.
    pub host: Option<&'a [u8]>,
    /// The path asked, as sent, without its query, where secrets may be.
    pub path: Option<&'a [u8]>,
    /// The status the client got, or 499 where it went away first.
    pub status: u16,
    /// Payload from the client, and to it.
    pub bytes: (u64, u64),
    /// From the head's last byte received to the response's last byte sent.
    pub duration: Duration,
    /// From the request sent to the endpoint to its response's head received.
    pub upstream_duration: Option<Duration>,
    /// The route's label.
    pub route: Option<&'a str>,
    /// The upstream's name, and its policy's.
    pub upstream: Option<(&'a str, &'static str)>,
    /// The endpoint that was asked last.
    pub endpoint: Option<&'a str>,
    /// How often the request was sent.
    pub attempts: u32,
    /// Connections to endpoints that could not be made for it.
    pub connect_failures: u32,
    /// Why there was more than one try.
    pub retries: RetryReasons,
    /// What went wrong.
    pub error: Option<Error>,
    /// The id that the endpoint got.
    pub request_id: Option<&'a [u8]>,
}

/// One worker's end of the access log.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    queue: SyncSender<Vec<u8>>,
    block: RefCell<Vec<u8>>,
    lines: Cell<u64>,
}

impl AccessLog {
    /// A log in this format, whose blocks go to `queue`.
    pub const fn new(format: Format, queue: SyncSender<Vec<u8>>) -> Self {
        Self { format, queue, block: RefCell::new(Vec::new()), lines: Cell::new(0) }
    }

    /// Whether anything is logged at all.
    pub fn is_on(&self) -> bool {
        self.format != Format::Off
    }

    /// Adds one line.
    pub fn write(&self, record: &Record<'_>, stats: &WorkerStats) {
        let mut block = self.block.borrow_mut();
        // Writing to a Vec can't fail.
        let _ = match self.format {
            Format::Off => return,
            Format::Text => write_text(&mut block, record, SystemTime::now()),
            Format::Json => write_json(&mut block, record, SystemTime::now()),
        };
        self.lines.set(self.lines.get() + 1);
        if block.len() >= BLOCK {
            drop(block);
            self.flush(stats);
        }
    }

    /// Hands over what there is.
    pub fn flush(&self, stats: &WorkerStats) {
        let lines = self.lines.replace(0);
        if lines == 0 {
            return;
        }
        let block = self.block.replace(Vec::with_capacity(BLOCK + BLOCK / 4));
        if self.queue.try_send(block).is_err() {
            stats.log_dropped.add(lines);
        }
    }
}

/// Starts the thread that writes blocks to `output`, until every sender is gone.
///
/// # Errors
/// A thread that cannot be started.
pub fn start_writer(
    output: impl Write + Send + 'static,
) -> io::Result<(SyncSender<Vec<u8>>, JoinHandle<()>)> {
    let (sender, receiver) = sync_channel(QUEUED_BLOCKS);
    let write = move || write_blocks(&receiver, output);
    Ok((sender, std::thread::Builder::new().name("access-log".into()).spawn(write)?))
}

fn write_blocks(receiver: &Receiver<Vec<u8>>, mut output: impl Write) {
    let mut failing = false;
    for block in receiver {
        let written = output.write_all(&block).and_then(|()| output.flush());
        match written {
            Ok(()) => failing = false,
            // Once, not once a block: a log that fills a disk must not fill another.
            Err(error) if !failing => {
                failing = true;
                tracing::error!(%error, "the access log cannot be written");
            }
            Err(_) => {}
        }
    }
}

fn write_text(out: &mut Vec<u8>, r: &Record<'_>, now: SystemTime) -> io::Result<()> {
    write!(out, "time={} client={}", humantime::format_rfc3339_millis(now), r.client)?;
    text(out, "method", r.method);
    text(out, "host", r.host);
    text(out, "path", r.path);
    write!(out, " status={} bytes_in={} bytes_out={}", r.status, r.bytes.0, r.bytes.1)?;
    write!(out, " duration={:.6}", r.duration.as_secs_f64())?;
    match r.upstream_duration {
        Some(duration) => write!(out, " upstream_duration={:.6}", duration.as_secs_f64())?,
        None => out.extend_from_slice(b" upstream_duration=-"),
    }
    text(out, "route", r.route.map(str::as_bytes));
    text(out, "upstream", r.upstream.map(|(name, _)| name.as_bytes()));
    text(out, "endpoint", r.endpoint.map(str::as_bytes));
    write!(out, " attempts={} connect_failures={}", r.attempts, r.connect_failures)?;
    text(out, "retries", reasons(r.retries).as_deref().map(str::as_bytes));
    text(out, "policy", r.upstream.map(|(_, policy)| policy.as_bytes()));
    text(out, "error", r.error.map(|error| error.kind.name().as_bytes()));
    text(out, "detail", r.error.map(|error| error.detail.as_bytes()));
    text(out, "request_id", r.request_id);
    out.push(b'\n');
    Ok(())
}

/// The names of `reasons`, with commas between.
fn reasons(reasons: RetryReasons) -> Option<String> {
    let names = || reasons.iter().map(RetryReason::name).collect::<Vec<_>>().join(",");
    (!reasons.is_empty()).then(names)
}

/// ` key=value`, the value in quotes where it has to be, so that a client cannot write lines or
/// fields of its own.
fn text(out: &mut Vec<u8>, key: &str, value: Option<&[u8]>) {
    out.push(b' ');
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    let Some(value) = value else { return out.push(b'-') };
    let plain = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'=');
    if !value.is_empty() && value != b"-" && value.iter().all(plain) {
        return out.extend_from_slice(value);
    }
    out.push(b'"');
    for byte in value {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b' '..=b'~' => out.push(*byte),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push(b'"');
}

fn write_json(out: &mut Vec<u8>, r: &Record<'_>, now: SystemTime) -> io::Result<()> {
    write!(out, "{{\"time\":\"{}\"", humantime::format_rfc3339_millis(now))?;
    write!(out, ",\"client\":\"{}\"", r.client)?;
    json(out, "method", r.method);
    json(out, "host", r.host);
    json(out, "path", r.path);
    write!(out, ",\"status\":{},\"bytes_in\":{},\"bytes_out\":{}", r.status, r.bytes.0, r.bytes.1)?;
    write!(out, ",\"duration\":{:.6}", r.duration.as_secs_f64())?;
    match r.upstream_duration {
        Some(duration) => write!(out, ",\"upstream_duration\":{:.6}", duration.as_secs_f64())?,
        None => out.extend_from_slice(b",\"upstream_duration\":null"),
    }
    json(out, "route", r.route.map(str::as_bytes));
    json(out, "upstream", r.upstream.map(|(name, _)| name.as_bytes()));
    json(out, "endpoint", r.endpoint.map(str::as_bytes));
    write!(out, ",\"attempts\":{}", r.attempts)?;
    write!(out, ",\"connect_failures\":{}", r.connect_failures)?;
    json(out, "retries", reasons(r.retries).as_deref().map(str::as_bytes));
    json(out, "policy", r.upstream.map(|(_, policy)| policy.as_bytes()));
    json(out, "error", r.error.map(|error| error.kind.name().as_bytes()));
    json(out, "detail", r.error.map(|error| error.detail.as_bytes()));
    json(out, "request_id", r.request_id);
    out.extend_from_slice(b"}\n");
    Ok(())
}

/// `,"key":"value"`, or null (RFC 8259 7).
fn json(out: &mut Vec<u8>, key: &str, value: Option<&[u8]>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    let Some(value) = value else { return out.extend_from_slice(b"null") };
    let value: Cow<'_, str> = String::from_utf8_lossy(value);
    out.push(b'"');
    // Some readers take U+0085 or U+2028 for the end of a line, so only ASCII stands as itself.
    for unit in value.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte @ (b'"' | b'\\')) => out.extend_from_slice(&[b'\\', byte]),
            Ok(byte @ b' '..=b'~') => out.push(byte),
            _ => {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RECORD: Record<'static> = Record {
        client: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        method: Some(b"GET"),
        host: Some(b"h:80"),
        path: Some(b"/a"),
        status: 502,
        bytes: (1, 2),
        duration: Duration::from_micros(1500),
        upstream_duration: None,
        route: Some("/"),
        upstream: Some(("u", "p2c")),
        endpoint: Some("http://e:1"),
        attempts: 1,
        connect_failures: 0,
        retries: RetryReasons::NONE,
        error: Some(Error::new(crate::error::Kind::ConnectionRefused, "refused")),
        request_id: None,
    };

    fn line(
        record: &Record<'_>,
        write: fn(&mut Vec<u8>, &Record<'_>, SystemTime) -> io::Result<()>,
    ) -> String {
        let mut out = Vec::new();
        write(&mut out, record, SystemTime::UNIX_EPOCH).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_of_each_kind() {
        assert_eq!(
            line(&RECORD, write_text),
            "time=1970-01-01T00:00:00.000Z client=127.0.0.1 method=GET host=h:80 path=/a status=502 \
             bytes_in=1 bytes_out=2 duration=0.001500 upstream_duration=- route=/ upstream=u \
             endpoint=http://e:1 attempts=1 connect_failures=0 retries=- policy=p2c error=connection_refused \
             detail=refused request_id=-\n"
        );
        let json: serde_json::Value = serde_json::from_str(&line(&RECORD, write_json)).unwrap();
        assert_eq!(json["status"], 502);
        assert_eq!(json["duration"], 0.0015);
        assert_eq!(json["upstream_duration"], serde_json::Value::Null);
        assert_eq!(json["error"], "connection_refused");
    }

    #[test]
    fn lines_that_do_not_fit_are_counted() {
        let (queue, _receiver) = sync_channel(1);
        let log = AccessLog::new(Format::Text, queue);
        let stats = WorkerStats::default();
        for _ in 0..3 {
            log.write(&RECORD, &stats);
            log.write(&RECORD, &stats);
            log.flush(&stats);
        }
        assert_eq!(stats.log_dropped.get(), 4);
    }

    proptest! {
        #[test]
        fn nothing_from_the_wire_can_forge_a_line(path in prop::collection::vec(any::<u8>(), 0..40)) {
            let record = Record { path: Some(&path), ..RECORD };
            let text = line(&record, write_text);
            prop_assert_eq!(text.matches('\n').count(), 1);
            prop_assert!(text.is_ascii());
            let json: serde_json::Value = serde_json::from_str(&line(&record, write_json)).unwrap();
            let lossy = String::from_utf8_lossy(&path);
            prop_assert_eq!(json["path"].as_str(), Some(&*lossy));
        }
    }
}
