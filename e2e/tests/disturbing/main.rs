//! Identities while the product or the cluster is disturbed: replicas are killed or replaced, the API server, a watch or a
//! clock fails, a thousand peers are hostile. One test at a time runs on a cluster; `cargo xtask test` distributes them
//! over two clusters.

mod api;
mod broken;
mod clock;
mod herd;
mod hostile;
mod hot_path;
mod kills;
mod newer;
mod order;
mod outage;
mod product;
mod receipts;
mod replicas;
mod restore;
mod roll_out;
mod rotation;
mod rotation_faults;
mod stale;
mod upgrade;
mod webhook;
