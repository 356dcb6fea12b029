//! Whether the grants of a trust domain keep namespaces apart. `{namespace}` in each of two patterns is not enough:
//! under `/{namespace}/**` a namespace called `ns` can claim what `/ns/{namespace}/**` grants to others.

use std::fmt;

use super::dns::NamePattern;
use super::pattern::{PathPattern, Term};
use super::segment::{Placeholder, check_dns_label, check_path_segment};
use super::spec::DomainSpec;

/// A path pattern of a grant that is not shared, and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct GrantedPath<'a> {
    /// Position of the grant in `spec.grants`.
    pub grant: usize,
    /// Position of the pattern in the grant's `paths`.
    pub index: usize,
    /// The pattern.
    pub pattern: &'a PathPattern,
    /// The only namespaces that can use the grant (`matchNames`); empty: any, as labels can be put on any namespace.
    pub names: &'a [String],
}

impl fmt::Display for GrantedPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spec.grants[{}].paths[{}] ({})", self.grant, self.index, self.pattern)
    }
}

/// Two patterns under which two namespaces can claim the same path.
#[derive(Clone, Debug)]
pub struct PathOverlap<'a> {
    /// The pattern that stands first.
    pub first: GrantedPath<'a>,
    /// The other; a pattern can overlap itself.
    pub second: GrantedPath<'a>,
    /// A path and two namespaces that can claim it.
    pub example: Example,
}

impl fmt::Display for PathOverlap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Example { path, namespaces: [one, other] } = &self.example;
        write!(
            f,
            "{} and {} do not keep namespaces apart: namespace {one} can claim {path:?} by the first and namespace {other} by \
             the second; put {{namespace}} at the same position of both, begin them with different literals, restrict the \
             grants by matchNames, or write `shared: true` in one of the grants if that is meant",
            self.first, self.second
        )
    }
}

/// A path that two namespaces can claim. Where the cluster's name decides and is not known, `{cluster}` stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The path.
    pub path: String,
    /// A namespace that can claim it by the first pattern, and one that can by the second.
    pub namespaces: [String; 2],
}

/// A DNS name of a grant that is not shared, under which several namespaces can claim the same name.
#[derive(Clone, Copy, Debug)]
pub struct UnseparatedName<'a> {
    /// Position of the grant in `spec.grants`.
    pub grant: usize,
    /// Position of the name in the grant's `dnsNames`.
    pub index: usize,
    /// The name.
    pub pattern: &'a NamePattern,
}

impl fmt::Display for UnseparatedName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spec.grants[{}].dnsNames[{}] ({}) has no label {{namespace}} and its grant is not for one namespace by name, so \
             several namespaces can claim the same name; add the label, restrict the grant by matchNames to one namespace, or \
             write `shared: true` in the grant if that is meant",
            self.grant, self.index, self.pattern
        )
    }
}

/// The pairs of `paths` under which two different namespaces can claim the same path, each pair once, in order.
/// `cluster` is what `{cluster}` stands for; empty: not known, and then taken to differ from every literal. Pairs of
/// positions that `consider` declines are passed over. Found lazily: each pair costs a comparison of two patterns.
pub fn path_overlaps<'a>(
    paths: &'a [GrantedPath<'a>],
    cluster: &'a str,
    consider: impl Fn(usize, usize) -> bool + 'a,
) -> impl Iterator<Item = PathOverlap<'a>> {
    let pairs = (0..paths.len()).flat_map(move |first| (first..paths.len()).map(move |second| (first, second)));
    pairs.filter(move |&(first, second)| consider(first, second)).filter_map(move |(first, second)| {
        let (first, second) = (*paths.get(first)?, *paths.get(second)?);
        let example = shared_path([first, second], cluster)?;
        Some(PathOverlap { first, second, example })
    })
}

impl DomainSpec {
    /// Its path patterns that have to keep namespaces apart: those of grants that are not shared.
    pub fn unshared_paths(&self) -> Vec<GrantedPath<'_>> {
        let unshared = self.grants.iter().enumerate().filter(|(_, grant)| !grant.shared);
        unshared
            .flat_map(|(position, each)| {
                let paths = each.paths.iter().enumerate().filter(|(_, pattern)| pattern.is_namespaced());
                paths.map(move |(index, pattern)| GrantedPath {
                    grant: position,
                    index,
                    pattern,
                    names: &each.namespaces.names,
                })
            })
            .collect()
    }

    /// Its DNS names under which several namespaces can claim the same name.
    pub fn unseparated_names(&self) -> impl Iterator<Item = UnseparatedName<'_>> {
        let unshared = self.grants.iter().enumerate().filter(|(_, grant)| !grant.shared);
        unshared.flat_map(|(position, each)| {
            let names = each.dns_names.iter().enumerate();
            let apart = |(_, name): &(usize, &NamePattern)| name.keeps_namespaces_apart(&each.namespaces.names);
            names.filter(move |name| !apart(name)).map(move |(index, pattern)| UnseparatedName {
                grant: position,
                index,
                pattern,
            })
        })
    }
}

