//! The program that says what go-spiffe makes of an input.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

pub(crate) struct Oracle {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Oracle {
    pub(crate) fn start(program: &OsStr) -> Self {
        let mut process =
            Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the oracle starts");
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, input, output: BufReader::new(output) }
    }

    /// The id of what is accepted, or the error.
    pub(crate) fn ask(&mut self, question: &Value) -> Result<String, String> {
        writeln!(self.input, "{question}").expect("the oracle listens");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the oracle answers");
        let answer: Value = serde_json::from_str(&line).expect("the oracle answers by JSON");
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        if text("error").is_empty() { Ok(text("id")) } else { Err(text("error")) }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
