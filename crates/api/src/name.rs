//! Container names: what is allowed.

/// The rule, as error messages quote it.
const RULE: &str = "[a-zA-Z0-9][a-zA-Z0-9_.-]";

/// A name that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid container name ({0}), only {RULE} are allowed")]
pub struct NameError(String);

impl NameError {
    /// The same about the name with a slash before it, as dockerd keeps it.
    #[must_use]
    pub fn slashed(self) -> Self {
        if self.0.starts_with('/') {
            self
        } else {
            Self(format!("/{}", self.0))
        }
    }
}

/// Checks a container's name and takes one leading slash off it.
///
/// # Errors
/// When the rest is not at least two characters of the rule, or begins with one of `_.-`.
pub fn container_name(name: &str) -> Result<&str, NameError> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let mut others = 0;
    let rest = bytes.all(|b| {
        others += 1;
        b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')
    });
    if first && rest && others > 0 {
        Ok(bare)
    } else {
        Err(NameError(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_characters_of_the_rule_after_one_slash() {
        for (name, wanted) in [("ab", "ab"), ("/web_1.x-y", "web_1.x-y"), ("0a", "0a")] {
            assert_eq!(container_name(name), Ok(wanted));
        }
        for name in ["", "a", "/a", "//ab", "-ab", ".ab", "a b", "aé", "a/b"] {
            let told = container_name(name).unwrap_err().to_string();
            let wanted = format!(
                "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            );
            assert_eq!(told, wanted);
        }
    }
}
