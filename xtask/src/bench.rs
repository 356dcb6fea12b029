//! `cargo xtask bench`: runs every bench of the workspace, and collects their figures in a table and in
//! `target/bench/report.json`. With `--load`, `--crowd` or `--foreign` it also runs the load driver on its own API server; with
//! `--starts` it also measures pod starts on its own cluster.
//!
//! A bench prints each figure as one line of JSON, a [`Figure`]; its other lines are for people.

use std::fs;
use std::path::Path;

mod load;
mod starts;
mod thresholds;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::thresholds::{Aim, Part, Threshold};
use crate::progress::{Progress, say};
use crate::sh::{Run as _, cmd};

/// The parts of the bench to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Leave out the workspace's benches, which take many minutes to compile; needs another part.
    #[arg(long)]
    skip_core: bool,
    /// Also fill an API server and measure the operator under load: takes half an hour on two cores.
    #[arg(long)]
    load: bool,
    #[command(flatten)]
    size: load::Size,
    /// Measure the cost of a namespace with 20,000 overlapping WorkloadIdentities to a pod of another namespace.
    #[arg(long)]
    crowd: bool,
    /// Measure federation with 1,000 connected agents, which is the last part of `--load`: takes a quarter of an hour.
    #[arg(long)]
    foreign: bool,
    /// Start pods with and without the agent on a cluster: takes a quarter of an hour on two cores.
    #[arg(long)]
    starts: bool,
}

/// A figure as printed by a bench: one line of JSON.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Measured {
    name: String,
    value: f64,
    unit: String,
}

/// A figure with the one that it is compared with.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Figure {
    /// The name of the figure.
    name: String,
    /// `None` if a part of the bench should have measured it but did not.
    value: Option<f64>,
    unit: String,
    /// The figure that it is compared with, and its value in the same run.
    yardstick: Option<String>,
    /// `value` divided by the yardstick's value.
    ratio: Option<f64>,
    /// The aim in words.
    aim: Option<String>,
    /// Whether the aim is met; `None` without an aim.
    met: Option<bool>,
}

/// Runs the benches; a missed aim is reported but is no error.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    if options.skip_core && !(options.load || options.crowd || options.foreign || options.starts) {
        bail!("`--skip-core` leaves nothing to measure: add `--load`, `--crowd`, `--foreign` or `--starts`");
    }
    let progress = Progress::start("cargo bench");
    let (mut measured, mut parts) = (Vec::new(), Vec::new());
    let mut table = String::new();
    // Earlier figures are kept if a later part fails.
    if !options.skip_core {
        measured.extend(core(root)?);
        parts.push(Part::Core);
        table = report(root, &measured, &parts)?;
    }
    if options.load {
        measured.extend(read(&load::run(root, &options.size)?));
        parts.extend([Part::Load, Part::Foreign]);
        table = report(root, &measured, &parts)?;
    }
    if options.crowd {
        measured.extend(read(&load::crowd(root)?));
        parts.push(Part::Crowd);
        table = report(root, &measured, &parts)?;
    }
    if options.foreign && !options.load {
        measured.extend(read(&load::foreign(root)?));
        parts.push(Part::Foreign);
        table = report(root, &measured, &parts)?;
    }
    if options.starts {
        measured.extend(read(&starts::run(root)?));
        parts.push(Part::Starts);
        table = report(root, &measured, &parts)?;
    }
    progress.done(format!("{} figures in target/bench/report.json", measured.len()));
    say(table);
    Ok(())
}

/// Runs the benches of the workspace.
fn core(root: &Path) -> Result<Vec<Measured>> {
    let mut measured = Vec::new();
    for (package, bench) in BENCHES {
        let mut command = cmd("cargo", ["bench", "--quiet", "--package", package, "--bench", bench, "--", "--json"]);
        // The image's figures are measured on the image's binary, and the agents' volumes are in memory.
        let agent = root.join("target").join(crate::deps::MUSL).join("release/countersign-agent");
        if agent.is_file() {
            command.env("COUNTERSIGN_AGENT", agent);
        }
        if Path::new("/dev/shm").is_dir() {
            command.env("TMPDIR", "/dev/shm");
        }
        let output = command.current_dir(root).read()?;
        let figures = read(&output);
        if figures.is_empty() {
            bail!("the bench {bench} of {package} printed no figure");
        }
        measured.extend(figures);
    }
    measured.extend(image_size(root));
    Ok(measured)
}

/// Compares the figures of the parts that ran with their thresholds, writes the report, and returns the table.
fn report(root: &Path, measured: &[Measured], parts: &[Part]) -> Result<String> {
    let figures = judge(measured, parts);
    let dir = root.join("target/bench");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    fs::write(dir.join("report.json"), serde_json::to_string_pretty(&figures)?)?;
    let table = table(&figures);
    fs::write(dir.join("report.md"), &table)?;
    Ok(table)
}

const BENCHES: &[(&str, &str)] = &[
    ("countersign-core", "issue"),
    ("countersign-webhook", "inject"),
    ("countersign-webhook", "large_reviews"),
    ("countersign-operator", "index"),
    ("countersign-operator", "stream"),
    ("countersign-agent", "start"),
    ("countersign-agent", "footprint"),
    ("countersign-agent", "proofs"),
    ("countersign-verify", "verify"),
];

/// The size of the agent's image, if it was built.
fn image_size(root: &Path) -> Option<Measured> {
    let size = root.join("target/images/agent.tar").metadata().ok()?.len();
    Some(Measured { name: "agent image".to_owned(), value: size as f64 / 1_048_576.0, unit: "MiB".to_owned() })
}

