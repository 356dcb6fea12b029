//! HTTP messages as far as proofs go: borrowed parts, so that whatever parsed a message can hand it in.

use std::fmt;

/// A field line: its name in any case, and its value. Of fields that occur several times, each line is one.
pub type Field<'a> = (&'a str, &'a [u8]);

/// A request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// As it was sent; case is significant.
    pub method: &'a str,
    /// The path of its target, before percent-decoding. Empty stands for `/`.
    pub path: &'a str,
    /// The query of its target, without `?`. A target that ends in `?` has an empty one.
    pub query: Option<&'a str>,
    /// `host:port` of its target. `CONNECT` has nothing else; of other requests it is needed only where a signature covers it.
    /// It never says for whom a proof is: that is configured.
    pub authority: Option<&'a str>,
    /// In their order.
    pub fields: &'a [Field<'a>],
    /// What it carries.
    pub body: Body<'a>,
}

/// A response.
#[derive(Clone, Copy)]
pub struct Response<'a> {
    /// Three digits.
    pub status: u16,
    /// In their order.
    pub fields: &'a [Field<'a>],
    /// What it carries.
    pub body: Body<'a>,
}

/// The content of a message.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// None, or one of no bytes.
    Empty,
    /// All of it.
    Bytes(&'a [u8]),
    /// The SHA-256 of content of at least one byte, computed by the caller while it arrived. The message must not be processed
    /// before it is verified.
    Sha256([u8; 32]),
}

/// A field that occurs once occurred several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repeated;

/// The only line of the field `name`, without spaces around it; `None` where there is none.
pub(super) fn single<'a>(fields: &'a [Field<'a>], name: &str) -> Result<Option<&'a [u8]>, Repeated> {
    let mut lines = lines(fields, name);
    let first = lines.next();
    if lines.next().is_some() { Err(Repeated) } else { Ok(first) }
}

/// The lines of the field `name` in their order, without spaces around them.
pub(super) fn lines<'a>(fields: &'a [Field<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| trim(value))
}

/// Without optional white space around it (RFC 9110, section 5.6.3).
fn trim(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let to = value.iter().rposition(|byte| !is_space(byte)).map_or(from, |last| last + 1);
    value.get(from..to).unwrap_or_default()
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({:?} {:?}, {} fields)", self.method, self.path, self.fields.len())
    }
}

impl fmt::Debug for Response<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {} fields)", self.status, self.fields.len())
    }
}
