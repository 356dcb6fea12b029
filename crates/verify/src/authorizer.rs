//! Who may be on the other side: by exact id, by trust domain, by path patterns.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use countersign_core::{
    entitlement::{PathPattern, PathSet, TemplateError},
    id::{IdError, SpiffeId, TrustDomain},
};

/// The ids that are accepted. Every rule adds some, and without a rule there are none; [`Self::only_paths`] restricts one trust domain.
///
/// A bundle alone accepts every id of its trust domain. For a foreign trust domain that is rarely meant: name the paths.
///
/// ```
/// use countersign_verify::Authorizer;
///
/// let authorizer = Authorizer::id("spiffe://shop.example/ns/web/sa/cart")?
///     .or_trust_domain("payments.example")?
///     .or_paths("partner.example", ["/ns/billing/sa/*", "/public/**"])?;
///
/// assert!(authorizer.permits(&"spiffe://partner.example/ns/billing/sa/export".parse()?));
/// assert!(!authorizer.permits(&"spiffe://partner.example/ns/admin/sa/root".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Authorizer {
    any: bool,
    /// Shared, since every configuration and every validation holds one.
    trust_domains: Arc<HashMap<TrustDomain, Rules>>,
}

/// What is accepted of one trust domain.
#[derive(Clone, Debug, Default)]
struct Rules {
    all: bool,
    paths: HashSet<Box<str>>,
    patterns: PathSet,
    /// If set, no other rule applies to this trust domain.
    only: Option<PathSet>,
}

/// Why a rule is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizerError {
    /// Not a SPIFFE ID, or not the name of a trust domain.
    #[error("{text:?}: {source}")]
    Id {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: IdError,
    },
    /// The id of a trust domain, which no SVID of a workload has.
    #[error("{text:?} has no path, so no workload has this id; to accept a whole trust domain, name it")]
    WithoutPath {
        /// What was given.
        text: String,
    },
    /// Not a path pattern.
    #[error("{text:?}: {source}")]
    Pattern {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: TemplateError,
    },
    /// A placeholder stands for a fact of a pod, which whoever verifies an id does not know.
    #[error("{text:?}: a path pattern that verifies ids has no placeholders; use a literal, * or **")]
    Placeholder {
        /// What was given.
        text: String,
    },
}

impl Authorizer {
    /// Nobody is accepted.
    #[must_use]
    pub fn nobody() -> Self {
        Self::default()
    }

    /// Every id is accepted whose credential verifies, those of foreign trust domains among them.
    #[must_use]
    pub fn anybody() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// This id.
    ///
    /// # Errors
    /// When it is not a SPIFFE ID.
    pub fn id(id: &str) -> Result<Self, AuthorizerError> {
        Self::nobody().or_id(id)
    }

