//! Prints the custom resource definitions, for `cargo xtask codegen`: a JSON object of YAML by file name.

#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use std::collections::BTreeMap;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let definitions: BTreeMap<_, _> = countersign_crds::all()?.into_iter().collect();
    println!("{}", serde_json::to_string(&definitions)?);
    Ok(())
}
