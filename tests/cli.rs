//! The binary's command line from outside: what it answers, what it says about mistakes, and the
//! exit codes. Nothing here serves requests.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A directory of its own for one test; gone when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("cli-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn with(file: &str, text: &str) -> Self {
        let directory = Self::new();
        std::fs::write(directory.0.join(file), text).unwrap();
        directory
    }

    /// Runs `tinylb` with `args` here, to its end.
    fn tinylb(&self, args: &[&str]) -> Ended {
        self.tinylb_with(args, &[])
    }

    /// The same with `variables` set.
    fn tinylb_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_tinylb"))
            .args(args)
            .current_dir(&self.0)
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How a process ended, and what it wrote.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    #[track_caller]
    fn fails(&self, code: i32, part: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(part), "{part}\n{}", self.err);
        assert_eq!(self.out, "");
    }
}

const RIGHT: &str = "\
[[listeners]]
address = \":8080\"

[[routes]]
host = \"example.com\"
upstream = \"app\"

[upstreams.app]
endpoints = [\"http://a:1\", { url = \"http://b:1\", weight = 2 }]
";

#[test]
fn help_and_version_are_answers() {
    let directory = Directory::new();
    for args in [&["--help"][..], &["-h"], &["help"], &["run", "--help"], &["demo", "--help"]] {
        let ended = directory.tinylb(args);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(ended.out.contains("Usage: tinylb"), "{args:?}");
    }
    let help = directory.tinylb(&["--help"]).out;
    for part in ["Examples:", "tinylb demo", "--policy", "Exit codes: 0 ok"] {
        assert!(help.contains(part), "{part}");
    }
    let ended = directory.tinylb(&["--version"]);
    assert_eq!(ended.out, format!("tinylb {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn without_arguments_and_without_a_file_it_shows_help() {
    Directory::new().tinylb(&[]).fails(2, "Usage: tinylb");
}

#[test]
fn without_arguments_it_runs_the_file_that_is_there() {
    let directory = Directory::with("tinylb.toml", "listen = 1\n");
    directory.tinylb(&[]).fails(1, " --> tinylb.toml:1:1");
    directory.tinylb(&["--workers", "2"]).fails(1, " --> tinylb.toml:1:1");
    directory.tinylb(&["run"]).fails(1, " --> tinylb.toml:1:1");
}

#[test]
fn check_says_what_a_right_file_means() {
    let ended = Directory::with("tinylb.toml", RIGHT).tinylb(&["check"]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert_eq!(
        ended.out,
        "\
tinylb.toml: ok
listener :8080
route example.com/ to app
upstream app: p2c over http://a:1, http://b:1 (weight 2)
admin 127.0.0.1:9900
"
    );
}

#[test]
fn check_says_who_is_asked_first_and_how_health_is_found_out() {
    let all = "{ url = \"http://b:1\", weight = 3, priority = 2, drain = true }, \
        { url = \"http://c:1\", backup = true }";
    let text = RIGHT.replace("{ url = \"http://b:1\", weight = 2 }", all);
    assert_ne!(text, RIGHT);
    for (health, words) in [
        ("", ""),
        ("health.path = \"/healthz\"", "; GET /healthz every 5s"),
        (
            "health = { type = \"tcp\", port = 81, interval = \"1m 30s\" }",
            "; a connection on port 81 every 1m 30s",
        ),
    ] {
        let ended = Directory::with("tinylb.toml", &format!("{text}{health}\n")).tinylb(&["check"]);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
        let upstream = format!(
            "upstream app: p2c over http://a:1, http://b:1 (weight 3, priority 2, drain), \
             http://c:1 (backup){words}\n"
        );
        assert!(ended.out.contains(&upstream), "{}", ended.out);
    }
}

#[test]
fn check_shows_every_fault_of_a_wrong_file() {
    let text = RIGHT.replace("upstream = \"app\"", "upstream = \"ap\"\nhots = 1");
    let directory = Directory::with("other.toml", &text);
    let ended = directory.tinylb(&["check", "other.toml"]);
    ended.fails(1, "error: unknown upstream `ap`\n --> other.toml:6:12\n");
    ended.fails(1, "6 | upstream = \"ap\"\n  |            ^^^^\n");
    ended.fails(1, "= help: did you mean `app`?");
    ended.fails(1, "error: unknown key `hots` in [[routes]]");
    ended.fails(1, "= help: did you mean `host`?");
    ended.fails(1, "other.toml: 2 errors");
    assert!(!ended.err.contains('\u{1b}'), "no colours where nobody sees them");
}

#[test]
fn check_shows_doubts_and_passes() {
    let text = format!("{RIGHT}\n[upstreams.old]\nendpoints = [\"http://c:1\"]\n");
    let ended = Directory::with("tinylb.toml", &text).tinylb(&["check"]);
    assert_eq!(ended.code, Some(0));
    assert!(ended.err.contains("warning: no route leads to the upstream `old`"), "{}", ended.err);
    assert!(ended.out.starts_with("tinylb.toml: ok\n"));
}

/// A listener with two certificates, the second of which has a key that is not there.
const TLS: &str = "\
[[listeners]]
address = \"127.0.0.1:0\"
[listeners.tls]
certificates = [
    { cert = \"a.pem\", key = \"a.key\" },
    { cert = \"a.pem\", key = \"b.key\" },
]

[upstreams.app]
endpoints = [\"https://a:1\"]
tls = { ca = \"a.key\" }
";

/// Writes a certificate that ends in `year` as `a.pem` and `a.key`.
fn write_certificate(directory: &Directory, year: i32) {
    let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(directory.0.join("a.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(directory.0.join("a.key"), key.serialize_pem()).unwrap();
}

#[test]
fn files_that_cannot_be_used_are_shown_where_they_are_named() {
    let directory = Directory::with("tinylb.toml", TLS);
    write_certificate(&directory, 2050);
    for args in [&["check"][..], &["run"], &[]] {
        let ended = directory.tinylb(args);
        ended.fails(1, "error: key \"b.key\": the file cannot be read: No such file or directory");
        ended.fails(1, " --> tinylb.toml:6:29\n");
        ended.fails(1, "6 |     { cert = \"a.pem\", key = \"b.key\" },\n  |                             ^^^^^^^\n");
        ended.fails(1, "= help: write the path of a file that this process may read");
        ended.fails(1, "error: ca \"a.key\": there is no certificate in it; it holds PRIVATE KEY");
        ended.fails(1, " --> tinylb.toml:11:14\n");
        ended.fails(1, "tinylb.toml: 2 errors");
    }
}

#[test]
fn paths_are_relative_to_the_file_and_what_is_spoken_is_told() {
    let text = TLS.replace("b.key", "../a.key").replace("ca = \"a.key\"", "ca = \"../a.pem\"");
    let directory = Directory::new();
    write_certificate(&directory, 2050);
    std::fs::create_dir(directory.0.join("etc")).unwrap();
    std::fs::write(directory.0.join("etc/lb.toml"), text.replace("\"a.", "\"../a.")).unwrap();
    let ended = directory.tinylb(&["check", "etc/lb.toml"]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    let listener = "listener 127.0.0.1:0 (https, HTTP/2, certificate etc/../a.pem, ";
    assert!(ended.out.contains(listener), "{}", ended.out);
    let upstream = "upstream app: p2c over https://a:1; authorities etc/../a.pem\n";
    assert!(ended.out.contains(upstream), "{}", ended.out);
}

#[test]
fn a_certificate_that_has_ended_is_a_doubt() {
    let text = TLS.replace("b.key", "a.key").replace("ca = \"a.key\"", "ca = \"a.pem\"");
    let directory = Directory::with("tinylb.toml", &text);
    write_certificate(&directory, 2020);
    let ended = directory.tinylb(&["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in [
        "warning: cert \"a.pem\": the certificate ended at 2020-01-01T00:00:00Z\n --> tinylb.toml:5:14",
        "warning: cert \"a.pem\": the certificate ended at 2020-01-01T00:00:00Z\n --> tinylb.toml:6:14",
        "= help: put a new one in its place; it is read without a restart",
    ] {
        assert!(ended.err.contains(part), "{part}\n{}", ended.err);
    }
}

#[test]
fn a_system_without_authorities_is_said_to_have_none() {
    let text = "[[listeners]]\naddress = \":0\"\n[upstreams.app]\nendpoints = [\"https://a\"]\n";
    let directory = Directory::with("tinylb.toml", text);
    write_certificate(&directory, 2050);
    let check = |file: &str| {
        directory.tinylb_with(&["check"], &[("SSL_CERT_FILE", file), ("SSL_CERT_DIR", "")])
    };
    let ended = check("nothing.pem");
    ended.fails(1, "error: ca: the system has no certificate authorities (failed to read");
    ended.fails(1, " --> tinylb.toml:3:12\n");
    ended.fails(
        1,
        "= help: install them (`ca-certificates`), or write `ca = \"FILE\"` in the upstream",
    );
    assert_eq!(check("a.pem").code, Some(0));
}

#[test]
fn certificates_of_the_command_line_are_named() {
    let directory = Directory::new();
    let ended = directory.tinylb(&["http://a:1", "--tls-cert", "a.pem", "--tls-key", "a.key"]);
    ended.fails(1, "error: listener :8080: cert \"a.pem\": the file cannot be read");
    ended.fails(1, "listener :8080: key \"a.key\": the file cannot be read");
}

#[test]
fn options_stand_above_the_file_in_check_too() {
    let directory = Directory::with("tinylb.toml", RIGHT);
    let ended = directory.tinylb(&["check", "--admin", "off"]);
    assert!(ended.out.ends_with("admin off\n"), "{ended:?}");
    let ended = directory.tinylb(&["check", "--admin", "127.0.0.1:8080"]);
    ended.fails(2, "the admin address 127.0.0.1:8080 and the listener :8080 collide");
}

#[test]
fn a_file_that_is_missing_is_named() {
    let directory = Directory::new();
    for args in [&["run", "-c", "no.toml"][..], &["check", "no.toml"]] {
        let ended = directory.tinylb(args);
        ended.fails(1, "the file cannot be read: No such file or directory");
        ended.fails(1, "--> no.toml");
    }
}

#[test]
fn variables_come_from_the_environment() {
    let text = RIGHT.replace("http://a:1", "http://${TINYLB_TEST_NOT_SET}:1");
    let ended = Directory::with("tinylb.toml", &text).tinylb(&["check"]);
    ended.fails(1, "the environment has no variable `TINYLB_TEST_NOT_SET`");
    let text = RIGHT.replace("http://a:1", "http://localhost:1${PATH:+}");
    let ended = Directory::with("tinylb.toml", &text).tinylb(&["check"]);
    ended.fails(1, "`${PATH:+}` is not a variable");
}

#[test]
fn a_mistyped_command_is_not_taken_for_an_endpoint() {
    let directory = Directory::new();
    directory.tinylb(&["chek"]).fails(2, "did you mean the command `check`?");
    directory.tinylb(&["chekc", "tinylb.toml"]).fails(2, "did you mean the command `check`?");
    directory.tinylb(&["dmo", "--policy", "random"]).fails(2, "did you mean the command `demo`?");
    directory.tinylb(&["tinylb.toml"]).fails(2, "write `tinylb run -c tinylb.toml`");
    directory.tinylb(&["a:1", "run"]).fails(2, "the command `run` stands first");
    directory
        .tinylb(&["localhost"])
        .fails(2, "`localhost` is not an endpoint; write `http://host:port`");
}

#[test]
fn wrong_values_name_the_option_and_what_to_write() {
    let directory = Directory::new();
    for (args, option, advice) in [
        (&["a:1", "--policy", "p3c"][..], "--policy", "did you mean `p2c`?"),
        (&["a:1", "--listen", "8080"], "--listen", "write `:8080`"),
        (&["a:1", "--health", "healthz"], "--health", "write `/healthz`"),
        (&["a:1", "--health", "/a b"], "--health", "write it percent-encoded"),
        (&["a:1", "--host", "keep"], "--host", "`pass` and `endpoint`"),
        (&["a:1", "--access-log", "jsno"], "--access-log", "did you mean `json`?"),
        (&["a:1", "--log-level", "trace"], "--log-level", "write one of `error`"),
        (&["a:1", "--workers", "0"], "--workers", "write a number from 1 to 1024"),
        (&["a:1", "--admin", ":9900"], "--admin", "write `127.0.0.1:9900` for this machine only"),
        (&["a:1", "--drain-timeout", "30"], "--drain-timeout", "write the unit: `30s` or `30ms`"),
        (&["a:1", "--trusted-proxies", "10.1.0.0/8"], "--trusted-proxies", "`10.0.0.0/8`"),
        (&["a:1", "--polcy", "p2c"], "--polcy", "'--policy'"),
        (&["a:1", "--tls-cert", "c.pem"], "--tls-key <FILE>", "required"),
        (&["a:1", "--tls-key", "k.pem"], "--tls-cert <FILE>", "required"),
        (
            &["a:1", "--tls-self-signed", "--tls-cert", "c", "--tls-key", "k"],
            "--tls-cert",
            "cannot be",
        ),
        (&["a:1", "--tls-cert", "", "--tls-key", "k"], "--tls-cert", "the path of a file"),
        (&["--tls-self-signed"], "--tls-self-signed", "needs endpoints"),
        (&["a:1", "--listen", "unix:lb.sock"], "--listen", "such as `unix:/run/app.sock`"),
        (&["ftp://a:1"], "URL", "write `http://a:1`, or `https://…` or `h2c://…`"),
        (&["demo", "--work", "50ms..5ms"], "--work", "write `5ms..50ms`"),
        (&["demo", "--work", "fast"], "--work", "such as `5s`"),
        (&["demo", "--backends", "8001,x"], "--backends", "write ports"),
        (&["demo", "--backends", "8001,8001"], "--backends", "port 8001 twice"),
    ] {
        let ended = directory.tinylb(args);
        ended.fails(2, option);
        ended.fails(2, advice);
    }
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let directory = Directory::new();
    for (args, message) in [
        (&["a:1", "a:1"][..], "the endpoint http://a:1 is listed twice"),
        (&["localhost:8080"], "the endpoint http://localhost:8080 is this balancer itself"),
        (&["a:1", "--listen", ":1", "--listen", "127.0.0.1:1"], "--listen collide"),
        (&["a:1", "--listen", ":9900"], "write --admin with another port"),
        (&["--policy", "random"], "--policy needs endpoints"),
        (&["--health", "/"], "--health needs endpoints"),
        (&["--policy", "random", "demo"], "--policy before a command says nothing"),
    ] {
        directory.tinylb(args).fails(2, message);
    }
}

#[test]
fn a_backend_port_that_is_taken_is_named_with_its_option() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ports = format!("0,{port}");
    let args = ["demo", "--backends", &ports, "--listen", "127.0.0.1:0", "--admin", "off"];
    let message =
        format!("error: port {port} for backend-2 is in use; choose other ports with --backends");
    Directory::new().tinylb(&args).fails(1, &message);
}