    /// Any of these ids.
    ///
    /// # Errors
    /// When one of them is not a SPIFFE ID.
    pub fn ids<'a>(ids: impl IntoIterator<Item = &'a str>) -> Result<Self, AuthorizerError> {
        ids.into_iter().try_fold(Self::nobody(), Self::or_id)
    }

    /// Every id of this trust domain.
    ///
    /// # Errors
    /// When it is not the name of a trust domain.
    pub fn trust_domain(trust_domain: &str) -> Result<Self, AuthorizerError> {
        Self::nobody().or_trust_domain(trust_domain)
    }

    /// The ids of this trust domain whose path one of the patterns admits: as [`Self::or_paths`].
    ///
    /// # Errors
    /// As [`Self::or_paths`].
    pub fn paths<'a>(trust_domain: &str, patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, AuthorizerError> {
        Self::nobody().or_paths(trust_domain, patterns)
    }

    /// What these texts say, as they stand in configurations: a SPIFFE ID, `spiffe://<trust domain>/<path pattern>` with a pattern of
    /// [`Self::or_paths`], or the name of a trust domain.
    ///
    /// # Errors
    /// When one of them is none of these.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, AuthorizerError> {
        texts.into_iter().try_fold(Self::nobody(), Self::or_parsed)
    }

    /// This id as well.
    ///
    /// # Errors
    /// When it is not a SPIFFE ID.
    pub fn or_id(mut self, id: &str) -> Result<Self, AuthorizerError> {
        let parsed: SpiffeId = id.parse().map_err(|source| AuthorizerError::Id { text: id.to_owned(), source })?;
        if parsed.path().is_empty() {
            return Err(AuthorizerError::WithoutPath { text: id.to_owned() });
        }
        self.rules(parsed.trust_domain().clone()).paths.insert(parsed.path().into());
        Ok(self)
    }

    /// Every id of this trust domain as well.
    ///
    /// # Errors
    /// When it is not the name of a trust domain.
    pub fn or_trust_domain(mut self, trust_domain: &str) -> Result<Self, AuthorizerError> {
        self.rules(parse_trust_domain(trust_domain)?).all = true;
        Ok(self)
    }

    /// The ids of this trust domain as well whose path one of the patterns admits, in the syntax of a TrustDomain's grants:
    /// segments are literals, `*` for any one, and, last, `**` for one or more.
    ///
    /// # Errors
    /// When it is not the name of a trust domain, or a pattern is none or has a placeholder.
    pub fn or_paths<'a>(
        mut self,
        trust_domain: &str,
        patterns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, AuthorizerError> {
        let patterns = patterns.into_iter().map(parse_pattern).collect::<Result<Vec<_>, _>>()?;
        self.rules(parse_trust_domain(trust_domain)?).patterns.extend(&patterns);
        Ok(self)
    }

    /// Restricts this trust domain to the ids whose path one of the patterns admits: no other rule applies to it, whether it was added
    /// before or is added later. To accept everybody, and of a foreign trust domain some. The patterns are those of
    /// [`Self::or_paths`].
    ///
    /// # Errors
    /// As [`Self::or_paths`].
    pub fn only_paths<'a>(
        self,
        trust_domain: &str,
        patterns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, AuthorizerError> {
        let patterns = patterns.into_iter().map(parse_pattern).collect::<Result<Vec<_>, _>>()?;
        Ok(self.only_patterns(parse_trust_domain(trust_domain)?, &patterns))
    }

    /// As [`Self::only_paths`], with patterns that were read before. One with a placeholder admits nothing.
    #[must_use]
    pub fn only_patterns(mut self, trust_domain: TrustDomain, patterns: &[PathPattern]) -> Self {
        self.rules(trust_domain).only = Some(patterns.iter().collect());
        self
    }

    /// Whether this id is accepted.
    #[must_use]
    pub fn permits(&self, id: &SpiffeId) -> bool {
        match self.trust_domains.get(id.trust_domain()) {
            Some(rules) => rules.permit(id.path(), self.any),
            None => self.any,
        }
    }

    fn or_parsed(self, text: &str) -> Result<Self, AuthorizerError> {
        let Some(rest) = text.strip_prefix("spiffe://") else { return self.or_trust_domain(text) };
        match rest.find('/').and_then(|slash| rest.split_at_checked(slash)) {
            // No path of an id has this character (SPIFFE-ID, section 2.2).
            Some((trust_domain, path)) if path.contains('*') => self.or_paths(trust_domain, [path]),
            _ => self.or_id(text),
        }
    }

    fn rules(&mut self, trust_domain: TrustDomain) -> &mut Rules {
        Arc::make_mut(&mut self.trust_domains).entry(trust_domain).or_default()
    }
}

impl From<SpiffeId> for Authorizer {
    /// This id alone.
    fn from(id: SpiffeId) -> Self {
        let mut authorizer = Self::nobody();
        authorizer.rules(id.trust_domain().clone()).paths.insert(id.path().into());
        authorizer
    }
}

impl Rules {
    /// `any`: whether everybody is accepted.
    fn permit(&self, path: &str, any: bool) -> bool {
        match &self.only {
            Some(only) => only.matches(path),
            None => any || self.all || self.paths.contains(path) || self.patterns.matches(path),
        }
    }
}

fn parse_trust_domain(text: &str) -> Result<TrustDomain, AuthorizerError> {
    text.parse().map_err(|source| AuthorizerError::Id { text: text.to_owned(), source })
}

fn parse_pattern(text: &str) -> Result<PathPattern, AuthorizerError> {
    let pattern =
        PathPattern::parse(text).map_err(|source| AuthorizerError::Pattern { text: text.to_owned(), source })?;
    if pattern.has_placeholder() {
        return Err(AuthorizerError::Placeholder { text: text.to_owned() });
    }
    Ok(pattern)
}

#[cfg(test)]
mod tests {
    use super::{Authorizer, AuthorizerError};

