//! Label selectors.

use countersign_core::entitlement::{FieldReader, LabelSelector, Requirement};
use countersign_crds as crds;

use std::collections::BTreeMap;

/// A label selector; `at` is the field that holds it.
pub(crate) fn labels(
    reader: &mut FieldReader,
    at: &str,
    match_labels: &BTreeMap<String, String>,
    expressions: &[crds::LabelRequirement],
) -> LabelSelector {
    let each = expressions.iter().enumerate();
    let requirements = each.filter_map(|(position, each)| {
        let operator = match each.operator {
            crds::Operator::In => "In",
            crds::Operator::NotIn => "NotIn",
            crds::Operator::Exists => "Exists",
            crds::Operator::DoesNotExist => "DoesNotExist",
        };
        let field = format!("{at}.matchExpressions[{position}]");
        reader.read(field, Requirement::parse(&each.key, operator, &each.values))
    });
    LabelSelector { match_expressions: requirements.collect(), match_labels: match_labels.clone() }
}
