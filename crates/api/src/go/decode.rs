//! Reading JSON as Go's decoder does: a serde deserializer over a parsed value.
//!
//! Plain `#[derive(Deserialize)]` types get Go's rules from here: struct keys match in any case, unknown keys are
//! ignored, `null` is the zero value, and a mismatch is told in Go's words (those of Go 1.27, checked against
//! dockerd's answers).

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_json::Value;

use super::syntax;
use super::type_name::{go_type, root_name};

/// Why a body could not be read, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing there at all.
    #[error("got EOF while reading request body")]
    Empty,
    /// Not JSON.
    #[error("{0}")]
    Syntax(String),
    /// JSON, but a value does not fit its field.
    #[error("json: cannot unmarshal {0}")]
    Mismatch(String),
    /// More after the value.
    #[error("unexpected content after JSON")]
    Trailing,
}

/// Reads one JSON value and nothing else.
///
/// # Errors
/// When there is none, it is not JSON, it does not fit, or something follows it.
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, DecodeError> {
    decode_value(&parse(json)?)
}

/// Reads the first JSON value and ignores what follows it, as Go's stream decoder does.
///
/// # Errors
/// As [`decode`], but for what follows.
pub fn decode_first<T: DeserializeOwned>(json: &[u8]) -> Result<T, DecodeError> {
    decode_value(&first(json)?.0)
}

/// Parses without a target type, for bodies that are looked at twice.
///
/// # Errors
/// When there is nothing, it is not JSON, or something follows it.
pub fn parse(json: &[u8]) -> Result<Value, DecodeError> {
    match first(json)? {
        (value, rest) if rest.trim_ascii().is_empty() => Ok(value),
        _ => Err(DecodeError::Trailing),
    }
}

/// The first value and what follows it.
fn first(json: &[u8]) -> Result<(Value, &[u8]), DecodeError> {
    if json.trim_ascii().is_empty() {
        return Err(DecodeError::Empty);
    }
    // As Go's decoder: the first value is judged before what follows it.
    let mut values = serde_json::Deserializer::from_slice(json).into_iter::<Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) => return Err(DecodeError::Syntax(syntax::message(json, &error))),
        None => return Err(DecodeError::Empty),
    };
    let rest = &json[values.byte_offset()..];
    Ok((value, rest))
}

/// Reads a parsed value by Go's rules.
///
/// # Errors
/// When it does not fit.
pub fn decode_value<T: DeserializeOwned>(value: &Value) -> Result<T, DecodeError> {
    T::deserialize(Go {
        value,
        path: Path::Root(""),
    })
}

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Mismatch(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::Mismatch(format!(
            "{} into Go value of type {wanted}",
            unexpected_kind(&found)
        ))
    }
}

fn unexpected_kind(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "bool",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "number",
        Unexpected::Seq => "array",
        Unexpected::Map => "object",
        _ => "string",
    }
}

/// Where in the document a value stands.
#[derive(Clone, Copy)]
enum Path<'p> {
    /// Go's name of the whole, as far as it stands in texts.
    Root(&'static str),
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root(name) => f.write_str(name),
            Path::Key(parent, key) => {
                write!(f, "{parent}.{}", key.replace('~', "~0").replace('/', "~1"))
            }
            Path::Index(parent, index) => write!(f, "{parent}.{index}"),
        }
    }
}

#[derive(Clone, Copy)]
struct Go<'de, 'p> {
    value: &'de Value,
    path: Path<'p>,
}

impl<'de> Go<'de, '_> {
    /// The error for a value that does not fit a `T`.
    fn mismatch<T>(&self) -> DecodeError {
        let found = match self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
            Value::Number(number) if is_number::<T>() => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
        };
        let wanted = go_type::<T>();
        DecodeError::Mismatch(match self.path {
            Path::Root(_) => format!("{found} into Go value of type {wanted}"),
            path => format!("{found} into Go struct field {path} of type {wanted}"),
        })
    }

    fn signed<T>(&self) -> Result<i64, DecodeError> {
        match self.value {
            Value::Null => Ok(0),
            value => value.as_i64().ok_or_else(|| self.mismatch::<T>()),
        }
    }

    fn unsigned<T>(&self) -> Result<u64, DecodeError> {
        match self.value {
            Value::Null => Ok(0),
            value => value.as_u64().ok_or_else(|| self.mismatch::<T>()),
        }
    }
}

fn is_number<T>() -> bool {
    let name = go_type::<T>();
    name.starts_with("int") || name.starts_with("uint") || name.starts_with("float")
}