/// A path that one namespace can claim by the first pattern and another by the second, if there is one.
///
/// Segment by segment the patterns are equations between literals and the facts of one pod in each namespace. There is such
/// a path if no fact has to have two values, each value is one that Kubernetes allows for the fact, and the two namespaces
/// can still differ.
fn shared_path([first, second]: [GrantedPath<'_>; 2], cluster: &str) -> Option<Example> {
    let length = common_length(first.pattern, second.pattern)?;
    let terms = || first.pattern.terms().zip(second.pattern.terms()).take(length);
    let differ = |pair| match pair {
        (Term::Literal(one), Term::Literal(other)) => one != other,
        (Term::Fact(one), Term::Fact(other)) => one == Placeholder::Namespace && one == other,
        _ => false,
    };
    // Most pairs end here, before anything is allocated.
    if terms().any(differ) {
        return None;
    }
    let mut facts = Facts::new(cluster);
    for (one, other) in terms() {
        facts.equate(one, other)?;
    }
    let namespaces = [NAMESPACE, NAMESPACE << SECOND];
    let [one, other] = facts.distinct(namespaces, [first.names, second.names])?;
    facts.assign(namespaces, [one, other])?;
    let mut path = String::new();
    for (one, other) in terms() {
        let value = facts.value(one, 0).or_else(|| facts.value(other, SECOND)).unwrap_or(ANY_VALUE);
        path.push('/');
        path.push_str(value);
    }
    Some(Example { path, namespaces: [one.to_owned(), other.to_owned()] })
}

/// How many segments a path has that fits both patterns, if one can. Where both end with `**`, everything beyond the
/// longer one is any segment for both, so that one segment more than it has stands for all lengths.
fn common_length(first: &PathPattern, second: &PathPattern) -> Option<usize> {
    let (one, other) = (first.fixed_segments(), second.fixed_segments());
    match (first.has_rest(), second.has_rest()) {
        (false, false) => (one == other).then_some(one),
        (true, false) => (other > one).then_some(other),
        (false, true) => (one > other).then_some(one),
        (true, true) => Some(one.max(other) + 1),
    }
}

/// A value that every placeholder and wildcard can have.
const ANY_VALUE: &str = "x";
/// Names for namespaces of which nothing is asked.
const ANY_NAMESPACES: [&str; 2] = ["shop", "bank"];
/// Stands for the name of a cluster that is not known: no literal is equal to it.
const UNKNOWN_CLUSTER: &str = "{cluster}";

// A set of facts has a bit for each: those of the first pod, those of the second (shifted by `SECOND`), and the cluster.
type FactSet = u8;
const NAMESPACE: FactSet = 1;
const SERVICE_ACCOUNT: FactSet = 1 << 1;
const POD_NAME: FactSet = 1 << 2;
const SECOND: u32 = 3;
const CLUSTER: FactSet = 1 << 6;

/// Facts that are equal, and their value where a literal gives one.
struct Group<'a> {
    members: FactSet,
    value: Option<&'a str>,
}

/// What is known of the facts of two pods. Each fact is in one group.
struct Facts<'a>(Vec<Group<'a>>);

impl<'a> Facts<'a> {
    fn new(cluster: &'a str) -> Self {
        let cluster = if check_path_segment(cluster).is_ok() { cluster } else { UNKNOWN_CLUSTER };
        let of_pods = [NAMESPACE, SERVICE_ACCOUNT, POD_NAME].into_iter().flat_map(|fact| [fact, fact << SECOND]);
        let mut groups: Vec<_> = of_pods.map(|members| Group { members, value: None }).collect();
        groups.push(Group { members: CLUSTER, value: Some(cluster) });
        Self(groups)
    }

