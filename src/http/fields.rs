//! The fields of a JSON object as unparsed text.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    event::{Name, Timestamp, Violation},
    limits::MAX_EVENT_FIELDS,
};

/// The fields that were not removed yet. At most [`MAX_EVENT_FIELDS`] plus one are stored, because
/// a body can have millions. The last field with a name counts, as in most JSON parsers.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Reads the fields of an event.
    pub(super) fn read(text: &'a RawValue) -> Result<Self, Violation> {
        let fields: Self = serde_json::from_str(text.get())
            .map_err(|_| Violation::new("event", "must be a JSON object"))?;
        if fields.0.len() > MAX_EVENT_FIELDS {
            let fault = format!("has more than {MAX_EVENT_FIELDS} fields");
            return Err(Violation::new("event", fault));
        }
        Ok(fields)
    }

    /// Removes a field and returns its text.
    pub(super) fn take(&mut self, field: &str) -> Option<&'a RawValue> {
        let mut found = None;
        self.0.retain(|(name, text)| {
            let matches = name == field;
            if matches {
                found = Some(*text);
            }
            !matches
        });
        found
    }

    /// Removes a field and parses it as a name. Fails if it is missing.
    pub(super) fn name(&mut self, field: &str) -> Result<Name, Violation> {
        match self.take(field) {
            Some(text) => Name::new(field, string(field, text)?),
            None => Err(Violation::new(field, "is missing")),
        }
    }

    /// Removes a field and parses it as a time. None if it is missing or null.
    pub(super) fn time(&mut self, field: &str) -> Result<Option<Timestamp>, Violation> {
        let text = self.take(field).filter(|text| text.get() != "null");
        let time = text.map(|text| {
            string(field, text)?.parse().map_err(|fault: String| Violation::new(field, fault))
        });
        time.transpose()
    }

    /// The names of the remaining fields.
    pub(super) fn rest(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|(field, _)| field.into_owned())
    }

    /// Removes all fields that are null, except one.
    pub(super) fn without_nulls(mut self, except: &str) -> Self {
        self.0.retain(|(name, text)| name == except || text.get() != "null");
        self
    }
}

/// Parses a JSON string.
pub(super) fn string(field: &str, text: &RawValue) -> Result<String, Violation> {
    serde_json::from_str(text.get()).map_err(|_| Violation::new(field, "must be a string"))
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        /// Borrowed, unless it has escapes.
        #[derive(Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut fields = Vec::with_capacity(5);
                while fields.len() <= MAX_EVENT_FIELDS {
                    match map.next_entry()? {
                        Some((Key(name), text)) => fields.push((name, text)),
                        None => return Ok(fields),
                    }
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldsVisitor).map(Fields)
    }
}
