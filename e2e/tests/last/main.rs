//! What is looked at when all other tests have run: whether a secret is where it does not belong, and what is left when the
//! product is uninstalled.

mod secrets;
mod uninstall;
