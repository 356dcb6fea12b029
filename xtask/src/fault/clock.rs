//! Changes the clock of single processes: containers share the node's clock, which must stay correct for all others.
//!
//! Programs read the time through the kernel's vDSO, code mapped into each process. In the given process only, its
//! `clock_gettime` is replaced by one that adds an offset to the real time; the monotonic clock is unchanged. Chaos Mesh's
//! TimeChaos uses the same method.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use object::{Architecture, Object as _, ObjectSymbol as _};

use crate::cluster::signal;
use crate::sh::wait_for;

/// The function that programs call (vdso(7), x86-64).
const FUNCTION: &str = "__vdso_clock_gettime";

/// Timeout for a moment in which no thread reads the time.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A process whose clock is changed.
#[derive(Debug)]
pub(super) struct Clock {
    process: u32,
    function: u64,
    original: Vec<u8>,
}

impl Clock {
    /// Sets the clock of a process ahead by this many seconds, or back if negative.
    pub(super) fn set(process: u32, ahead: i64) -> Result<Self> {
        let (start, end) = vdso(process)?;
        let memory = memory(process)?;
        let mut image = vec![0; usize::try_from(end - start)?];
        memory.read_exact_at(&mut image, start).with_context(|| format!("reading the vDSO of process {process}"))?;
        let (offset, size) = find(&image)?;
        let ours = code(ahead);
        if size < ours.len() {
            bail!("{FUNCTION} has {size} bytes; there is no room for {} others", ours.len());
        }
        let original = image.get(offset..offset + ours.len()).context("the vDSO ends within its function")?.to_vec();
        let clock = Self { process, function: start + u64::try_from(offset)?, original };
        clock.write(&ours)?;
        Ok(clock)
    }

    /// Restores the real time.
    pub(super) fn restore(&self) -> Result<()> {
        if fs::exists(format!("/proc/{}", self.process))? {
            self.write(&self.original)?;
        }
        Ok(())
    }

    /// Writes while all threads are stopped and none of them executes the function.
    fn write(&self, code: &[u8]) -> Result<()> {
        wait_for(&format!("setting the clock of process {}", self.process), TIMEOUT, || {
            signal(&[self.process], Signal::SIGSTOP)?;
            let written = self.write_if_nobody_is_in_it(code);
            signal(&[self.process], Signal::SIGCONT)?;
            written
        })
    }

    fn write_if_nobody_is_in_it(&self, code: &[u8]) -> Result<Option<()>> {
        let (start, end) = vdso(self.process)?;
        for thread in fs::read_dir(format!("/proc/{}/task", self.process)).context("listing threads")? {
            let path = thread?.path();
            let stat = fs::read_to_string(path.join("stat")).context("reading a thread's state")?;
            let (_, state) = stat.rsplit_once(") ").context("a thread without state")?;
            if !state.starts_with('T') {
                return Ok(None);
            }
            // The last field is the instruction pointer (proc_pid_syscall(5)).
            let place = fs::read_to_string(path.join("syscall")).context("reading where a thread stands")?;
            let place = place.trim_end().rsplit_once(" 0x").context("a thread stands nowhere")?.1;
            if (start..end).contains(&u64::from_str_radix(place, 16).context("reading where a thread stands")?) {
                return Ok(None);
            }
        }
        memory(self.process)?.write_all_at(code, self.function).context("writing to the vDSO")?;
        Ok(Some(()))
    }
}

fn memory(process: u32) -> Result<File> {
    let path = format!("/proc/{process}/mem");
    File::options().read(true).write(true).open(&path).with_context(|| format!("opening {path}"))
}

/// The address range of the vDSO of a process.
fn vdso(process: u32) -> Result<(u64, u64)> {
    let path = format!("/proc/{process}/maps");
    let maps = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).with_context(|| format!("{path} names no vDSO"))?;
    let range = line.split_ascii_whitespace().next().unwrap_or_default();
    let (start, end) = range.split_once('-').with_context(|| format!("{path}: `{range}` is no range"))?;
    Ok((u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?))
}

/// The offset and length of the function in the vDSO's image.
fn find(image: &[u8]) -> Result<(usize, usize)> {
    let vdso = object::File::parse(image).context("reading the vDSO")?;
    if vdso.architecture() != Architecture::X86_64 {
        bail!("clocks can be set on x86-64 only");
    }
    let function = vdso.dynamic_symbols().find(|symbol| symbol.name() == Ok(FUNCTION));
    let function = function.with_context(|| format!("the vDSO has no {FUNCTION}"))?;
    Ok((usize::try_from(function.address())?, usize::try_from(function.size())?))
}

/// `clock_gettime(edi, rsi)` as a system call (number 228); `ahead` is added to the real time (clock 0, and 5, the coarse
/// one).
fn code(ahead: i64) -> Vec<u8> {
    let mut code = vec![
        0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, 228
        0x0f, 0x05, // syscall
        0x85, 0xc0, // test eax, eax
        0x75, 0x16, // jnz end
        0x85, 0xff, // test edi, edi
        0x74, 0x05, // jz add
        0x83, 0xff, 0x05, // cmp edi, 5
        0x75, 0x0d, // jne end
        0x48, 0xb9, // add: mov rcx, ahead
    ];
    code.extend(ahead.to_le_bytes());
    code.extend([
        0x48, 0x01, 0x0e, // add [rsi], rcx
        0xc3, // end: ret
    ]);
    code
}

#[cfg(test)]
mod tests {
    use super::Clock;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Command, Stdio};

    use jiff::Timestamp;

    /// The time as seen by another program, which prints it for each line that it receives.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_process_is_given_another_time_and_gets_its_own_back() {
        let script = "import sys, time\nfor _ in sys.stdin: print(int(time.time()), time.monotonic() > 0, flush=True)";
        let mut python = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python runs");
        let mut input = python.stdin.take().expect("its input");
        let mut output = BufReader::new(python.stdout.take().expect("its output")).lines();
        let mut ahead = || {
            writeln!(input).expect("it reads");
            let line = output.next().expect("it writes").expect("text");
            let time = line.strip_suffix(" True").expect("its monotonic clock goes on").parse::<i64>().expect("a time");
            time - Timestamp::now().as_second()
        };
        assert!(ahead().abs() <= 1);
        for set in [3_600, -3_600] {
            let clock = Clock::set(python.id(), set).expect("its clock is set");
            assert!((ahead() - set).abs() <= 1);
            clock.restore().expect("its clock is set back");
            assert!(ahead().abs() <= 1);
        }
        python.kill().expect("it ends");
        python.wait().expect("it ended");
    }
}
