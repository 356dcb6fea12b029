//! Reads selected parts of a JSON document. Everything else is skipped without being built, so that the memory used depends
//! only on the selected parts.

use countersign_reasons::Reason;
use std::{borrow::Cow, cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, value::RawValue};

/// The part of a value that is read. A list in place of an object becomes an empty list, and the other way round, so that its
/// type remains visible; other values are read as they are.
#[derive(Debug)]
pub(crate) enum Part {
    /// The whole value.
    Whole,
    /// A string of at most this many bytes, a number or a boolean.
    Scalar(usize),
    /// These fields of an object.
    Fields(&'static [(&'static str, Part)]),
    /// The fields of an object whose names the function accepts, and the part of each that is read.
    Entries(fn(&str) -> bool, &'static Part),
    /// The items of a list.
    List(List),
}

/// The part of a list that is read.
#[derive(Debug)]
pub(crate) struct List {
    /// Its path, for messages.
    pub(crate) field: &'static str,
    /// The most items.
    pub(crate) most: usize,
    /// Selects the part of an item by its `name` and `mountPath`; `None`: the item is skipped.
    pub(crate) item: fn(&Value) -> Option<&'static Part>,
}

/// The fields by which items of a list are selected.
static HEAD: Part = Part::Fields(&[("name", Part::Scalar(LONGEST_PATH)), ("mountPath", Part::Scalar(LONGEST_PATH))]);
/// The longest `name` read, in bytes: Kubernetes allows 253 at most.
pub(crate) const LONGEST_NAME: usize = 253;
/// The longest path read, in bytes, as Linux has it.
pub(crate) const LONGEST_PATH: usize = 4096;

/// The most memory for all values built from one document, in bytes (an estimate).
pub(crate) const MOST_MEMORY: usize = 4 * 1024 * 1024;
/// Estimates on 64-bit platforms: the first node of an object, and a value with its entry in a list or object.
const OBJECT: usize = 640;
const VALUE: usize = 96;

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A list has too many items.
    #[error("{field} has {count} items, of which Countersign accepts at most {most}: use fewer")]
    TooMany {
        /// The list.
        field: &'static str,
        /// How many items it has.
        count: usize,
        /// The most items.
        most: usize,
    },
    /// A string is too long.
    #[error("field {field} has a value of {length} bytes, of which Countersign accepts at most {most}: shorten it")]
    TooLong {
        /// The field's name.
        field: String,
        /// Its length.
        length: usize,
        /// The longest length.
        most: usize,
    },
    /// The selected parts need too much memory.
    #[error(
        "what Countersign must read of the object needs more than {} MiB of memory: use fewer containers, volumes, mounts or entries, or shorter ones",
        MOST_MEMORY / (1024 * 1024)
    )]
    TooMuch,
    /// It is not JSON as API servers write it: nested too deeply, or with a duplicate field.
    #[error("the object cannot be read: {0}")]
    Malformed(String),
}

impl Unreadable {
    /// The reason as one word.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooMany { .. } | Self::TooLong { .. } | Self::TooMuch => Reason::LimitExceeded,
            Self::Malformed(_) => Reason::MalformedObject,
        }
    }
}

/// Reads `part` of `document`.
///
/// # Errors
/// When the part exceeds a limit, or is malformed.
pub(crate) fn project(document: &RawValue, part: &'static Part) -> Result<Value, Unreadable> {
    let reader = Reader { left: Cell::new(MOST_MEMORY), limit: Cell::new(None) };
    reader
        .read(document, part, "")
        .map_err(|error| reader.limit.take().unwrap_or_else(|| Unreadable::Malformed(error.to_string())))
}

/// State of reading one document.
struct Reader {
    /// The rest of [`MOST_MEMORY`].
    left: Cell<usize>,
    /// The limit that was exceeded; serde's own error carries only its text.
    limit: Cell<Option<Unreadable>>,
}

impl Reader {
    fn read(&self, raw: &RawValue, part: &'static Part, field: &str) -> Result<Value, serde_json::Error> {
        let mut document = serde_json::Deserializer::from_str(raw.get());
        PartSeed { reader: self, part, field }.deserialize(&mut document)
    }

