//! The real binary, started, watched and ended.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;
use super::eventually;
use super::message::Response;
use super::wire::PATIENCE;

/// The lines of one of the process's outputs, collected as they come.
#[derive(Debug, Default)]
pub struct Lines {
    state: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Lines {
    pub fn collect(output: impl Read + Send + 'static) -> Arc<Self> {
        Self::collect_to(output, |_| false)
    }

    /// Collects up to the line that is `last`, then closes its end of the pipe.
    fn collect_to(output: impl Read + Send + 'static, last: fn(&str) -> bool) -> Arc<Self> {
        let lines = Arc::new(Self::default());
        let writer = Arc::clone(&lines);
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                let over = last(&line);
                writer.state.lock().unwrap().0.push(line);
                writer.changed.notify_all();
                if over {
                    break;
                }
            }
            writer.state.lock().unwrap().1 = true;
            writer.changed.notify_all();
        });
        lines
    }

    /// The first line for which `wanted` holds, past or to come.
    pub fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(line) = state.0.iter().find(|line| wanted(line)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    pub fn all(&self) -> Vec<String> {
        self.state.lock().unwrap().0.clone()
    }
}

/// A running balancer; killed when dropped, and its messages printed if the test failed.
#[derive(Debug)]
pub struct Tinylb {
    child: Child,
    /// What it says on standard error.
    pub log: Arc<Lines>,
    /// Its access log.
    pub access: Arc<Lines>,
    addresses: Vec<SocketAddr>,
    admin: SocketAddr,
    file: Option<PathBuf>,
}

impl Tinylb {
    /// Balances over `endpoints` (URLs), with `options` beside the harness's own.
    #[track_caller]
    pub fn start(endpoints: &[String], options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinylb"));
        command.args(endpoints).args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        if !options.contains(&"--workers") {
            command.args(["--workers", "2"]);
        }
        command.args(options);
        Self::spawn(command, None)
    }

    /// Balances over one backend with the defaults.
    #[track_caller]
    pub fn before(backend: &super::Backend) -> Self {
        Self::start(&[backend.url()], &[])
    }

    /// Runs a configuration file with this text.
    #[track_caller]
    pub fn run(text: &str) -> Self {
        let file = write(text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinylb"));
        command.arg("run").arg("-c").arg(&file);
        Self::spawn(command, Some(file))
    }

    /// The same as [start](Self::start), but nobody reads what it writes to standard output.
    #[track_caller]
    pub fn start_unread(endpoints: &[String], options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinylb"));
        command.args(endpoints).args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(options);
        Self::watch(command, None, false, |_| false)
    }

    /// The same as [run](Self::run), with these variables in its environment.
    #[track_caller]
    pub fn run_with_env(text: &str, variables: &[(&str, &str)]) -> Self {
        let file = write(text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinylb"));
        command.arg("run").arg("-c").arg(&file).envs(variables.iter().copied());
        Self::spawn(command, Some(file))
    }

    /// The same as [start](Self::start), but once it is ready its standard error is a pipe that
    /// nobody holds the other end of.
    #[track_caller]
    pub fn start_unheard(endpoints: &[String], options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinylb"));
        command.args(endpoints).args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(options);
        let tinylb = Self::watch(command, None, true, says_ready);
        tinylb.log.wait_for(|_| false);
        tinylb
    }

    /// The same as [run](Self::run), with at most `descriptors` open at once.
    #[track_caller]
    pub fn run_with_few_descriptors(text: &str, descriptors: usize) -> Self {
        let file = write(text);
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {descriptors}; exec \"$@\"");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_tinylb"), "run", "-c"]).arg(&file);
        Self::spawn(command, Some(file))
    }

    /// The same as [run](Self::run), with the file `hosts` in place of `/etc/hosts` for this process
    /// alone; what is written to it is what names resolve to. `None`, which is counted, where a process
    /// may not have a mount namespace of its own.
    #[track_caller]
    pub fn run_with_hosts(text: &str, hosts: &Path) -> Option<Self> {
        let inside = |command: &str, rest: &[&std::ffi::OsStr]| {
            let script = format!("mount --bind \"$0\" /etc/hosts && {command}");
            let mut unshare = Command::new("unshare");
            unshare.args(["--map-root-user", "--mount", "sh", "-c", &script]).arg(hosts).args(rest);
            unshare
        };
        let mut probe = inside("grep -q . /etc/hosts", &[]);
        if !probe.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            super::program::skipped("no mount namespace of its own for /etc/hosts");
            return None;
        }
        let file = write(text);
        let binary = std::ffi::OsStr::new(env!("CARGO_BIN_EXE_tinylb"));
        let rest = [binary, "run".as_ref(), "-c".as_ref(), file.as_os_str()];
        Some(Self::spawn(inside("exec \"$@\"", &rest), Some(file.clone())))
    }

