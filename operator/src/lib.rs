//! The operator: watches, indexes, decides, issues and publishes. Data goes one way: `watch` → `index` → `controllers` and
//! `authorities` → published state, which `issuer` reads. A server reads published state; it never calls back.

pub mod api_server;
pub mod authorities;
mod changed_names;
pub mod checks;
pub mod config;
pub mod controllers;
pub mod events;
#[cfg(test)]
mod fake_api_server;
pub mod federation;
pub mod inspect;
pub mod lease_store;
pub mod metrics;
pub mod operator;
pub mod watch;
