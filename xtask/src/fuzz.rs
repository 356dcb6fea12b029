//! `cargo xtask fuzz`: runs every parser of untrusted bytes under libFuzzer. New findings stay in `target/fuzz`; the shared
//! inputs in `fuzz/corpus` are replayed first.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::deps;
use crate::progress::Progress;
use crate::sh::{Run as _, cmd};

/// Selects the target that the program runs.
const VARIABLE: &str = "COUNTERSIGN_FUZZ_TARGET";
/// An input that takes longer is a finding, in seconds. The limit is far above the usual time, also on a busy machine.
const SLOWEST: &str = "-timeout=25";
/// A target that takes more memory is a finding.
const LARGEST: &str = "-rss_limit_mb=2048";
/// The most bytes of one target's shared inputs.
const MOST_KEPT: u64 = 30 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Targets such as `ids`; all if none is named.
    targets: Vec<String>,
    /// Fuzzing time of each target, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Replace the inputs in fuzz/corpus by the fewest that reach the same coverage (inputs with descriptive names stay).
    #[arg(long)]
    keep: bool,
    /// Start from the shared corpus alone, without findings of earlier runs.
    #[arg(skip)]
    afresh: bool,
}

/// The folders of a run.
struct Places {
    program: PathBuf,
    /// The shared corpus.
    corpus: PathBuf,
    /// The repository's `target/fuzz`.
    work: PathBuf,
    words: PathBuf,
}

/// The step of `cargo xtask test`: the whole corpus, then five seconds of fuzzing for each target.
pub(crate) fn briefly(root: &Path) -> Result<()> {
    run(root, &Options { targets: Vec::new(), seconds: 5, keep: false, afresh: true })
}

/// Fuzzes as many targets in parallel as there are cores; the first finding is the error.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    deps::for_fuzzing()?;
    let targets = targets(root, &options.targets)?;
    let places = build(root)?;
    let progress = Progress::start(format!("fuzz {} targets, {} s each", targets.len(), options.seconds));
    let waiting = Mutex::new(targets.iter());
    let next = || waiting.lock().ok().and_then(|mut targets| targets.next());
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some(target) = next() {
            match fuzz(&places, target, options) {
                Ok(summary) => progress.note(format!("{target}: {summary}")),
                Err(error) => {
                    progress.note(format!("{target}: FAILED"));
                    failures.lock().into_iter().for_each(|mut failures| failures.push(error.to_string()));
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |cores| cores.get().min(targets.len())) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    progress.done("nothing found");
    Ok(())
}

/// The targets are the folders of the corpus; a test of the fuzz crate checks that.
fn targets(root: &Path, named: &[String]) -> Result<Vec<String>> {
    let folder = root.join("fuzz/corpus");
    let mut all = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        all.push(entry?.file_name().to_string_lossy().into_owned());
    }
    all.sort();
    if let Some(unknown) = named.iter().find(|name| !all.contains(name)) {
        bail!("there is no fuzz target `{unknown}`; there are {}", all.join(", "));
    }
    Ok(if named.is_empty() { all } else { named.to_vec() })
}

/// Builds the program in its own target directory: its flags differ from those of other builds.
fn build(root: &Path) -> Result<Places> {
    let work = root.join("target/fuzz");
    let progress = Progress::start("build the fuzzer (the first time takes minutes)");
    cmd("cargo", ["build", "--quiet", "--package", "countersign-fuzz", "--features", "libfuzzer"])
        .env("CARGO_TARGET_DIR", &work)
        .env("RUSTC_WRAPPER", root.join("fuzz/rustc.sh"))
        .current_dir(root)
        .run()
        .context("building the fuzzer")?;
    progress.done("built");
    Ok(Places {
        program: work.join("debug/countersign-fuzz"),
        corpus: root.join("fuzz/corpus"),
        words: root.join("fuzz/words.dict"),
        work,
    })
}

/// Fuzzes one target: the corpus first, then new inputs until the time is over. Returns a summary.
fn fuzz(places: &Places, target: &str, options: &Options) -> Result<String> {
    let corpus = places.corpus.join(target);
    let found = if options.afresh { places.empty_folder("brief", target)? } else { places.folder("found", target)? };
    let (artifacts, log) = (places.folder("artifacts", target)?, places.log(target)?);
    let dictionary = format!("-dict={}", places.words.display());
    let artifacts = format!("-artifact_prefix={}/", artifacts.display());
    let outcome = places
        .command(target, &log)?
        .args([SLOWEST, LARGEST, "-print_final_stats=1", &dictionary, &artifacts])
        .arg(format!("-max_total_time={}", options.seconds))
        .args([&found, &corpus])
        .run();
    let said = fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))?;
    if outcome.is_err() {
        bail!("{}", finding(target, &said, &log));
    }
    if options.keep {
        keep(places, target, &corpus, &found)?;
    }
    Ok(summary(&said))
}

