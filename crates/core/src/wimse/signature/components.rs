//! What a signature covers: components of a message (RFC 9421, section 2), and which of them the profile asks for.

use std::borrow::Cow;
use std::fmt;

use sfv::{Item, Parameters, key_ref};

use super::CONTENT_DIGEST_FIELD;
use crate::jws::quoted;
use crate::wimse::message::lines;
use crate::wimse::{AUTHORIZATION_FIELD, Field, Request, Response, TXN_TOKEN_FIELD, WIT_FIELD};

/// The only method without path and query (RFC 9110, section 9.3.6).
const CONNECT: &str = "CONNECT";
const CONTENT_TYPE_FIELD: &str = "content-type";
/// The fields of a request that are covered where they are there.
const REQUEST_FIELDS: [&str; 5] =
    [CONTENT_TYPE_FIELD, CONTENT_DIGEST_FIELD, AUTHORIZATION_FIELD, TXN_TOKEN_FIELD, WIT_FIELD];
/// The fields of a response that are covered where they are there.
const RESPONSE_FIELDS: [&str; 3] = [CONTENT_TYPE_FIELD, CONTENT_DIGEST_FIELD, WIT_FIELD];

/// A component of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Component {
    name: Name,
    /// `;req`: of the request that a response answers.
    of_request: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Method,
    Path,
    Query,
    Authority,
    Status,
    /// In lower case.
    Field(String),
}

/// A message that is signed: a request, or a response to one.
#[derive(Clone, Copy)]
pub(super) enum Message<'a> {
    Request(&'a Request<'a>),
    Response(&'a Request<'a>, &'a Response<'a>),
}

impl Component {
    /// `None` when it is not one that can be derived here: `@target-uri`, parts of structured fields and trailers among others.
    pub(super) fn read(item: &Item) -> Option<Self> {
        let name = match item.bare_item.as_string()?.as_str() {
            "@method" => Name::Method,
            "@path" => Name::Path,
            "@query" => Name::Query,
            "@authority" => Name::Authority,
            "@status" => Name::Status,
            field if is_field_name(field) => Name::Field(field.to_owned()),
            _ => return None,
        };
        let of_request = match item.params.first() {
            None => false,
            Some((name, value)) => {
                let is_req = name.as_str() == "req" && value.as_boolean() == Some(true) && item.params.len() == 1;
                is_req.then_some(true)?
            }
        };
        Some(Self { name, of_request })
    }

    /// As it stands in `Signature-Input`. `None` never: every name has a form.
    pub(super) fn item(&self) -> Option<Item> {
        let name = sfv::String::from_string(self.name.as_str().to_owned()).ok()?;
        let mut params = Parameters::new();
        if self.of_request {
            params.insert(key_ref("req").to_owned(), true.into());
        }
        Some(Item::with_params(name, params))
    }

    /// The name of the field of this message that it is.
    pub(super) fn field(&self) -> Option<&str> {
        match &self.name {
            Name::Field(name) if !self.of_request => Some(name),
            _ => None,
        }
    }

    fn of_message(name: Name) -> Self {
        Self { name, of_request: false }
    }

    fn of_request(name: Name) -> Self {
        Self { name, of_request: true }
    }
}

impl Name {
    fn as_str(&self) -> &str {
        match self {
            Self::Method => "@method",
            Self::Path => "@path",
            Self::Query => "@query",
            Self::Authority => "@authority",
            Self::Status => "@status",
            Self::Field(name) => name,
        }
    }

    fn of_target(request: &Request<'_>) -> &'static [Self] {
        if request.method == CONNECT { &[Self::Authority] } else { &[Self::Path, Self::Query] }
    }
}

impl<'a> Message<'a> {
    pub(super) fn fields(&self) -> &'a [Field<'a>] {
        match self {
            Self::Request(request) => request.fields,
            Self::Response(_, response) => response.fields,
        }
    }