fn read(output: &str) -> Vec<Measured> {
    output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Every measured figure, compared with its threshold if it has one; then every aim of these parts without a figure.
fn judge(measured: &[Measured], parts: &[Part]) -> Vec<Figure> {
    let by_name = |name: &str| measured.iter().find(|other| other.name == name);
    let thresholds = || parts.iter().flat_map(|part| part.thresholds());
    let judged = |figure: &Measured| {
        let threshold = thresholds().find(|threshold| threshold.figure == figure.name);
        let yardstick = threshold.and_then(|threshold| threshold.yardstick).and_then(by_name);
        let ratio = yardstick.map(|yardstick| figure.value / yardstick.value);
        let aim = threshold.and_then(|threshold| threshold.aim.as_ref());
        Figure {
            name: figure.name.clone(),
            value: Some(figure.value),
            unit: figure.unit.clone(),
            yardstick: yardstick.map(|other| format!("{}: {} {}", other.name, other.value, other.unit)),
            ratio,
            aim: aim.map(|aim| aim.words(&figure.unit)),
            met: aim.map(|aim| match aim {
                Aim::Value(most) => figure.value <= *most,
                Aim::Ratio(most) => ratio.is_some_and(|ratio| ratio <= *most),
            }),
        }
    };
    // A figure that was not measured misses its aim, so that renaming or dropping a bench does not drop its aim.
    let missing = |threshold: &Threshold| {
        let aim = threshold.aim.as_ref().filter(|_| by_name(threshold.figure).is_none())?;
        Some(Figure {
            name: threshold.figure.to_owned(),
            value: None,
            unit: String::new(),
            yardstick: None,
            ratio: None,
            aim: Some(aim.words("")),
            met: Some(false),
        })
    };
    measured.iter().map(judged).chain(thresholds().filter_map(missing)).collect()
}

impl Aim {
    /// In words, with the figure's unit if it is known.
    fn words(&self, unit: &str) -> String {
        match self {
            Self::Value(most) => format!("at most {most} {unit}").trim_end().to_owned(),
            Self::Ratio(most) => format!("at most {most:.2} × the yardstick"),
        }
    }
}

/// The figures as a Markdown table.
fn table(figures: &[Figure]) -> String {
    let mut table = "| Figure | Value | Yardstick | Ratio | Aim | Met |\n|---|---|---|---|---|---|\n".to_owned();
    for figure in figures {
        let ratio = figure.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let met = match figure.met {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let (yardstick, aim) = (text(&figure.yardstick), text(&figure.aim));
        let value = match figure.value {
            Some(value) => format!("{} {}", number(value), figure.unit),
            None => "not measured".to_owned(),
        };
        table.push_str(&format!("| {} | {value} | {yardstick} | {ratio} | {aim} | {met} |\n", figure.name));
    }
    table
}

/// Rounds to three digits, the precision of such measurements.
fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(output: &str) -> Vec<Figure> {
        judge(&read(output), &[Part::Core])
    }

    fn of<'a>(figures: &'a [Figure], name: &str) -> &'a Figure {
        figures.iter().find(|figure| figure.name == name).unwrap()
    }

    #[test]
    fn figures_are_told_from_what_is_said_to_people() {
        let output = "warming up\n{\"name\":\"issue\",\"value\":110.0,\"unit\":\"us\"}\n{\"level\":\"info\"}\n\
                      {\"name\":\"floor\",\"value\":100.0,\"unit\":\"us\"}\n";
        let figures = judged(output);
        assert_eq!(figures.iter().filter(|figure| figure.value.is_some()).count(), 2);
        let row = "| issue | 110 us | floor: 100 us | 1.10 | at most 1.18 × the yardstick | yes |";
        assert!(table(&figures).contains(row), "{}", table(&figures));
    }

    #[test]
    fn a_missed_aim_is_said() {
        let slow = r#"{"name":"agent start to file, p99","value":31.0,"unit":"ms"}"#;
        assert_eq!(judged(slow).first().and_then(|figure| figure.met), Some(false));
        let without_yardstick = r#"{"name":"issue","value":1.0,"unit":"us"}"#;
        assert_eq!(judged(without_yardstick).first().and_then(|figure| figure.met), Some(false));
    }

    #[test]
    fn an_aim_whose_figure_is_missing_is_missed_in_the_parts_that_ran() {
        let row = "| operator start to ready | not measured |  |  | at most 10 | NO |";
        let core = judged("");
        assert_eq!(of(&core, "agent image").met, Some(false));
        assert!(!table(&core).contains("operator start to ready"), "the load driver was not asked");
        let measured = read(r#"{"name":"agent image","value":5.5,"unit":"MiB"}"#);
        let both = judge(&measured, &[Part::Core, Part::Load]);
        assert!(table(&both).contains(row), "{}", table(&both));
        assert!(!table(&both).contains("pod start"), "{}", table(&both));
        assert_eq!(both.iter().filter(|figure| figure.name == "agent image").count(), 1);
        assert_eq!(of(&both, "agent image").met, Some(true));
        let starts = judge(&[], &[Part::Starts]);
        assert!(starts.len() == 4 && starts.iter().all(|figure| figure.met == Some(false)));
    }

    #[test]
    fn a_figure_without_yardstick_and_aim_is_one() {
        let figures = judged(r#"{"name":"memory","value":4.25,"unit":"MB"}"#);
        assert!(table(&figures).contains("| memory | 4.25 MB |  |  |  |  |"));
    }
}
