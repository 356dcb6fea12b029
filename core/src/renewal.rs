//! When to renew.
