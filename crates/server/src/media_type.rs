//! `Content-Type` by the rules and in the words of Go's `mime.ParseMediaType` (RFC 1521, RFC 2183).

/// The type without its parameters, in lower case.
///
/// # Errors
/// Go's words for what is malformed.
pub(crate) fn parse(text: &str) -> Result<String, &'static str> {
    let base = text.split(';').next().unwrap_or_default();
    let media_type = base.trim().to_ascii_lowercase();
    check(&media_type)?;
    let mut rest = text[base.len()..].trim_start();
    while !rest.is_empty() {
        rest = match parameter(rest) {
            Some(rest) => rest.trim_start(),
            // A semicolon with nothing behind it is nobody's harm.
            None if rest.trim() == ";" => break,
            None => return Err("mime: invalid media parameter"),
        };
    }
    Ok(media_type)
}

fn check(media_type: &str) -> Result<(), &'static str> {
    let (kind, rest) = token(media_type);
    if kind.is_empty() {
        return Err("mime: no media type");
    }
    if rest.is_empty() {
        return Ok(());
    }
    let Some(rest) = rest.strip_prefix('/') else {
        return Err("mime: expected slash after first token");
    };
    match token(rest) {
        ("", _) => Err("mime: expected token after slash"),
        (_, "") => Ok(()),
        _ => Err("mime: unexpected content after media subtype"),
    }
}

/// What stands behind `; name=value`; `None` when that is not what is there.
fn parameter(text: &str) -> Option<&str> {
    let (name, rest) = token(text.strip_prefix(';')?.trim_start());
    let value = rest.trim_start().strip_prefix('=')?.trim_start();
    if name.is_empty() {
        return None;
    }
    if let Some(quoted) = value.strip_prefix('"') {
        return after_quotes(quoted);
    }
    match token(value) {
        ("", _) => None,
        (_, rest) => Some(rest),
    }
}

fn after_quotes(text: &str) -> Option<&str> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(&text[at + 1..]),
            '\r' | '\n' => return None,
            _ => {}
        }
    }
    None
}

/// A token of RFC 2045 and what follows it.
fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_graphic() && !r#"()<>@,;:\"/[]?="#.contains(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from dockerd 28.5.2 (`POST /containers/create` with these headers).
    #[test]
    fn words_are_gos() {
        for (text, wanted) in [
            ("application/json", Ok("application/json")),
            ("APPLICATION/JSON; charset=utf-8", Ok("application/json")),
            (" application/json", Ok("application/json")),
            ("application/json;", Ok("application/json")),
            ("application/json; a=\"b;\\\"c\"", Ok("application/json")),
            ("application", Ok("application")),
            ("", Err("mime: no media type")),
            ("application/", Err("mime: expected token after slash")),
            (
                "application/json, text/plain",
                Err("mime: unexpected content after media subtype"),
            ),
            ("a b", Err("mime: expected slash after first token")),
            ("a/b;charset", Err("mime: invalid media parameter")),
        ] {
            assert_eq!(parse(text), wanted.map(str::to_owned), "{text}");
        }
    }
}
