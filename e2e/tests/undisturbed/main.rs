//! Tests on a healthy cluster. They leave the product and the cluster unchanged, each has its own namespaces and trust
//! domain, and they mostly wait, so they run concurrently in one program.

mod accounts;
mod acknowledgements;
mod admission;
mod claims;
mod cli_credentials;
mod cli_installation;
mod cli_misconfigured;
mod cli_policy;
mod cli_roles;
mod clients;
mod grants;
mod happy_path;
mod installed;
mod issuer;
mod key_exchange;
mod large_reviews;
mod permissions;
mod policy;
mod proofs;
mod published;
mod refusals;
mod renewal;
mod rotation;
mod skew;
mod startup_gate;
mod stolen_tokens;
mod verify;
mod wit;