    fn exceeded<E: Error>(&self, limit: Unreadable) -> E {
        let error = E::custom(&limit);
        self.limit.set(Some(limit));
        error
    }

    fn charge<E: Error>(&self, bytes: usize) -> Result<(), E> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(self.exceeded(Unreadable::TooMuch)),
        }
    }
}

/// Reads a part of the next value.
#[derive(Clone, Copy)]
struct PartSeed<'a> {
    reader: &'a Reader,
    part: &'static Part,
    /// The field's name, for messages.
    field: &'a str,
}

impl<'de> DeserializeSeed<'de> for PartSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.reader.charge(VALUE)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PartSeed<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        let most = match self.part {
            Part::Scalar(most) => *most,
            _ => usize::MAX,
        };
        if text.len() > most {
            let field = self.field.chars().take(LONGEST_NAME).collect();
            return Err(self.reader.exceeded(Unreadable::TooLong { field, length: text.len(), most }));
        }
        self.reader.charge(text.len())?;
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        match self.part {
            Part::Whole => {
                let mut read = Vec::new();
                while let Some(item) = items.next_element_seed(self)? {
                    read.push(item);
                }
                Ok(Value::Array(read))
            }
            Part::List(list) => self.list(list, items),
            Part::Scalar(_) | Part::Fields(_) | Part::Entries(..) => {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value::Array(vec![]))
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(chosen) = entries.next_key_seed(KeySeed(self.part))? {
            let Some((key, part)) = chosen else {
                entries.next_value::<IgnoredAny>()?;
                continue;
            };
            if read.contains_key(&*key) {
                return Err(A::Error::custom(format_args!("field {key} is there twice")));
            }
            self.reader.charge(key.len() + if read.is_empty() { OBJECT } else { 0 })?;
            let value = entries.next_value_seed(PartSeed { reader: self.reader, part, field: &key })?;
            read.insert(key.into_owned(), value);
        }
        Ok(Value::Object(read))
    }
}

impl PartSeed<'_> {
    fn list<'de, A: SeqAccess<'de>>(self, list: &List, mut items: A) -> Result<Value, A::Error> {
        let (mut read, mut count) = (Vec::new(), 0);
        while let Some(item) = items.next_element::<&'de RawValue>()? {
            count += 1;
            if count > list.most {
                while items.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                let limit = Unreadable::TooMany { field: list.field, count, most: list.most };
                return Err(self.reader.exceeded(limit));
            }
            // The fields used for selection are not kept, so they are not charged.
            let left = self.reader.left.get();
            let head = self.reader.read(item, &HEAD, list.field).map_err(A::Error::custom)?;
            self.reader.left.set(left);
            if let Some(part) = (list.item)(&head) {
                read.push(self.reader.read(item, part, list.field).map_err(A::Error::custom)?);
            }
        }
        Ok(Value::Array(read))
    }
}

/// Reads a field's name and selects its part; `None`: the field is skipped.
struct KeySeed(&'static Part);

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Option<(Cow<'de, str>, &'static Part)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Option<(Cow<'de, str>, &'static Part)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.part_of(key).map(|part| (Cow::Owned(key.to_owned()), part)))
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(self.part_of(key).map(|part| (Cow::Borrowed(key), part)))
    }
}

