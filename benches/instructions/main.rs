//! Instructions per call of the hot functions, compared with the baseline in `../instructions.txt`.
//!
//! `cargo bench --bench instructions` fails where one is more than a tenth above the baseline;
//! with `-- --bless` it writes the baseline anew. Instructions don't depend on what else the
//! machine does, but they do on the compiler: with another one than the baseline's they are shown
//! and not judged.
//!
//! This program runs itself under callgrind twice for each case, with N calls and with 2 N, and
//! the difference is N calls: start and set-up fall out, and what is counted is the release build
//! as it is, without symbols. A framework would need a runner of its own to be installed, in just
//! the right version; this needs valgrind alone, and without it says so and is content.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the measurement")]

mod cases;

use std::collections::HashMap;
use std::fmt::Write;
use std::process::{Command, ExitCode};
use std::{env, fs};

use cases::CASES;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

/// Calls in the shorter of the two runs.
const CALLS: u32 = 1000;

/// How far above the baseline a case may be.
const TOLERANCE: f64 = 0.10;

/// Instructions of this program making `calls` calls of a case.
fn count(case: &str, calls: u32) -> u64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    let output = valgrind
        .arg(env::current_exe().unwrap())
        .args(["--case", case, &calls.to_string()])
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    let line = report.lines().find(|line| line.contains("Collected")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Compiler and target, which the counts depend on.
fn compiler() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    format!("{} {host}", text.lines().next().unwrap())
}

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    if let [flag, case, calls] = args.as_slice()
        && flag == "--case"
    {
        let (_, run) = CASES.iter().find(|(name, _)| name == case).unwrap();
        run(calls.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    if !args.iter().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS; // `cargo test --all-targets`
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: instructions are counted by valgrind, which is not installed");
        return ExitCode::SUCCESS;
    }
    let compiler = compiler();
    let baseline = fs::read_to_string(BASELINE).unwrap_or_default();
    let known: HashMap<_, f64> = baseline
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(case, count)| Some((case, count.trim().parse().ok()?)))
        .collect();
    let mut counted = format!("{compiler}\n");
    let mut worse = Vec::new();
    println!("{:<26}{:>8}{:>10}", "instructions per call", "now", "baseline");
    for (case, _) in CASES {
        let now = (count(case, 2 * CALLS) - count(case, CALLS)) as f64 / f64::from(CALLS);
        writeln!(counted, "{case:<26}{now:>8.0}").unwrap();
        print!("{case:<26}{now:>8.0}");
        match known.get(case) {
            Some(before) => println!("{before:>10.0}{:>+8.1} %", 100.0 * (now / before - 1.0)),
            None => println!("{:>10}", "none"),
        }
        if known.get(case).is_none_or(|before| now > before * (1.0 + TOLERANCE)) {
            worse.push(case);
        }
    }
    if args.iter().any(|arg| arg == "--bless") {
        fs::write(BASELINE, counted).unwrap();
        println!("written to benches/instructions.txt");
    } else if baseline.lines().next() != Some(&compiler) {
        println!("not judged: the baseline is not of {compiler}");
    } else if !worse.is_empty() {
        println!("more than {:.0}% above the baseline, or not in it: {worse:?}", 100.0 * TOLERANCE);
        println!("if that is what it costs: cargo bench --bench instructions -- --bless");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
