//! The CPU time of every program on this machine. All of them share the processors with the measured program, so a rate
//! alone means little.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::figures::say;

/// Timeout for other programs to become idle before a measurement.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The machine counts as idle below this total use, in processors.
const REST: f64 = 0.1;

/// The CPU time of every process since its start, and the time of reading.
#[derive(Debug)]
pub(crate) struct CpuSnapshot {
    at: Instant,
    processes: BTreeMap<u32, Process>,
    /// CPU time that the host gave to other machines.
    stolen: Duration,
}

#[derive(Debug, PartialEq)]
struct Process {
    /// May change: the kernel renames its workers.
    program: String,
    /// Its start time in ticks since boot, which distinguishes it from a later process with the same id.
    began: u64,
    cpu: Duration,
}

/// The processors used by each program over a period; a program is the sum of its processes.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Shares {
    took: Duration,
    programs: BTreeMap<String, Duration>,
    stolen: Duration,
}

impl CpuSnapshot {
    pub(crate) fn now() -> Result<Self> {
        let mut processes = BTreeMap::new();
        for entry in fs::read_dir("/proc").context("listing processes")?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may end between the two reads.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            processes.insert(id, process(&stat).with_context(|| format!("unreadable: {stat}"))?);
        }
        let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let stolen = stolen(&stat).context("no stolen time in /proc/stat")?;
        Ok(Self { at: Instant::now(), processes, stolen })
    }

    /// The use by all processes except `besides` between the two readings.
    pub(crate) fn since(&self, earlier: &Self, besides: &BTreeSet<u32>) -> Shares {
        let mut shares = Shares {
            took: self.at.duration_since(earlier.at),
            stolen: self.stolen.saturating_sub(earlier.stolen),
            ..Shares::default()
        };
        for (id, process) in self.processes.iter().filter(|(id, _)| !besides.contains(id)) {
            let before = earlier.processes.get(id).filter(|before| before.began == process.began);
            let cpu = process.cpu.saturating_sub(before.map_or(Duration::ZERO, |before| before.cpu));
            *shares.programs.entry(process.program.clone()).or_default() += cpu;
        }
        shares
    }
}

impl Shares {
    /// The processors used by the program of this name.
    pub(crate) fn of(&self, program: &str) -> f64 {
        self.processors(self.programs.get(program).copied().unwrap_or_default())
    }

    /// The processors used by all programs.
    pub(crate) fn all(&self) -> f64 {
        self.processors(self.programs.values().sum())
    }

    /// The processors that the host gave to other machines.
    pub(crate) fn stolen(&self) -> f64 {
        self.processors(self.stolen)
    }

    /// The sum over both periods.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.took += other.took;
        self.stolen += other.stolen;
        for (program, cpu) in other.programs {
            *self.programs.entry(program).or_default() += cpu;
        }
        self
    }

    fn processors(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() / self.took.as_secs_f64().max(0.001)
    }

    /// The program that used most.
    fn first(&self) -> (&str, f64) {
        let first = self.programs.iter().max_by_key(|(_, cpu)| **cpu);
        first.map_or(("nothing", 0.0), |(program, cpu)| (program, self.processors(*cpu)))
    }
}

