//! What becomes of identities when the product or the cluster is disturbed: replicas are killed or replaced, the API server, a
//! watch or a clock fails, a thousand peers are hostile. One test at a time on a cluster; `cargo xtask test` has two clusters
//! share them.

mod api;
mod clock;
mod herd;
mod hostile;
mod hot_path;
mod kills;
mod newer;
mod order;
mod outage;
mod product;
mod replicas;
mod roll_out;
mod stale;
mod webhook;
