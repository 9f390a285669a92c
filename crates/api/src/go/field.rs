//! Field attributes for the wire types: Go's `omitempty`, and the fields that take more than one form.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Go's `struct{}`: the value of a set's entry, written `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// `omitempty` of a bool.
#[must_use]
pub fn is_false(value: &bool) -> bool {
    !value
}

/// `omitempty` of a signed number.
#[must_use]
pub fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// `omitempty` of a `uint16`.
#[must_use]
pub fn is_zero_u16(value: &u16) -> bool {
    *value == 0
}

/// `omitempty` of a `uint32`.
#[must_use]
pub fn is_zero_u32(value: &u32) -> bool {
    *value == 0
}

/// `omitempty` of a `uint64`.
#[must_use]
pub fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}

/// `omitempty` of a slice.
#[must_use]
pub fn none_or_empty<T>(value: &Option<Vec<T>>) -> bool {
    value.as_ref().is_none_or(Vec::is_empty)
}

/// `omitempty` of a map.
#[must_use]
pub fn none_or_empty_map<K, V>(value: &Option<BTreeMap<K, V>>) -> bool {
    value.as_ref().is_none_or(BTreeMap::is_empty)
}

/// Reads Go's `strslice.StrSlice`: a list of strings, or one string that stands for a list of one.
///
/// # Errors
/// When the value is neither.
pub fn string_or_list<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    from.deserialize_any(Words { empty_forms: false })
}

/// Reads a list of strings, and takes the empty forms of old clients (`""`, `{}`) as an empty one.
///
/// The 2015 tutorials send `"VolumesFrom": {}` or `""`.
///
/// # Errors
/// When the value is anything else.
pub fn list_or_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    from.deserialize_any(Words { empty_forms: true })
}

struct Words {
    empty_forms: bool,
}

impl<'de> Visitor<'de> for Words {
    type Value = Option<Vec<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("string")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Self::Value, E> {
        if self.empty_forms && word.is_empty() {
            return Ok(None);
        }
        Ok(Some(vec![word.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut words = Vec::new();
        let element = || serde::de::Error::custom("array into Go value of type string");
        while let Some(word) = seq.next_element().map_err(|_: A::Error| element())? {
            words.push(word);
        }
        Ok(Some(words))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        if self.empty_forms && map.next_entry::<IgnoredAny, IgnoredAny>()?.is_none() {
            return Ok(None);
        }
        Err(serde::de::Error::custom(
            "object into Go value of type string",
        ))
    }
}
