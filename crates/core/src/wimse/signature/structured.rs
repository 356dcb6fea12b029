//! Structured fields (RFC 9651) of several lines.

use std::fmt;

use sfv::visitor::{DictionaryVisitor, EntryVisitor};
use sfv::{Dictionary, FieldType, InnerList, Item, KeyRef, ListSerializer, Parser};

use super::MAX_FIELD_LENGTH;
use crate::wimse::Field;
use crate::wimse::message::lines;

/// A field that is no dictionary, is too long, or has a key twice.
#[derive(Debug)]
pub(super) struct NotDictionary;

/// The dictionary in all lines of the field `name`, empty where there is none. A key that is there twice is refused, since readers
/// differ in which of them counts; labels of signatures are unique (RFC 9421, section 4.1).
pub(super) fn dictionary(fields: &[Field<'_>], name: &str) -> Result<Dictionary, NotDictionary> {
    let length: usize = lines(fields, name).map(<[u8]>::len).sum();
    if length > MAX_FIELD_LENGTH {
        return Err(NotDictionary);
    }
    let mut read = Dictionary::new();
    for line in lines(fields, name) {
        read = Parser::new(line).parse_dictionary_with_visitor(Once(read)).map_err(|_| NotDictionary)?;
    }
    Ok(read)
}

/// An item as it stands in a signature base.
pub(super) fn item_text(item: &Item) -> String {
    item.serialize()
}

/// An inner list with its parameters as it stands in a signature base.
pub(super) fn list_text(list: &InnerList) -> String {
    let mut text = String::new();
    let mut list_writer = ListSerializer::with_buffer(&mut text);
    let mut writer = list_writer.inner_list();
    writer.items(&list.items);
    let _ = writer.finish().parameters(&list.params);
    text
}

/// Reads a dictionary whose keys are there once.
struct Once(Dictionary);

#[derive(Debug)]
struct Twice;

impl<'de> DictionaryVisitor<'de> for Once {
    type Out = Dictionary;
    type Error = Twice;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Twice> {
        if self.0.contains_key(key.as_str()) {
            return Err(Twice);
        }
        DictionaryVisitor::entry(&mut self.0, key).map_err(|never| match never {})
    }

    fn finish(self) -> Result<Dictionary, Twice> {
        Ok(self.0)
    }
}

impl fmt::Display for Twice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key is there twice")
    }
}

impl std::error::Error for Twice {}
