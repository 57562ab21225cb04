//! What the balancer costs, as the kernel accounts for it.

use std::time::Duration;

use super::process::Tinylb;

impl Tinylb {
    /// The memory that is resident, in MiB.
    pub fn memory(&self) -> u64 {
        let text = self.proc("status");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib / 1024
    }

    /// The time on processors so far.
    pub fn cpu(&self) -> Duration {
        let text = self.proc("stat");
        // The name before it may hold anything.
        let fields: Vec<_> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("it is running")
    }
}
