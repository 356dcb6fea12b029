//! The operator: watches, indexes, decides, issues and publishes. Data goes one way: `watch` → `index` → `controllers` and
//! `authorities` → published state, which `issuer` reads. A server reads published state; it never calls back.

pub mod authorities;
#[cfg(test)]
mod canned;
pub mod clock;
pub mod config;
pub mod controllers;
pub mod events;
pub mod fair;
pub mod freshness;
pub mod http;
pub mod inspect;
pub mod issuer;
pub mod jwks;
pub mod leader;
pub mod metrics;
pub mod operator;
pub mod rate;
pub mod watch;
