//! Reports which parts of other processes are readable through `/proc`, without printing their content.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::report::say;

/// The kernel truncates a program's name to this length.
const COMM: usize = 15;

/// One JSON line for each part of each process of these programs, with whether it was readable; then one line that all were
/// tried.
pub(crate) fn look_into(programs: &[String]) -> Result<()> {
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let process = entry?.path();
        let Ok(comm) = fs::read_to_string(process.join("comm")) else { continue };
        let of = |program: &&String| program.get(..COMM).unwrap_or(program) == comm.trim_end();
        let Some(program) = programs.iter().find(of) else { continue };
        let own = process.file_name().is_some_and(|name| name.to_string_lossy() == std::process::id().to_string());
        if own {
            continue;
        }
        for (part, look) in PARTS {
            let looked = look(&process);
            let root = process.join("root").join(program);
            let mode = fs::metadata(root).ok().map(|file| format!("{:04o}", file.permissions().mode() & 0o7777));
            say(&json!({
                "event": "look-into", "program": program, "process": process, "part": part,
                "reached": looked.is_ok(), "error": looked.err().map(|error| error.to_string()), "program_mode": mode,
            }));
        }
    }
    say(&json!({ "event": "looked" }));
    Ok(())
}

type Look = fn(&Path) -> io::Result<()>;

const PARTS: [(&str, Look); 7] = [
    ("root", |process| fs::read_dir(process.join("root")).map(drop)),
    ("cwd", |process| fs::read_dir(process.join("cwd")).map(drop)),
    ("exe", |process| fs::read_link(process.join("exe")).map(drop)),
    ("environ", |process| some(&process.join("environ"))),
    ("maps", |process| some(&process.join("maps"))),
    ("mem", |process| File::open(process.join("mem")).map(drop)),
    ("fd", |process| fs::read_link(process.join("fd/0")).map(drop)),
];

/// Checks that something can be read: some files of a protected process open, but are empty.
fn some(path: &Path) -> io::Result<()> {
    File::open(path)?.read_exact(&mut [0])
}
