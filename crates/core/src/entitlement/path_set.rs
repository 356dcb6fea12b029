//! Many path patterns as one tree, so that a decision costs by the path and not by the number of patterns.

use std::collections::HashMap;
use std::fmt;

use super::pattern::{PathPattern, Term};

/// The union of path patterns. Empty, it admits nothing.
#[derive(Clone, Default)]
pub struct PathSet {
    root: Node,
    patterns: usize,
}

#[derive(Clone, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    /// `*`.
    any: Option<Box<Node>>,
    /// A pattern ends here.
    end: bool,
    /// A pattern ends here with `**`.
    rest: bool,
}

impl PathSet {
    /// Whether one of the patterns admits `path`, that of an id: as [`PathPattern::matches`].
    pub fn matches(&self, path: &str) -> bool {
        let Some(segments) = path.strip_prefix('/') else {
            // The id of a trust domain has no segments.
            return path.is_empty() && self.root.end;
        };
        self.root.matches(Some(segments))
    }

    /// How many patterns it was made of.
    pub fn len(&self) -> usize {
        self.patterns
    }

    /// Whether it admits nothing.
    pub fn is_empty(&self) -> bool {
        self.patterns == 0
    }

    fn insert(&mut self, pattern: &PathPattern) {
        self.patterns += 1;
        // A placeholder stands for a fact of a pod and admits no path of an id.
        if pattern.has_placeholder() {
            return;
        }
        let mut node = &mut self.root;
        for term in pattern.terms().take(pattern.fixed_segments()) {
            node = match term {
                Term::Literal(literal) => node.literals.entry(literal.into()).or_default(),
                Term::Any | Term::Fact(_) => node.any.get_or_insert_default(),
            };
        }
        if pattern.has_rest() {
            node.rest = true;
        } else {
            node.end = true;
        }
    }
}

impl Node {
    /// `rest` are the segments below this node, joined by `/`; `None`: there are none. Each node of the tree is visited at most
    /// once, since only one way leads to it.
    fn matches(&self, rest: Option<&str>) -> bool {
        let Some(rest) = rest else { return self.end };
        if self.rest {
            return true;
        }
        let (segment, below) = match rest.split_once('/') {
            Some((segment, below)) => (segment, Some(below)),
            None => (rest, None),
        };
        self.literals.get(segment).is_some_and(|node| node.matches(below))
            || self.any.as_ref().is_some_and(|node| node.matches(below))
    }
}

impl<'a> Extend<&'a PathPattern> for PathSet {
    fn extend<T: IntoIterator<Item = &'a PathPattern>>(&mut self, patterns: T) {
        patterns.into_iter().for_each(|pattern| self.insert(pattern));
    }
}

impl<'a> FromIterator<&'a PathPattern> for PathSet {
    fn from_iter<T: IntoIterator<Item = &'a PathPattern>>(patterns: T) -> Self {
        let mut set = Self::default();
        set.extend(patterns);
        set
    }
}

impl fmt::Debug for PathSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PathSet({} patterns)", self.patterns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, prop_assert_eq, prop_oneof, proptest};
    use proptest::sample::select;

    use super::*;

    fn segment() -> impl Strategy<Value = &'static str> {
        prop_oneof![3 => select(vec!["a", "b", "ns"]), 2 => Just("*"), 1 => Just("{namespace}")]
    }

    fn pattern() -> impl Strategy<Value = PathPattern> {
        (proptest::collection::vec(segment(), 1..4), proptest::bool::ANY).prop_map(|(segments, rest)| {
            let text = format!("/{}{}", segments.join("/"), if rest { "/**" } else { "" });
            PathPattern::parse(&text).unwrap()
        })
    }

    fn path() -> impl Strategy<Value = String> {
        proptest::collection::vec(select(vec!["a", "b", "c", "ns"]), 0..6)
            .prop_map(|segments| segments.iter().map(|segment| format!("/{segment}")).collect())
    }

    proptest! {
        #[test]
        fn it_admits_what_one_of_its_patterns_does(
            patterns in proptest::collection::vec(pattern(), 0..12), paths in proptest::collection::vec(path(), 1..20)
        ) {
            let set: PathSet = patterns.iter().collect();
            prop_assert_eq!(set.len(), patterns.len());
            for path in paths {
                let one = patterns.iter().any(|pattern| pattern.matches(&path));
                prop_assert_eq!(set.matches(&path), one, "{} by {:?}", path, patterns);
            }
        }
    }
}
