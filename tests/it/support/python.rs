//! Scripts in `tests/it/python/`, and an interpreter that has what they import.

use std::process::{Command, Stdio};

use super::program::{Ran, Serving, run, skipped};

/// The interpreter that has `module`: the one that `TINYLB_PYTHON` names, else `python3`. `None` where
/// it has not, which is counted.
fn python(module: &str) -> Option<String> {
    let python = std::env::var("TINYLB_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut import = Command::new(&python);
    import.args(["-c", &format!("import {module}")]).stderr(Stdio::null());
    if import.status().is_ok_and(|status| status.success()) {
        return Some(python);
    }
    skipped(&format!("{python} has no {module}"));
    None
}

/// The arguments that run `script`, unbuffered and without leaving compiled files behind.
fn arguments<'a>(script: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&["-uB", script], rest].concat()
}

fn path(script: &str) -> String {
    format!("{}/tests/it/python/{script}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs `script`, which needs `module`, to its end.
#[track_caller]
pub fn run_script(module: &str, script: &str, rest: &[&str]) -> Option<Ran> {
    run(&python(module)?, &arguments(&path(script), rest), b"")
}

/// Starts `script`, which needs `module`.
#[track_caller]
pub fn start_script(module: &str, script: &str, rest: &[&str]) -> Option<Serving> {
    Serving::start(&python(module)?, &arguments(&path(script), rest))
}

/// Starts `script`, which needs `module` and says on which port it listens; and that port.
#[track_caller]
pub fn serve_script(module: &str, script: &str, rest: &[&str]) -> Option<(Serving, u16)> {
    let serving = start_script(module, script, rest)?;
    let port = serving.wait_for("port ").parse().expect("a port");
    Some((serving, port))
}