/// Waits until all programs have been idle for three seconds; the error names the busiest.
pub(crate) async fn rest() -> Result<()> {
    const LOOK: Duration = Duration::from_secs(1);
    let (begun, nobody) = (Instant::now(), BTreeSet::new());
    let (mut before, mut quiet) = (CpuSnapshot::now()?, 0);
    while quiet < 3 {
        tokio::time::sleep(LOOK).await;
        let now = CpuSnapshot::now()?;
        let shares = now.since(&before, &nobody);
        quiet = if shares.all() < REST { quiet + 1 } else { 0 };
        before = now;
        if begun.elapsed() > TIMEOUT {
            let (program, share) = shares.first();
            say(format_args!("the machine does not come to rest: {program} has {share:.2} processors"));
            return Ok(());
        }
    }
    say(format_args!("the machine is at rest after {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// The run time of a process's threads, from the scheduler (nanoseconds; field 1 of `schedstat`): a thousand times more
/// precise than the total reading, but it needs one file read per thread.
pub(crate) fn cpu_of(id: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{id}/task"))?.flatten() {
        // A thread may end between the two reads.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        nanoseconds += text.split_ascii_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Parses `/proc/ID/stat` (proc_pid_stat(5)): the program's name is in parentheses and may contain any character. Counted
/// from the state as 0, fields 11 and 12 are the user and system time, and field 19 is the start time.
fn process(stat: &str) -> Option<Process> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, program) = before.split_once('(')?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let (user, system, began) = (ticks(fields.get(11)?)?, ticks(fields.get(12)?)?, fields.get(19)?.parse().ok()?);
    Some(Process { program: program.to_owned(), began, cpu: user + system })
}

/// Field 8 of the line of all processors (proc_stat(5)).
fn stolen(stat: &str) -> Option<Duration> {
    stat.lines().find_map(|line| ticks(line.strip_prefix("cpu ")?.split_ascii_whitespace().nth(7)?))
}

/// `USER_HZ`, in which the kernel shows times to programs, is 100 on every architecture this is built for.
fn ticks(text: &str) -> Option<Duration> {
    text.parse().ok().map(|ticks: u64| Duration::from_millis(10 * ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4711 (kube) (x) R 1 2 3 0 -1 4194304 9 0 0 0 250 50 7 7 20 0 12 0 100 1 1";

    fn of(program: &str, began: u64, cpu: u64) -> Process {
        Process { program: program.to_owned(), began, cpu: Duration::from_millis(cpu) }
    }

    fn look(after: f64, cpu: u64, stolen: u64) -> CpuSnapshot {
        let (process, own) = (of("kube-apiserver", 1, cpu), of("countersign-load", 2, 2 * cpu));
        // One origin, so that differences are exact.
        static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let at = *ORIGIN.get_or_init(Instant::now) + Duration::from_secs_f64(after);
        CpuSnapshot { at, processes: [(7, process), (8, own)].into(), stolen: Duration::from_millis(stolen) }
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        assert_eq!(process(STAT), Some(of("kube) (x", 100, 3000)));
        assert_eq!(process("4711 (short) R 1 2"), None);
    }

    #[test]
    fn stolen_time_is_that_of_all_processors() {
        assert_eq!(
            stolen("cpu  1 2 3 4 5 6 7 150 0 0\ncpu0 1 2 3 4 5 6 7 75 0 0\n"),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(stolen("cpu  1 2 3\n"), None);
    }

    #[test]
    fn shares_are_of_the_time_between_two_looks_without_those_left_out() {
        let shares = look(2.0, 1500, 600).since(&look(0.0, 500, 400), &[8].into());
        assert!((shares.of("kube-apiserver") - 0.5).abs() < 1e-9, "{shares:?}");
        assert!((shares.all() - 0.5).abs() < 1e-9, "{shares:?}");
        assert!((shares.stolen() - 0.1).abs() < 1e-9, "{shares:?}");
        assert_eq!(shares.of("countersign-load"), 0.0);
        let everything = look(2.0, 1500, 600).since(&look(0.0, 500, 400), &BTreeSet::new());
        assert_eq!(everything.first(), ("countersign-load", 1.0));
        let longer = everything.and(look(2.0, 500, 0).since(&look(0.0, 500, 0), &BTreeSet::new()));
        assert_eq!(longer.first(), ("countersign-load", 0.5));
    }

    #[test]
    fn a_worker_that_is_named_anew_is_the_same_and_one_that_began_later_is_not() {
        let (mut before, mut after) = (look(0.0, 500, 0), look(2.0, 1500, 0));
        before.processes = [(7, of("kworker/u8:1-events", 1, 60_000)), (8, of("sh", 2, 9_000))].into();
        after.processes = [(7, of("kworker/u8:1-reclaim", 1, 60_200)), (8, of("sh", 3, 400))].into();
        let shares = after.since(&before, &BTreeSet::new());
        assert!((shares.of("kworker/u8:1-reclaim") - 0.1).abs() < 1e-9, "{shares:?}");
        assert!((shares.of("sh") - 0.2).abs() < 1e-9, "{shares:?}");
    }

    #[test]
    fn this_process_is_seen() {
        let look = CpuSnapshot::now().unwrap();
        assert!(look.processes.contains_key(&std::process::id()));
    }
}
