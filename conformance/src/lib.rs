//! What the harnesses of the conformance suite share (version 1 of its harness contract), and the catalogue of cases.

pub mod catalogue;
pub mod contract;
