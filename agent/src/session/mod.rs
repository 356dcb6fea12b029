//! A session: one conversation with the issuer about one name in the pod, and what comes of it. Decisions are pure
//! (`wallet`, `held`, `told`); the `driver` observes and applies.

mod comeback;
mod driver;
mod held;
mod hello;
mod tokens;
mod told;
mod wallet;

pub use driver::{Session, SessionParts};
pub use held::{HeldJwt, HeldX509, Unusable};
pub use tokens::{TokenDesk, TokenDeskError};
pub use told::{Identity, Told, ToldError};
pub use wallet::{NotAccepted, Plan, Wallet, Want};
