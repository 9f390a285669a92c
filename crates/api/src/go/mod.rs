//! Go's JSON rules: how dockerd reads what clients send and writes what they read.
//!
//! [`decode`] is Go's `json.Unmarshal` (keys match whatever their case, unknown ones are ignored, `null` is the zero value,
//! errors have Go's words); [`encode`] is dockerd's `WriteJSON`, [`encode_line`] its streams.

mod decode;
mod encode;
mod field;
mod fields;
mod syntax;
mod type_name;

pub use decode::{DecodeError, decode, decode_first, decode_value, parse};
pub use encode::{encode, encode_line};
pub use field::{
    Empty, is_false, is_zero, is_zero_u16, is_zero_u32, is_zero_u64, list_or_empty, none_or_empty,
    none_or_empty_map, string_or_list,
};
pub use fields::field_names;