    /// A segment of the first pattern equals one of the second; `None` if it cannot.
    fn equate(&mut self, one: Term<'a>, other: Term<'a>) -> Option<()> {
        match (one, other) {
            (Term::Any, _) | (_, Term::Any) => Some(()),
            (Term::Literal(one), Term::Literal(other)) => (one == other).then_some(()),
            (Term::Fact(fact), Term::Literal(literal)) => self.give(bit(fact, 0), literal),
            (Term::Literal(literal), Term::Fact(fact)) => self.give(bit(fact, SECOND), literal),
            (Term::Fact(one), Term::Fact(other)) => self.join(bit(one, 0), bit(other, SECOND)),
        }
    }

    fn join(&mut self, one: FactSet, other: FactSet) -> Option<()> {
        let found = self.0.iter().position(|group| group.members & one != 0)?;
        let joined = self.0.swap_remove(found);
        if joined.members & other != 0 {
            self.0.push(joined);
            return Some(());
        }
        let group = self.0.iter_mut().find(|group| group.members & other != 0)?;
        group.members |= joined.members;
        match (group.value, joined.value) {
            (Some(one), Some(other)) if one != other => return None,
            (value, joined) => group.value = value.or(joined),
        }
        group.is_possible().then_some(())
    }

    fn give(&mut self, fact: FactSet, value: &'a str) -> Option<()> {
        let group = self.0.iter_mut().find(|group| group.members & fact != 0)?;
        if group.value.is_some_and(|known| known != value) {
            return None;
        }
        group.value = Some(value);
        group.is_possible().then_some(())
    }

    fn assign(&mut self, facts: [FactSet; 2], values: [&'a str; 2]) -> Option<()> {
        facts.into_iter().zip(values).try_for_each(|(fact, value)| self.give(fact, value))
    }

    /// Two different values for two namespaces, of which each is one of its `names` (empty: any).
    fn distinct(&self, namespaces: [FactSet; 2], names: [&'a [String]; 2]) -> Option<[&'a str; 2]> {
        let [one, other] = namespaces;
        if self.0.iter().any(|group| group.members & one != 0 && group.members & other != 0) {
            return None;
        }
        let [names_of_one, names_of_other] = names;
        let others = self.candidates(other, names_of_other);
        let pairs = self.candidates(one, names_of_one).into_iter();
        let mut pairs = pairs.flat_map(|one| others.iter().map(move |other| [one, *other]));
        pairs.find(|[one, other]| one != other)
    }

    /// Values a namespace can have: at most two, which is enough to find one that differs from another's.
    fn candidates(&self, namespace: FactSet, names: &'a [String]) -> Vec<&'a str> {
        let value = self.0.iter().find(|group| group.members & namespace != 0).and_then(|group| group.value);
        let mut found: Vec<&str> = Vec::new();
        match value {
            Some(value) if names.is_empty() || names.iter().any(|name| name == value) => found.push(value),
            Some(_) => {}
            None if names.is_empty() => found.extend(ANY_NAMESPACES),
            None => {
                for name in names.iter().filter(|name| is_namespace(name)) {
                    if found.len() < 2 && !found.contains(&name.as_str()) {
                        found.push(name);
                    }
                }
            }
        }
        found
    }

    fn value(&self, term: Term<'a>, side: u32) -> Option<&'a str> {
        match term {
            Term::Literal(literal) => Some(literal),
            Term::Fact(fact) => self.0.iter().find(|group| group.members & bit(fact, side) != 0)?.value,
            Term::Any => None,
        }
    }
}

impl Group<'_> {
    /// Whether each of its facts can have its value.
    fn is_possible(&self) -> bool {
        let has = |facts: FactSet| self.members & (facts | facts << SECOND) != 0;
        match self.value {
            // A cluster can be called as any of the other facts.
            None | Some(UNKNOWN_CLUSTER) => true,
            Some(value) if has(NAMESPACE) => is_namespace(value),
            Some(value) if has(SERVICE_ACCOUNT | POD_NAME) => is_subdomain(value),
            Some(_) => true,
        }
    }
}

fn bit(fact: Placeholder, side: u32) -> FactSet {
    match fact {
        Placeholder::Namespace => NAMESPACE << side,
        Placeholder::ServiceAccount => SERVICE_ACCOUNT << side,
        Placeholder::PodName => POD_NAME << side,
        Placeholder::Cluster => CLUSTER,
    }
}

/// The names Kubernetes allows for namespaces: labels of RFC 1123.
fn is_namespace(name: &str) -> bool {
    check_dns_label(name).is_ok()
}

/// The names Kubernetes allows for service accounts and pods: subdomains of RFC 1123, whose labels may be long.
fn is_subdomain(name: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}
