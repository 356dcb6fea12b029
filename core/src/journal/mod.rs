//! The journal of authorities.
