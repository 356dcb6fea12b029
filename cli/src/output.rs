//! What is printed: text for people, JSON and YAML for programs. Colour and wrapping are for terminals only.

use std::{env, fmt::Display, io::IsTerminal as _};

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, Result};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
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

/// Columns between two of a table.
const GAP: usize = 2;

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
        self.push(&format!("{bold}{}{bold:#}", shown(text)), 0);
    }

    /// A line, wrapped below its beginning.
    pub(crate) fn line(&mut self, text: impl Display) {
        self.push(&shown(text), 0);
    }

    /// `  ok    label         text`
    pub(crate) fn item(&mut self, mark: Mark, label: &str, text: impl Display) {
        let style = mark.style();
        let word = mark.word();
        self.push(&format!("  {style}{word:<4}{style:#}  {:<13} {}", shown(label), shown(text)), TEXT);
    }

    /// `   12s  name       text`: what has changed after some seconds.
    pub(crate) fn step(&mut self, seconds: u64, name: &str, is_done: bool, text: impl Display) {
        let state = if is_done { "done" } else { "wait" };
        self.push(&format!("{seconds:>4}s  {name:<11}  {state}  {}", shown(text)), TEXT + 4);
    }

    /// `  name                value`
    pub(crate) fn fact(&mut self, name: &str, value: impl Display) {
        self.push(&format!("  {:<width$}{}", shown(name), shown(value), width = TEXT - 2), TEXT);
    }

    /// `  - text`
    pub(crate) fn bullet(&mut self, text: impl Display) {
        self.push(&format!("  - {}", shown(text)), 4);
    }

    /// What to do about the item before it. A command is left whole, so that it can be copied. If the text begins with one, its further
    /// lines are of the command too, and begin where a shell expects them.
    pub(crate) fn mend(&mut self, text: impl Display) {
        let style = Style::new().fg_color(Some(AnsiColor::Cyan.into()));
        let text = shown(text);
        let marked = |line: &str| format!("{:width$}{style}→{style:#} {line}", "", width = TEXT - 2);
        if !text.starts_with("kubectl ") {
            for line in text.lines() {
                if line.starts_with("kubectl ") {
                    self.text.push_str(&marked(line));
                    self.text.push('\n');
                } else {
                    self.push(&marked(line), TEXT);
                }
            }
            return;
        }
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        self.text.push_str(&marked(first));
        self.text.push('\n');
        self.verbatim(rest, 0);
    }

    /// Lines as they are, such as YAML that can be applied.
    pub(crate) fn verbatim(&mut self, text: &str, indent: usize) {
        for line in shown(text).trim_end().lines() {
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
            table.add_row(row.iter().map(shown));
        });
        let words: Vec<usize> = table.column_iter().map(|column| longest_word(header, &table, column.index)).collect();
        let gaps = GAP * words.len().saturating_sub(1);
        let are_whole = self.width.is_some_and(|width| words.iter().sum::<usize>() + gaps <= width);
        let last = words.len().saturating_sub(1);
        table.column_iter_mut().zip(words).for_each(|(column, word)| {
            let gap = if column.index == last { 0 } else { GAP };
            let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
            column.set_padding((0, count(gap)));
            if are_whole {
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(count(word + gap))));
            }
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
                // A word that does not fit beside the labels begins further to the left.
                let word = text.split_whitespace().map(textwrap::core::display_width).max().unwrap_or_default();
                let indent = indent.get(..width.saturating_sub(word)).unwrap_or(&indent);
                let options = textwrap::Options::new(width)
                    .subsequent_indent(indent)
                    .break_words(false)
                    // Times, names and ids stay whole, so that they can be read and copied.
                    .word_separator(textwrap::WordSeparator::AsciiSpace)
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

