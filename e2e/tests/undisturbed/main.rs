//! What pods meet in a cluster that is well: these tests leave the product and the cluster as they are, each has namespaces and
//! a trust domain of its own, and most of their time they wait. So they run beside each other, in one program.

mod accounts;
mod admission;
mod claims;
mod clients;
mod grants;
mod held;
mod installed;
mod issuer;
mod key_exchange;
mod large_reviews;
mod permissions;
mod policy;
mod refusals;
mod renewal;
mod road;
mod skew;
mod stolen_tokens;