    fn permitted<'a>(authorizer: &Authorizer, ids: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        ids.into_iter().filter(|id| authorizer.permits(&id.parse().unwrap())).collect()
    }

    const IDS: [&str; 4] = ["spiffe://a.test/x", "spiffe://a.test/x/y", "spiffe://b.test/x", "spiffe://a.test.b/x"];

    #[test]
    fn without_a_rule_nobody_is_accepted() {
        assert!(permitted(&Authorizer::nobody(), IDS).is_empty());
        assert!(permitted(&Authorizer::default(), IDS).is_empty());
        assert!(permitted(&Authorizer::ids([]).unwrap(), IDS).is_empty());
        assert!(permitted(&Authorizer::paths("a.test", []).unwrap(), IDS).is_empty());
    }

    // R77.
    #[test]
    fn an_exact_id_is_neither_a_prefix_nor_that_of_another_trust_domain() {
        assert_eq!(permitted(&Authorizer::id("spiffe://a.test/x").unwrap(), IDS), ["spiffe://a.test/x"]);
        let any_of = Authorizer::ids(["spiffe://a.test/x/y", "spiffe://b.test/x"]).unwrap();
        assert_eq!(permitted(&any_of, IDS), ["spiffe://a.test/x/y", "spiffe://b.test/x"]);
    }

    // R16.
    #[test]
    fn of_a_foreign_trust_domain_the_named_paths_are_accepted_and_their_siblings_are_not() {
        let authorizer =
            Authorizer::trust_domain("a.test").unwrap().or_paths("b.test", ["/ns/*/sa/api", "/open/**"]).unwrap();
        let foreign = ["spiffe://b.test/ns/shop/sa/api", "spiffe://b.test/ns/shop/sa/api2", "spiffe://b.test/open/1/2"];
        assert_eq!(permitted(&authorizer, foreign), [foreign[0], foreign[2]]);
        assert_eq!(permitted(&authorizer, IDS), ["spiffe://a.test/x", "spiffe://a.test/x/y"]);
    }

    #[test]
    fn everybody_is_accepted_but_of_one_trust_domain_the_named_paths_alone() {
        let authorizer = Authorizer::anybody().only_paths("a.test", ["/x/*"]).unwrap();
        assert_eq!(permitted(&authorizer, IDS), ["spiffe://a.test/x/y", "spiffe://b.test/x", "spiffe://a.test.b/x"]);
        let narrowed = Authorizer::trust_domain("a.test").unwrap().only_paths("a.test", []).unwrap();
        assert!(permitted(&narrowed, IDS).is_empty());
        let later = Authorizer::nobody().only_paths("a.test", ["/x"]).unwrap().or_trust_domain("a.test").unwrap();
        assert_eq!(permitted(&later, IDS), ["spiffe://a.test/x"]);
    }

    #[test]
    fn a_rule_adds_to_everybody_nothing_and_takes_nothing_away() {
        assert_eq!(permitted(&Authorizer::anybody().or_id("spiffe://a.test/x").unwrap(), IDS), IDS);
    }

    #[test]
    fn a_rule_that_could_never_hold_is_an_error() {
        assert!(matches!(Authorizer::id("a.test/x"), Err(AuthorizerError::Id { .. })));
        assert!(matches!(Authorizer::id("spiffe://a.test"), Err(AuthorizerError::WithoutPath { .. })));
        assert!(matches!(Authorizer::trust_domain("A.test"), Err(AuthorizerError::Id { .. })));
        assert!(matches!(Authorizer::paths("a.test", ["/a//b"]), Err(AuthorizerError::Pattern { .. })));
        let placeholder = Authorizer::paths("a.test", ["/ns/{namespace}/**"]);
        assert!(matches!(placeholder, Err(AuthorizerError::Placeholder { .. })));
    }

    #[test]
    fn texts_of_a_configuration_are_ids_patterns_and_trust_domains() {
        let parsed = |texts: &[&str]| Authorizer::parse(texts.iter().copied());
        let permits = |text: &str| permitted(&parsed(&[text]).unwrap(), IDS);
        assert_eq!(permits("spiffe://a.test/x"), [IDS[0]]);
        assert_eq!(permits("spiffe://a.test/x/*"), [IDS[1]]);
        assert_eq!(permits("a.test"), [IDS[0], IDS[1]]);
        assert_eq!(permitted(&parsed(&["b.test", "spiffe://a.test/x"]).unwrap(), IDS), [IDS[0], IDS[2]]);
        assert!(permitted(&parsed(&[]).unwrap(), IDS).is_empty());
        for wrong in ["", "*", "spiffe://a.test", "spiffe://*/x", "spiffe://a.test/ns/{namespace}/*", "/x"] {
            assert!(parsed(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn whoever_accepts_anybody_says_so() {
        assert_eq!(permitted(&Authorizer::anybody(), IDS), IDS);
    }
}