/// Integers: read wide, then narrowed with Go's message for those that do not fit.
macro_rules! integers {
    ($($method:ident, $visit:ident, $wide:ident, $narrow:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let wide = self.$wide::<$narrow>()?;
            visitor.$visit(<$narrow>::try_from(wide).map_err(|_| self.mismatch::<$narrow>())?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Go<'de, '_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => visitor.visit_u64(value),
                (None, Some(value)) => visitor.visit_i64(value),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items {
                items,
                next: 0,
                path: self.path,
            }),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.mismatch::<V::Value>()),
        }
    }

    integers! {
        deserialize_i8, visit_i8, signed, i8;
        deserialize_i16, visit_i16, signed, i16;
        deserialize_i32, visit_i32, signed, i32;
        deserialize_i64, visit_i64, signed, i64;
        deserialize_u8, visit_u8, unsigned, u8;
        deserialize_u16, visit_u16, unsigned, u16;
        deserialize_u32, visit_u32, unsigned, u32;
        deserialize_u64, visit_u64, unsigned, u64;
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_f64(0.0),
            value => visitor.visit_f64(value.as_f64().ok_or_else(|| self.mismatch::<V::Value>())?),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_borrowed_str(""),
            Value::String(text) => visitor.visit_borrowed_str(text),
            _ => Err(self.mismatch::<V::Value>()),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.value.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let items: &[Value] = match self.value {
            Value::Null => &[],
            Value::Array(items) => items,
            _ => return Err(self.mismatch::<V::Value>()),
        };
        visitor.visit_seq(Items {
            items,
            next: 0,
            path: self.path,
        })
    }

    /// Go's arrays: what is missing is zero, what is too much is dropped.
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let items: &[Value] = match self.value {
            Value::Null => &[],
            Value::Array(items) => items,
            _ => return Err(self.mismatch::<V::Value>()),
        };
        visitor.visit_seq(Tuple {
            items,
            next: 0,
            len,
            path: self.path,
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let mut entries: Vec<(&str, &Value)> = Vec::new();
        match self.value {
            Value::Null => {}
            Value::Object(map) => {
                entries.extend(map.iter().map(|(key, value)| (key.as_str(), value)))
            }
            _ => return Err(self.mismatch::<V::Value>()),
        }
        visitor.visit_map(Entries {
            entries: entries.into_iter(),
            current: None,
            path: self.path,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let mut found: Vec<Option<&Value>> = vec![None; fields.len()];
        match self.value {
            Value::Null => {}
            Value::Object(map) => {
                for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
                    let exact = fields.iter().position(|field| field == key);
                    let at = exact.or_else(|| {
                        fields
                            .iter()
                            .position(|field| field.eq_ignore_ascii_case(key))
                    });
                    if let Some(at) = at {
                        found[at] = Some(value);
                    }
                }
            }
            _ => return Err(self.mismatch::<V::Value>()),
        }
        let entries: Vec<(&str, &Value)> = fields
            .iter()
            .zip(found)
            .filter_map(|(field, value)| Some((*field, value?)))
            .collect();
        let path = match self.path {
            Path::Root(_) => Path::Root(root_name::<V::Value>()),
            deeper => deeper,
        };
        visitor.visit_map(Entries {
            entries: entries.into_iter(),
            current: None,
            path,
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => Err(self.mismatch::<String>()),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple_struct identifier
    }
}

struct Items<'de, 'p> {
    items: &'de [Value],
    next: usize,
    path: Path<'p>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some(value) = self.items.get(self.next) else {
            return Ok(None);
        };
        let path = Path::Index(&self.path, self.next);
        self.next += 1;
        seed.deserialize(Go { value, path }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

struct Tuple<'de, 'p> {
    items: &'de [Value],
    next: usize,
    len: usize,
    path: Path<'p>,
}

impl<'de> SeqAccess<'de> for Tuple<'de, '_> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        if self.next == self.len {
            return Ok(None);
        }
        let value = self.items.get(self.next).unwrap_or(&Value::Null);
        let path = Path::Index(&self.path, self.next);
        self.next += 1;
        seed.deserialize(Go { value, path }).map(Some)
    }
}

struct Entries<'de, 'p> {
    entries: std::vec::IntoIter<(&'de str, &'de Value)>,
    current: Option<(&'de str, &'de Value)>,
    path: Path<'p>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = DecodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        self.current = self.entries.next();
        match self.current {
            Some((key, _)) => seed.deserialize(key.into_deserializer()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, DecodeError> {
        let (key, value) = self
            .current
            .take()
            .ok_or_else(|| DecodeError::custom("a value before its key"))?;
        let path = Path::Key(&self.path, key);
        seed.deserialize(Go { value, path })
    }
}
