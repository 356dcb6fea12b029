//! Tests that run after all others: whether a secret is anywhere it does not belong, and what is left after the product is
//! uninstalled.

mod secrets;
mod uninstall;
