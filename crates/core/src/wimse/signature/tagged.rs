//! The one signature of this profile among those of a message (draft-ietf-wimse-http-signature-08, section 3).

use sfv::{InnerList, Key, ListEntry};

use super::components::Component;
use super::parameters::is_tagged;
use super::structured::dictionary;
use super::{MAX_COMPONENTS, SIGNATURE_FIELD, SIGNATURE_INPUT_FIELD, SignatureError};
use crate::jws::quoted;
use crate::wimse::Field;

/// A signature as it was sent.
pub(super) struct Tagged {
    /// The components that it covers, in the order of `list`.
    pub(super) components: Vec<Component>,
    /// The member of `Signature-Input`.
    pub(super) list: InnerList,
    pub(super) signature: Vec<u8>,
}

impl Tagged {
    /// Finds it by its tag, never by its label, whatever else signed the message. `None` when there is none.
    pub(super) fn find(fields: &[Field<'_>]) -> Result<Option<Self>, SignatureError> {
        let Some((label, list)) = input(fields)? else {
            return Ok(None);
        };
        let components = components(&list)?;
        let signatures = dictionary(fields, SIGNATURE_FIELD).map_err(|_| SignatureError::Field)?;
        let Some(ListEntry::Item(item)) = signatures.get(&label) else {
            return Err(SignatureError::Field);
        };
        let signature = item.bare_item.as_byte_sequence().ok_or(SignatureError::Field)?.to_vec();
        Ok(Some(Self { components, list, signature }))
    }
}

/// The only member of `Signature-Input` with the tag, and its label.
fn input(fields: &[Field<'_>]) -> Result<Option<(Key, InnerList)>, SignatureError> {
    let inputs = dictionary(fields, SIGNATURE_INPUT_FIELD).map_err(|_| SignatureError::Input)?;
    let mut tagged = inputs.into_iter().filter(|(_, entry)| match entry {
        ListEntry::InnerList(list) => is_tagged(&list.params),
        ListEntry::Item(item) => is_tagged(&item.params),
    });
    let Some((label, entry)) = tagged.next() else {
        return Ok(None);
    };
    if tagged.next().is_some() {
        return Err(SignatureError::Several);
    }
    match entry {
        ListEntry::InnerList(list) => Ok(Some((label, list))),
        ListEntry::Item(_) => Err(SignatureError::Input),
    }
}

fn components(list: &InnerList) -> Result<Vec<Component>, SignatureError> {
    if list.items.len() > MAX_COMPONENTS {
        return Err(SignatureError::TooManyComponents { found: list.items.len() });
    }
    let mut components = Vec::with_capacity(list.items.len());
    for item in &list.items {
        let component = Component::read(item).ok_or_else(|| {
            let name = item.bare_item.as_string().map_or("", |name| name.as_str());
            SignatureError::UnknownComponent { name: quoted(name) }
        })?;
        // Each is there once (RFC 9421, section 2.5).
        if components.contains(&component) {
            return Err(SignatureError::RepeatedComponent { name: component.to_string() });
        }
        components.push(component);
    }
    Ok(components)
}

/// Whether a message has a signature of this profile, or one that may be meant as such. For callers that decide by what a message is to be
/// verified: nothing is verified here, and `Signature` is not read.
///
/// # Errors
/// When `Signature-Input` cannot be read, so that it is not known what it was to say.
pub fn is_signed(fields: &[Field<'_>]) -> Result<bool, SignatureError> {
    input(fields).map(|found| found.is_some())
}