impl KeySeed {
    /// The part of the field `key` that is read.
    fn part_of(&self, key: &str) -> Option<&'static Part> {
        match self.0 {
            Part::Whole => Some(self.0),
            Part::Fields(fields) => fields.iter().find(|(name, _)| *name == key).map(|(_, part)| part),
            Part::Entries(is_read, part) => is_read(key).then_some(*part),
            Part::Scalar(_) | Part::List(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::RawValue};

    use super::{List, MOST_MEMORY, Part, Unreadable, project};

    static PART: Part = Part::Fields(&[
        ("name", Part::Scalar(8)),
        ("whole", Part::Whole),
        ("marks", Part::Entries(|key| key.starts_with("our/"), &Part::Scalar(8))),
        ("list", Part::List(LIST)),
    ]);
    const LIST: List = List { field: "list", most: 3, item: |head| (head["name"] != "skipped").then_some(&ITEM) };
    static ITEM: Part = Part::Fields(&[("name", Part::Scalar(8))]);

    fn read(document: &str) -> Result<Value, Unreadable> {
        project(serde_json::from_str::<&RawValue>(document).expect("JSON"), &PART)
    }

    #[test]
    fn only_what_is_named_is_built() {
        let document = json!({
            "name": "n", "other": [[{}]], "whole": { "a": [1, -1, 1.5, null, true, "x"] },
            "marks": { "our/a": "1", "their/b": "2" },
            "list": [{ "other": {}, "name": "a" }, { "name": "skipped" }, 7],
        });
        let expected = json!({
            "name": "n", "whole": { "a": [1, -1, 1.5, null, true, "x"] },
            "marks": { "our/a": "1" }, "list": [{ "name": "a" }, 7],
        });
        assert_eq!(read(&document.to_string()), Ok(expected));
    }

    #[test]
    fn a_value_of_another_type_keeps_its_type() {
        let document = json!({ "name": [1], "marks": 5, "list": { "name": "a" } });
        assert_eq!(read(&document.to_string()), Ok(json!({ "name": [], "marks": 5, "list": {} })));
        assert_eq!(read("[1]"), Ok(json!([])));
    }

    #[test]
    fn a_list_that_is_too_long_is_counted_and_not_built() {
        let list = |count: usize| json!({ "list": vec![json!({ "name": "skipped" }); count] }).to_string();
        assert_eq!(read(&list(3)), Ok(json!({ "list": [] })));
        assert_eq!(read(&list(9)), Err(Unreadable::TooMany { field: "list", count: 9, most: 3 }));
    }

    #[test]
    fn a_text_that_is_too_long_names_its_field() {
        let expected = Unreadable::TooLong { field: "name".into(), length: 9, most: 8 };
        assert_eq!(read(r#"{"name":"123456789"}"#), Err(expected));
        assert!(read(r#"{"name":"12345678"}"#).is_ok());
    }

    #[test]
    fn what_is_built_is_bounded_however_it_is_written() {
        let repeated = |item: &str| format!(r#"{{"whole":[{}1]}}"#, format!("{item},").repeat(MOST_MEMORY / 96));
        for item in ["1", "{}", "[]", "null", r#""a""#, r#"{"a":1}"#, "[[1]]"] {
            assert_eq!(read(&repeated(item)), Err(Unreadable::TooMuch), "{item}");
        }
        let text = format!(r#"{{"whole":"{}"}}"#, "a".repeat(MOST_MEMORY));
        assert_eq!(read(&text), Err(Unreadable::TooMuch));
        let fields: Vec<String> = (0..MOST_MEMORY / 96).map(|index| format!(r#""{index}":1"#)).collect();
        assert_eq!(read(&format!(r#"{{"whole":{{{}}}}}"#, fields.join(","))), Err(Unreadable::TooMuch));
        assert!(read(&format!(r#"{{"other":{}}}"#, repeated(r#"{"a":1}"#))).is_ok(), "what is skipped costs nothing");
    }

    // An API server writes each field once. A duplicate of a skipped field has no effect.
    #[test]
    fn a_field_that_is_there_twice_is_refused_where_it_is_read() {
        for document in [
            r#"{"name":"a","name":"b"}"#,
            r#"{"whole":{"a":1,"a":2}}"#,
            r#"{"list":[{"name":"a","name":"b"}]}"#,
            r#"{"marks":{"our/a":"1","our/a":"2"}}"#,
        ] {
            assert_eq!(read(document).expect_err(document).reason().name(), "MalformedObject");
        }
        assert_eq!(read(r#"{"other":1,"other":{"a":1,"a":2}}"#), Ok(json!({})));
    }

    #[test]
    fn depth_is_bounded_where_it_is_read_and_costs_nothing_where_it_is_skipped() {
        let deep = |field: &str| format!(r#"{{"{field}":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(&deep("whole")).expect_err("too deep").reason().name(), "MalformedObject");
        assert_eq!(read(&deep("other")), Ok(json!({})));
        assert_eq!(read(&deep("name")), Ok(json!({ "name": [] })));
    }
}
