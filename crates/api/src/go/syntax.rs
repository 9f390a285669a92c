//! Syntax errors in Go's words.

use serde_json::error::Category;

/// Says where `json` stops being JSON, as Go's scanner does.
pub(super) fn message(json: &[u8], error: &serde_json::Error) -> String {
    if error.classify() == Category::Eof {
        return "unexpected EOF".to_owned();
    }
    let at = offset(json, error.line(), error.column());
    let text = error.to_string();
    let context = if text.starts_with("key must be a string") {
        "looking for beginning of object key string"
    } else if text.starts_with("trailing comma") {
        return trailing_comma(json, at);
    } else if text.starts_with("expected `,` or `}`") {
        "after object key:value pair"
    } else if text.starts_with("expected `,` or `]`") {
        "after array element"
    } else if text.starts_with("expected `:`") {
        "after object key"
    } else if text.starts_with("control character") {
        "in string"
    } else if text.starts_with("invalid escape") {
        "in string escape code"
    } else if text.starts_with("invalid number") {
        "in numeric literal"
    } else if text.starts_with("expected ident") {
        return literal(json, at);
    } else if text.starts_with("recursion limit") {
        return "exceeded max depth".to_owned();
    } else {
        "looking for beginning of value"
    };
    format!("invalid character {} {context}", quoted(json, at))
}

/// `true`, `false` or `null` that goes on otherwise.
fn literal(json: &[u8], at: usize) -> String {
    let found = quoted(json, at);
    let begin = json[..at.min(json.len())]
        .iter()
        .rposition(|byte| !byte.is_ascii_lowercase())
        .map_or(0, |before| before + 1);
    let word = match json.get(begin) {
        Some(b't') => "true",
        Some(b'f') => "false",
        Some(b'n') => "null",
        _ => return format!("invalid character {found} looking for beginning of value"),
    };
    match word.get(at - begin..).and_then(|rest| rest.chars().next()) {
        Some(wanted) => {
            format!("invalid character {found} in literal {word} (expecting '{wanted}')")
        }
        None => format!("invalid character {found} in literal {word}"),
    }
}

/// serde_json points at the closing bracket: in an object Go misses a key there, in an array a value.
fn trailing_comma(json: &[u8], at: usize) -> String {
    let context = if json.get(at) == Some(&b'}') {
        "looking for beginning of object key string"
    } else {
        "looking for beginning of value"
    };
    format!("invalid character {} {context}", quoted(json, at))
}

/// serde_json counts lines and columns from 1; a column of 0 is the line's start.
fn offset(json: &[u8], line: usize, column: usize) -> usize {
    let line_start: usize = json
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    line_start + column.saturating_sub(1)
}

/// The character there, as Go's `quoteChar` writes it.
fn quoted(json: &[u8], at: usize) -> String {
    match json.get(at) {
        Some(b'\'') => r"'\''".to_owned(),
        Some(b'"') => "'\"'".to_owned(),
        Some(byte) if byte.is_ascii_graphic() || *byte == b' ' => {
            format!("'{}'", char::from(*byte))
        }
        Some(b'\n') => r"'\n'".to_owned(),
        Some(b'\r') => r"'\r'".to_owned(),
        Some(b'\t') => r"'\t'".to_owned(),
        Some(byte) => format!("'\\x{byte:02x}'"),
        None => "EOF".to_owned(),
    }
}
