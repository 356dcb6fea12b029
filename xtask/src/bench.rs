//! `cargo xtask bench`: runs every bench of the workspace, and gathers the figures that they print into a table and
//! `target/bench/report.json`.
//!
//! A bench prints a figure as one line of JSON, a [`Figure`]; its other lines are for people.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::progress::{Progress, say};
use crate::sh::{Run as _, cmd};

/// A figure beside its yardstick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Figure {
    /// What was measured.
    name: String,
    value: f64,
    unit: String,
    /// What it is measured against: in words, with its own figure.
    yardstick: Option<String>,
    /// `value` over the yardstick's.
    ratio: Option<f64>,
    /// What it should be, in words.
    aim: Option<String>,
    /// Whether it is; none without an aim.
    met: Option<bool>,
}

/// Runs the benches; a figure that misses its aim is said and fails nothing.
pub(crate) fn run(root: &Path) -> Result<()> {
    let progress = Progress::start("cargo bench");
    let output = cmd("cargo", ["bench", "--quiet", "--workspace", "--bench", "*"]).current_dir(root).read()?;
    let figures = figures(&output);
    if figures.is_empty() {
        bail!("no bench printed a figure");
    }
    let dir = root.join("target/bench");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    fs::write(dir.join("report.json"), serde_json::to_string_pretty(&figures)?)?;
    let table = table(&figures);
    fs::write(dir.join("report.md"), &table)?;
    progress.done(format!("{} figures in target/bench/report.json", figures.len()));
    say(table);
    Ok(())
}

fn figures(output: &str) -> Vec<Figure> {
    output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// In Markdown, which a person reads as it is.
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
        let value = format!("{} {}", number(figure.value), figure.unit);
        table.push_str(&format!("| {} | {value} | {yardstick} | {ratio} | {aim} | {met} |\n", figure.name));
    }
    table
}

/// Three digits are all that a measurement of this kind is worth.
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

    #[test]
    fn figures_are_told_from_what_is_said_to_people() {
        let output = "warming up\n{\"name\":\"issue\",\"value\":9000.0,\"unit\":\"1/s\",\"yardstick\":\"raw 10000 1/s\",\
                      \"ratio\":0.9,\"aim\":\"at least 0.85\",\"met\":true}\n{\"level\":\"info\"}\n";
        let figures = figures(output);
        assert_eq!(figures.len(), 1);
        assert!(table(&figures).contains("| issue | 9000 1/s | raw 10000 1/s | 0.90 | at least 0.85 | yes |"));
    }

    #[test]
    fn a_figure_without_yardstick_and_aim_is_one() {
        let figures = figures(r#"{"name":"memory","value":4.25,"unit":"MB"}"#);
        assert!(table(&figures).contains("| memory | 4.25 MB |  |  |  |  |"));
    }
}
