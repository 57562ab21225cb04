//! Clients and servers that others wrote, as programs: run, watched and ended.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::process::{LOOK, Lines};

/// How long a program may run. Some begin slowly while everything else is tested beside them.
const LIFE: Duration = Duration::from_secs(180);

/// What a program said, and how it ended.
#[derive(Debug)]
pub struct Ran {
    name: String,
    /// Its exit code; `None` where a signal has ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// Its output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Itself, if it has ended well.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.ended_with(0)
    }

    /// Itself, if it has ended with `code`.
    #[track_caller]
    pub fn ended_with(self, code: i32) -> Self {
        let Self { name, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "{name} said: {}{stderr}", self.text());
        self
    }
}

/// Runs `program` to its end, with `input` on its standard input. `None` where it is not installed,
/// which is counted.
#[track_caller]
pub fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<Ran> {
    let mut child = spawn(program, arguments, Stdio::piped())?;
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end before it has read everything.
    thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let deadline = Instant::now() + LIFE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        thread::sleep(LOOK);
    };
    let stdout = stdout.join().unwrap();
    let stderr = String::from_utf8_lossy(&stderr.join().unwrap()).into_owned();
    let said = || format!("{}{stderr}", String::from_utf8_lossy(&stdout));
    let Some(status) = status else { panic!("{program} does not end; it said: {}", said()) };
    Some(Ran { name: program.to_owned(), code: status.code(), stdout, stderr })
}

/// A program that serves until it is dropped.
#[derive(Debug)]
pub struct Serving {
    child: Child,
    output: Arc<Lines>,
    errors: Arc<Lines>,
}

impl Serving {
    /// Starts it; `None` where it is not installed, which is counted.
    #[track_caller]
    pub fn start(program: &str, arguments: &[&str]) -> Option<Self> {
        Self::start_with(program, arguments, Stdio::null())
    }

    /// The same with a standard input, which may be a socket that it is to listen on.
    #[track_caller]
    pub fn start_with(program: &str, arguments: &[&str], input: Stdio) -> Option<Self> {
        let mut child = spawn(program, arguments, input)?;
        let output = Lines::collect(child.stdout.take().unwrap());
        let errors = Lines::collect(child.stderr.take().unwrap());
        Some(Self { child, output, errors })
    }

    /// Waits for a line of its output that begins with `words`, and gives the rest of it.
    #[track_caller]
    pub fn wait_for(&self, words: &str) -> String {
        match self.output.wait_for(|line| line.starts_with(words)) {
            Some(line) => line[words.len()..].to_owned(),
            None => panic!("it says {words:?}"),
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Whether it has said `words` among its errors, or does so before it ends.
    pub fn has_said(&self, words: &str) -> bool {
        self.errors.wait_for(|line| line.contains(words)).is_some()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- what the server said ---");
            for line in [self.output.all(), self.errors.all()].concat() {
                eprintln!("{line}");
            }
        }
    }
}

/// Counts this test, or a part of it, as skipped: it is said even where the output of tests that pass
/// is not shown, and noted in the file that `TINYLB_SKIPPED` names.
pub fn skipped(why: &str) {
    let line = format!("SKIPPED: {}: {why}\n", thread::current().name().unwrap_or("a test"));
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(file) = std::env::var_os("TINYLB_SKIPPED") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("skips are counted");
    }
}

fn spawn(program: &str, arguments: &[&str], input: Stdio) -> Option<Child> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    match command.spawn() {
        Ok(child) => Some(child),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            skipped(&format!("{program} is not installed"));
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

fn collect(mut output: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = output.read_to_end(&mut bytes);
        bytes
    })
}