    /// What the profile asks a signature to cover (draft-ietf-wimse-http-signature-08, section 3), in the order in which it is
    /// signed here.
    pub(super) fn required(&self) -> Vec<Component> {
        let (mut all, fields) = match self {
            Self::Request(request) => {
                let target = Name::of_target(request).iter().cloned();
                ([Name::Method].into_iter().chain(target).map(Component::of_message).collect(), &REQUEST_FIELDS[..])
            }
            Self::Response(request, _) => {
                let target = [Name::Method].into_iter().chain(Name::of_target(request).iter().cloned());
                let status = [Component::of_message(Name::Status)].into_iter();
                (status.chain(target.map(Component::of_request)).collect::<Vec<_>>(), &RESPONSE_FIELDS[..])
            }
        };
        let is_there = |name: &&&str| lines(self.fields(), name).next().is_some();
        let there = fields.iter().filter(is_there).map(|name| Component::of_message(Name::Field((*name).to_owned())));
        all.extend(there);
        all
    }

    /// Whether the profile forbids to cover it: path and query of `CONNECT`, which has neither.
    pub(super) fn forbids(&self, component: &Component) -> bool {
        let (Self::Request(request) | Self::Response(request, _)) = self;
        request.method == CONNECT && matches!(component.name, Name::Path | Name::Query)
    }

    /// A field that is there several times although it has one value, so that readers differ in which of them counts.
    pub(super) fn repeated_field(&self) -> Option<&'static str> {
        let fields = match self {
            Self::Request(_) => &REQUEST_FIELDS[..],
            Self::Response(..) => &RESPONSE_FIELDS[..],
        };
        let is_repeated = |name: &&&str| **name != CONTENT_DIGEST_FIELD && lines(self.fields(), name).nth(1).is_some();
        fields.iter().find(is_repeated).copied()
    }

    /// The value of a component (RFC 9421, sections 2.1 and 2.2). `None` when the message has none, or one that would break the
    /// lines of a signature base.
    pub(super) fn value(&self, component: &Component) -> Option<Cow<'a, [u8]>> {
        let value = match (self, &component.name, component.of_request) {
            (Self::Request(request), name, false) | (Self::Response(request, _), name, true) => {
                request_value(request, name)?
            }
            (Self::Response(_, response), Name::Status, false) => {
                Cow::Owned(format!("{:03}", response.status).into_bytes())
            }
            (Self::Response(_, response), Name::Field(name), false) => field_value(response.fields, name)?,
            _ => return None,
        };
        (!value.iter().any(|byte| matches!(byte, b'\n' | b'\r'))).then_some(value)
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(self.name.as_str()))?;
        f.write_str(if self.of_request { ";req" } else { "" })
    }
}

fn request_value<'a>(request: &Request<'a>, name: &Name) -> Option<Cow<'a, [u8]>> {
    Some(match name {
        Name::Method => Cow::Borrowed(request.method.as_bytes()),
        Name::Path if request.path.is_empty() => Cow::Borrowed(b"/"),
        Name::Path => Cow::Borrowed(request.path.as_bytes()),
        // The same of an absent one and of an empty one (RFC 9421, section 2.2.7).
        Name::Query => Cow::Owned(format!("?{}", request.query.unwrap_or_default()).into_bytes()),
        Name::Authority => Cow::Owned(request.authority?.to_ascii_lowercase().into_bytes()),
        Name::Status => return None,
        Name::Field(name) => field_value(request.fields, name)?,
    })
}

/// All lines of a field, joined (RFC 9421, section 2.1).
fn field_value<'a>(fields: &'a [Field<'a>], name: &str) -> Option<Cow<'a, [u8]>> {
    let mut lines = lines(fields, name);
    let first = lines.next()?;
    let mut value = Cow::Borrowed(first);
    for line in lines {
        value.to_mut().extend_from_slice(b", ");
        value.to_mut().extend_from_slice(line);
    }
    Some(value)
}

/// A name of a field in lower case (RFC 9110, section 5.1; RFC 9421, section 2.1).
fn is_field_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}