/// What goes on while the answer is awaited, beside the output.
pub(crate) fn progress(write: impl FnOnce(&mut Page)) {
    let mut page = Page::new(width());
    write(&mut page);
    anstream::eprint!("{}", page.into_text());
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
pub(crate) fn note(message: &str) {
    anstream::eprintln!("{message}");
}

pub(crate) fn error(message: &str) {
    let style = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    anstream::eprintln!("{style}error:{style:#} {message}");
}

/// `1 pod`, `2 pods`.
pub(crate) fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Text as a terminal may show it. Names, messages and logs of a cluster are written by many, and must not move the cursor of those who
/// read them.
fn shown(text: impl Display) -> String {
    text.to_string().split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Text of a stranger as it may be shown: with nothing that a terminal obeys or that changes the order of what is read.
pub(crate) fn printable(text: &str) -> String {
    let is_hidden = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().fold(String::new(), |mut shown, character| {
        if is_hidden(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
        shown
    })
}

/// The width of the longest word in a column of a table.
fn longest_word(header: &[&str], table: &Table, index: usize) -> usize {
    let cells = table.row_iter().filter_map(|row| row.cell_iter().nth(index)).map(comfy_table::Cell::content);
    let title = header.get(index).map(|title| (*title).to_owned());
    let width = |text: String| text.split_whitespace().map(textwrap::core::display_width).max().unwrap_or_default();
    cells.chain(title).map(width).max().unwrap_or_default()
}

/// Columns of the terminal; `COLUMNS` sets them where there is none.
fn width() -> Option<usize> {
    let set = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    set.or_else(|| terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)))
}

#[cfg(test)]
mod tests {
    use super::{Mark, Page};

    fn lines(write: impl FnOnce(&mut Page)) -> Vec<String> {
        let mut page = Page::new(Some(80));
        write(&mut page);
        anstream::adapter::strip_str(&page.into_text()).to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn names_and_ids_stay_whole_as_far_as_they_fit() {
        let reason = "ServiceAccountNotSelected";
        let row = ["shop-with-a-long-name", "default", "1", reason, "CS1102"].map(str::to_owned).to_vec();
        let table = lines(|page| page.table(&["NAMESPACE", "SERVICE ACCOUNT", "PODS", "REASON", "CODE"], [row]));
        assert!(table.len() == 2 && table[1].contains(reason), "{table:?}");
        let id = "spiffe://demo.countersign.dev/ns/countersign-demo/sa/orders-2";
        let item = lines(|page| page.item(Mark::Ok, "calls", format_args!("authenticated {id}")));
        assert!(item.iter().any(|line| line.trim_start() == id), "{item:?}");
        assert!(item.iter().all(|line| line.len() <= 80), "{item:?}");
    }

    #[test]
    fn commands_are_left_whole_and_sentences_are_wrapped() {
        let command = "kubectl countersign bundle export a-trust-domain-with-a-long-name.shop.example --output json";
        let mut page = Page::new(Some(60));
        page.mend(format!("a sentence that is longer than what there is room for in one line:\n{command}"));
        let text = anstream::adapter::strip_str(&page.into_text()).to_string();
        assert!(text.lines().any(|line| line.trim_start_matches(['→', ' ']) == command), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    /// Whoever makes a pod writes what the kubelet says of it.
    #[test]
    fn nothing_of_a_cluster_is_obeyed_by_the_terminal() {
        let hostile = "exec \u{1b}]0;owned\u{7} \u{1b}[2J\u{202e}: no such file";
        let mut page = Page::new(Some(80));
        page.heading(hostile);
        page.line(hostile);
        page.item(Mark::Failed, hostile, hostile);
        page.fact(hostile, hostile);
        page.mend(hostile);
        page.mend(format!("kubectl x\n{hostile}"));
        page.bullet(hostile);
        page.step(1, "a", false, hostile);
        page.verbatim(hostile, 2);
        page.table(&["A"], [vec![hostile.to_owned()]]);
        let text = anstream::adapter::strip_str(&page.into_text()).to_string();
        assert_eq!(text.matches("u{1b}").count(), 2 * text.matches("owned").count());
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
        assert!(!text.contains('\u{202e}'));
    }
}