    /// Runs it where it must end by itself, and gives its exit code and what it said.
    #[track_caller]
    pub fn ends(arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinylb"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let log = Lines::collect(child.stderr.take().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().unwrap() {
                log.wait_for(|_| false);
                return (status.code(), log.all().join("\n"));
            }
            thread::sleep(LOOK);
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("it ends by itself: {:?}", log.all());
    }

    #[track_caller]
    fn spawn(command: Command, file: Option<PathBuf>) -> Self {
        Self::watch(command, file, true, |_| false)
    }

    #[track_caller]
    fn watch(
        mut command: Command,
        file: Option<PathBuf>,
        read: bool,
        last: fn(&str) -> bool,
    ) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let log = Lines::collect_to(child.stderr.take().unwrap(), last);
        let access = match read {
            true => Lines::collect(child.stdout.take().unwrap()),
            false => Arc::default(),
        };
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut tinylb = Self { child, log, access, addresses: Vec::new(), admin: unknown, file };
        let ready = tinylb.log.wait_for(says_ready);
        assert!(ready.is_some(), "the balancer says that it is ready");
        for line in tinylb.log.all() {
            if line.contains("listening address=unix:") {
                continue;
            } else if let Some(address) = value_after(&line, "listening address=") {
                tinylb.addresses.push(address.parse().expect("the address listened on"));
            } else if let Some(address) = value_after(&line, "admin address=") {
                tinylb.admin = address.parse().expect("the admin address");
            }
        }
        assert!(!tinylb.addresses.is_empty(), "the balancer says where it listens");
        let ports = tinylb.addresses.iter().chain([&tinylb.admin]).map(SocketAddr::port);
        assert!(
            ports.into_iter().all(|port| !DEFAULT_PORTS.contains(&port)),
            "a test takes ports that the kernel chooses"
        );
        tinylb
    }

    /// The first listener's address.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.connect().get(path)
    }

    /// Sends `request` on a connection of its own and reads one response.
    #[track_caller]
    pub fn exchange(&self, request: impl AsRef<[u8]>) -> Response {
        let mut client = self.connect();
        client.send(request);
        client.response()
    }

    /// One GET to the admin address.
    #[track_caller]
    pub fn admin(&self, path: &str) -> Response {
        assert_ne!(self.admin.port(), 0, "the balancer says where its admin address is");
        Client::connect(self.admin).get(path)
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The samples of the metric `name`: labels as rendered, and values.
    #[track_caller]
    pub fn samples(&self, name: &str) -> Vec<(String, f64)> {
        let text = self.admin("/metrics").text();
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines
            .filter(|rest| rest.starts_with(['{', ' ']))
            .map(|rest| {
                let (labels, value) = rest.rsplit_once(' ').expect("labels and a value");
                (labels.to_owned(), value.parse().expect("a number"))
            })
            .collect()
    }

    /// The sum of those samples of `name` whose labels have all of `wanted`; there must be one.
    #[track_caller]
    pub fn metric(&self, name: &str, wanted: &[&str]) -> f64 {
        let mut samples = self.samples(name);
        samples.retain(|(labels, _)| wanted.iter().all(|wanted| labels.contains(wanted)));
        assert!(!samples.is_empty(), "there is a metric {name} of {wanted:?}");
        samples.iter().map(|(_, value)| value).sum()
    }

    /// The configuration file it was started from.
    pub fn file(&self) -> &Path {
        self.file.as_ref().expect("started from a file")
    }

    /// Rewrites the configuration file it was started from.
    pub fn rewrite(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a message of the process that contains `words`.
    #[track_caller]
    pub fn wait_for_log(&self, words: &str) -> String {
        match self.log.wait_for(|line| line.contains(words)) {
            Some(line) => line,
            None => panic!("the log says {words:?}"),
        }
    }

    /// Waits for the access log's line of the request for `path`.
    #[track_caller]
    pub fn wait_for_access(&self, path: &str) -> String {
        match self.access.wait_for(|line| line.contains(path)) {
            Some(line) => line,
            None => panic!("the access log has {path:?}: {:?}", self.access.all()),
        }
    }

    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Tinylb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
        if thread::panicking() {
            eprintln!("--- what the balancer said ---");
            for line in self.log.all() {
                eprintln!("{line}");
            }
        }
    }
}

/// Writes `text` to a file of its own.
fn write(text: &str) -> PathBuf {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let name = format!("tinylb-{}-{number}.toml", std::process::id());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, text).unwrap();
    file
}

fn says_ready(line: &str) -> bool {
    line.split_whitespace().any(|word| word == "ready")
}

fn value_after<'a>(line: &'a str, words: &str) -> Option<&'a str> {
    line.split_once(words)?.1.split_whitespace().next()
}

/// The ports of a balancer that is told nothing, which somebody else may have taken.
const DEFAULT_PORTS: [u16; 2] = [8080, 9900];

/// A pause between two looks at something that is waited for.
pub const LOOK: Duration = Duration::from_millis(5);
