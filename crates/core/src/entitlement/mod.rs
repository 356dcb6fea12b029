//! Who is entitled to which identity: what WorkloadIdentities claim, what TrustDomains grant, which of two conflicting
//! claims holds, and what one pod and session gets. Facts in, decisions out; issuer and status use the same functions.

mod audience;
mod claim;
mod conflict;
mod decide;
mod dns;
mod endpoint;
mod facts;
mod field_error;
mod foreign;
mod grant;
mod judge;
mod path_set;
mod pattern;
mod rivals;
mod segment;
mod selector;
mod separation;
mod shapes;
mod spec;
mod template;

#[cfg(test)]
mod claims_properties;
#[cfg(test)]
mod decide_tests;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod grant_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod separation_tests;

pub(crate) use segment::check_dns_label;

pub use audience::{AudienceError, AudiencePattern, check_requested};
pub use claim::{ClaimHistory, ClaimKey, ClaimKind, Standing, claims_of};
pub use conflict::{Claimant, Claims, LostClaim};
pub use decide::{
    Entitled, MAX_IDENTITIES, NoIdentity, Unrenderable, first_identities_for, identities_for, left_out, nearest_reason,
};
pub use dns::{NameError, NamePattern, NameTemplate};
pub use endpoint::{ENDPOINT_PATH, RESERVED, endpoint_identity};
pub use facts::{Labels, PodFacts};
pub use field_error::{FieldError, FieldErrors, FieldReader};
pub use foreign::{Foreign, MissingConsent, RemoteTerms};
pub use grant::{Admitted, Claim, GrantError, GrantedList, RuleList, admit};
pub use judge::{Judged, Refusal, grantable, judge, judge_all};
pub use path_set::PathSet;
pub use pattern::PathPattern;
pub use segment::{Placeholder, Scope, Segment, SegmentError};
pub use selector::{Condition, LabelSelector, NamespaceSelector, Requirement, Selector, SelectorError};
pub use separation::{Example, GrantedPath, PathOverlap, UnseparatedName, path_overlaps};
pub use spec::{
    DeclaredDomain, DeclaredIdentity, DomainKind, DomainSpec, Grant, IdentitySpec, JwtSpec, LifetimeBounds, Unresolved,
    WitSpec, X509Spec,
};
pub use template::{PathTemplate, RenderError, TemplateError};
