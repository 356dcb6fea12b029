//! Fields of an object that the schema accepts and that cannot be used.

use std::fmt;

/// A field that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    /// Where, such as `spec.grants[0].paths[1]`.
    pub field: String,
    /// What is wrong and what to do.
    pub reason: String,
}

/// All fields of an object that cannot be used; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// The errors, in the order of the fields.
    pub fn iter(&self) -> impl Iterator<Item = &FieldError> {
        self.0.iter()
    }
}

impl From<FieldError> for FieldErrors {
    fn from(error: FieldError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, error) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for FieldErrors {}

/// Reads the fields of an object one by one, and keeps what is wrong with each.
#[derive(Debug, Default)]
pub struct FieldReader(Vec<FieldError>);

impl FieldReader {
    /// What was read of a field; `None` where it cannot be used.
    pub fn read<T, E: fmt::Display>(&mut self, field: impl Into<String>, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.refuse(field, error.to_string())).ok()
    }

    /// What was read of each element of a list.
    pub fn list<T, E: fmt::Display>(
        &mut self,
        field: &str,
        texts: &[String],
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let each = texts.iter().enumerate();
        each.filter_map(|(position, text)| self.read(format!("{field}[{position}]"), parse(text))).collect()
    }

    /// Says that a field cannot be used.
    pub fn refuse(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), reason: reason.into() });
    }

    /// The object, where each of its fields can be used.
    ///
    /// # Errors
    /// All fields that cannot.
    pub fn finish<T>(self, object: Option<T>) -> Result<T, FieldErrors> {
        match object {
            Some(object) if self.0.is_empty() => Ok(object),
            _ => Err(FieldErrors(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_cannot_be_used_is_named() {
        let mut reader = FieldReader::default();
        let numbers = reader.list("spec.numbers", &["1", "x", "3", "y"].map(str::to_owned), str::parse::<u8>);
        assert_eq!(numbers, [1, 3]);
        assert_eq!(reader.read("spec.number", "7".parse::<u8>()), Some(7));
        reader.refuse("spec.other", "it is there twice");
        let errors = reader.finish(Some(())).unwrap_err();
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["spec.numbers[1]", "spec.numbers[3]", "spec.other"]);
        assert!(errors.to_string().ends_with("; spec.other: it is there twice"), "{errors}");
    }

    #[test]
    fn an_object_of_good_fields_is_returned() {
        assert_eq!(FieldReader::default().finish(Some(7)), Ok(7));
    }
}