/// Merges findings into the shared corpus: the fewest inputs that cover everything, preferably short ones, up to a limit.
/// libFuzzer names inputs by their hash; inputs with other names were added by people and stay.
fn keep(places: &Places, target: &str, corpus: &Path, found: &Path) -> Result<()> {
    let (merged, log) = (places.empty_folder("merged", target)?, places.log(target)?);
    places
        .command(target, &log)?
        .args(["-set_cover_merge=1", SLOWEST, LARGEST])
        .args([&merged, found, corpus])
        .run()
        .with_context(|| format!("merging; see {}", log.display()))?;
    for old in files(corpus)?.into_iter().filter(|(_, path)| is_hash(path)) {
        fs::remove_file(old.1)?;
    }
    let mut kept = files(&merged)?;
    kept.sort();
    let mut left = MOST_KEPT;
    for (length, path) in kept.into_iter().filter(|(_, path)| is_hash(path)) {
        let Some(rest) = left.checked_sub(length) else { break };
        left = rest;
        fs::copy(&path, corpus.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Each file's length in bytes and path.
fn files(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path()));
    }
    Ok(files)
}

fn is_hash(input: &Path) -> bool {
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A report of a finding: the reason and the input.
fn finding(target: &str, said: &str, log: &Path) -> String {
    let why: Vec<&str> = said.lines().skip_while(|line| !is_why(line)).take(4).collect();
    let input =
        said.lines().find_map(|line| line.split_once("Test unit written to ")).map_or("(none)", |(_, path)| path);
    format!(
        "the fuzz target {target} failed: {}\n    its input: {input}\n    all that was said: {}\n    mend it, and keep the input as \
         fuzz/corpus/{target}/<what was wrong>",
        why.join("\n    "),
        log.display()
    )
}

fn is_why(line: &str) -> bool {
    line.contains("panicked at") || line.contains("ERROR: libFuzzer")
}

/// From libFuzzer's last lines: the number of inputs run and of branches reached.
fn summary(said: &str) -> String {
    let number = |line: &str| line.split_whitespace().last().map(ToOwned::to_owned);
    let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")).and_then(number);
    let reached = said.lines().rev().find_map(|line| line.split_once("cov: ")).map(|(_, rest)| rest);
    let reached = reached.and_then(|rest| rest.split_whitespace().next());
    format!("{} inputs, {} branches reached", runs.as_deref().unwrap_or("?"), reached.unwrap_or("?"))
}

impl Places {
    fn folder(&self, kind: &str, target: &str) -> Result<PathBuf> {
        let folder = self.work.join(kind).join(target);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder)
    }

    fn empty_folder(&self, kind: &str, target: &str) -> Result<PathBuf> {
        let folder = self.folder(kind, target)?;
        for (_, file) in files(&folder)? {
            fs::remove_file(file)?;
        }
        Ok(folder)
    }

    fn log(&self, target: &str) -> Result<PathBuf> {
        Ok(self.folder("logs", target)?.join("log"))
    }

    /// The command that runs a target and writes its output to `log`.
    fn command(&self, target: &str, log: &Path) -> Result<Command> {
        let file = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let mut command = Command::new(&self.program);
        command.env(VARIABLE, target).stdout(file.try_clone()?).stderr(file);
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::{finding, is_hash, summary};
    use std::path::Path;

    #[test]
    fn the_last_words_become_a_line() {
        let said =
            "#2\tINITED cov: 12 ft: 13\n#99\tDONE   cov: 345 ft: 678 corp: 9/10b\nstat::number_of_executed_units: 99\n";
        assert_eq!(summary(said), "99 inputs, 345 branches reached");
        assert_eq!(summary(""), "? inputs, ? branches reached");
    }

    #[test]
    fn a_finding_names_why_and_the_input() {
        let said =
            "#2 NEW\nthread 'x' panicked at a.rs:1:\nleft is not right\nTest unit written to artifacts/crash-1\n";
        let told = finding("ids", said, Path::new("log"));
        assert!(told.contains("left is not right") && told.contains("artifacts/crash-1"), "{told}");
        assert!(!told.contains("#2 NEW"));
    }

    #[test]
    fn inputs_put_there_by_people_stay() {
        assert!(is_hash(Path::new("corpus/ids/0123456789abcdef0123456789abcdef01234567")));
        assert!(!is_hash(Path::new("corpus/ids/seed-1")));
    }
}
