//! What is printed: text for people, JSON and YAML for programs. Colour and wrapping are for terminals only.

use std::{env, fmt::Display, io::IsTerminal as _};

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, Result};
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For programs.
    Yaml,
}

/// What a command found.
pub(crate) trait Report: Serialize {
    /// Writes it for people.
    fn write(&self, page: &mut Page);
}

/// What a line says of its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mark {
    /// It is as it should be.
    Ok,
    /// It could not be looked at.
    Skipped,
    /// Somebody should look at it.
    Warning,
    /// It is wrong.
    Failed,
}

/// Text for people, wrapped to the width of their terminal.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    /// Columns of the terminal; none where there is no terminal, and lines are as long as they are.
    width: Option<usize>,
}

/// The column at which the text of a line with a label begins.
const TEXT: usize = 22;

impl Page {
    pub(crate) fn new(width: Option<usize>) -> Self {
        Self { text: String::new(), width }
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// A line that stands out.
    pub(crate) fn heading(&mut self, text: impl Display) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let bold = Style::new().bold();
        self.push(&format!("{bold}{text}{bold:#}"), 0);
    }

    /// A line, wrapped below its beginning.
    pub(crate) fn line(&mut self, text: impl Display) {
        self.push(&text.to_string(), 0);
    }

    /// `  ok    label         text`
    pub(crate) fn item(&mut self, mark: Mark, label: &str, text: impl Display) {
        let style = mark.style();
        let word = mark.word();
        self.push(&format!("  {style}{word:<4}{style:#}  {label:<14}{text}"), TEXT);
    }

    /// What to do about the item before it: `command` is left whole, so that it can be copied.
    pub(crate) fn mend(&mut self, text: impl Display) {
        let style = Style::new().fg_color(Some(AnsiColor::Cyan.into()));
        let arrow = "→";
        for line in text.to_string().lines() {
            self.push(&format!("{:width$}{style}{arrow}{style:#} {line}", "", width = TEXT - 2), TEXT);
        }
    }

    /// Lines as they are, such as YAML that can be applied.
    pub(crate) fn verbatim(&mut self, text: &str, indent: usize) {
        for line in text.trim_end().lines() {
            self.text.push_str(&format!("{:indent$}{line}\n", ""));
        }
    }

    /// Columns as wide as what is in them, or as the terminal allows.
    pub(crate) fn table(&mut self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::NOTHING).set_header(header.iter().copied());
        match self.width {
            Some(width) => table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(u16::try_from(width).unwrap_or(u16::MAX)),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        rows.into_iter().for_each(|row| {
            table.add_row(row);
        });
        table.column_iter_mut().for_each(|column| {
            column.set_padding((0, 2));
        });
        for line in table.lines() {
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }

    fn push(&mut self, text: &str, indent: usize) {
        let indent = " ".repeat(indent);
        match self.width {
            Some(width) => {
                let options = textwrap::Options::new(width)
                    .subsequent_indent(&indent)
                    .break_words(false)
                    // Names, times and commands are copied whole.
                    .word_splitter(textwrap::WordSplitter::NoHyphenation);
                self.text.push_str(&textwrap::fill(text, options));
            }
            None => self.text.push_str(text),
        }
        self.text.push('\n');
    }
}

impl Mark {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skip",
            Self::Warning => "WARN",
            Self::Failed => "FAIL",
        }
    }

    fn style(self) -> Style {
        let color = match self {
            Self::Ok => AnsiColor::Green,
            Self::Skipped => AnsiColor::BrightBlack,
            Self::Warning => AnsiColor::Yellow,
            Self::Failed => AnsiColor::Red,
        };
        Style::new().fg_color(Some(color.into()))
    }
}

pub(crate) fn print(report: &impl Report, format: Format) -> Result<()> {
    let text = match format {
        Format::Text => {
            let mut page = Page::new(width());
            report.write(&mut page);
            page.into_text()
        }
        Format::Json => serde_json::to_string_pretty(report)? + "\n",
        Format::Yaml => serde_saphyr::to_string(report).context("writing YAML")?,
    };
    print_text(&text);
    Ok(())
}

/// Writes text as it is, but for colours where they are not wanted.
pub(crate) fn print_text(text: &str) {
    anstream::print!("{text}");
}

/// The text for people without colours and line breaks of a terminal, for files.
pub(crate) fn plain(report: &impl Report) -> String {
    let mut page = Page::new(None);
    report.write(&mut page);
    anstream::adapter::strip_str(&page.into_text()).to_string()
}

/// Whether what is printed is seen by a person.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Says what a command waits for, beside its output.
pub(crate) fn progress(message: &str) {
    anstream::eprintln!("{message}");
}

pub(crate) fn error(message: &str) {
    let style = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    anstream::eprintln!("{style}error:{style:#} {message}");
}

/// Columns of the terminal; `COLUMNS` sets them where there is none.
fn width() -> Option<usize> {
    let set = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    set.or_else(|| terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)))
}
