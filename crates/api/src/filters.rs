//! The `filters` query: both dialects, and how values match.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;

use crate::go;

/// Filters of one request: keys, each with its values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

/// A `filters` query that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not one of the two JSON dialects.
    #[error("invalid filter")]
    Malformed,
    /// A key that this endpoint does not know.
    #[error("invalid filter '{0}'")]
    UnknownKey(String),
    /// A value that cannot stand at this key.
    #[error("invalid filter '{key}={values}'")]
    InvalidValue {
        /// The key.
        key: String,
        /// Its values, as Go prints a list.
        values: String,
    },
}

impl Filters {
    /// Reads the query's value: `{"key":{"value":true}}` or `{"key":["value"]}`; empty means none.
    ///
    /// # Errors
    /// [`FilterError::Malformed`] when it is neither.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        type Map = BTreeMap<String, BTreeMap<String, bool>>;
        type List = BTreeMap<String, Vec<String>>;
        // A value mapped to false counts too: dockerd looks at the keys only.
        let fields = match go::decode::<Map>(text.as_bytes()) {
            Ok(map) => map
                .into_iter()
                .map(|(key, values)| (key, values.into_keys().collect()))
                .collect(),
            Err(_) => go::decode::<List>(text.as_bytes())
                .map_err(|_| FilterError::Malformed)?
                .into_iter()
                .map(|(key, values)| (key, values.into_iter().collect()))
                .collect(),
        };
        Ok(Self(fields))
    }

    /// Adds one value.
    pub fn add(&mut self, key: &str, value: &str) {
        self.0
            .entry(key.to_owned())
            .or_default()
            .insert(value.to_owned());
    }

    /// Whether there is no filter at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the key is there.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The values of a key, sorted.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Checks that every key is one of `accepted`.
    ///
    /// # Errors
    /// [`FilterError::UnknownKey`] with the first that is not.
    pub fn validate(&self, accepted: &[&str]) -> Result<(), FilterError> {
        match self.0.keys().find(|key| !accepted.contains(&key.as_str())) {
            Some(key) => Err(FilterError::UnknownKey(key.clone())),
            None => Ok(()),
        }
    }

    /// Whether `value` is one of the key's values, or the key is not there.
    #[must_use]
    pub fn matches_exactly(&self, key: &str, value: &str) -> bool {
        self.0
            .get(key)
            .is_none_or(|values| values.is_empty() || values.contains(value))
    }

    /// Whether `value` begins with one of the key's values, or the key is not there.
    #[must_use]
    pub fn matches_prefix(&self, key: &str, value: &str) -> bool {
        self.0
            .get(key)
            .is_none_or(|values| values.is_empty() || values.iter().any(|v| value.starts_with(v)))
    }

    /// Compiles the key's values as unanchored regular expressions; one that is invalid matches its own text only.
    #[must_use]
    pub fn pattern(&self, key: &str) -> Pattern {
        let alternatives = self.0.get(key).map(|values| {
            values
                .iter()
                .map(|value| (value.clone(), Regex::new(value).ok()))
                .collect()
        });
        Pattern(alternatives.unwrap_or_default())
    }

    /// Whether all of the key's values, `name` or `name=value`, are in `labels`.
    #[must_use]
    pub fn matches_labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(key).all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        })
    }

    /// The key as a boolean: `None` when it is not there.
    ///
    /// # Errors
    /// [`FilterError::InvalidValue`] unless its one value is `1`, `true`, `0` or `false`.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, FilterError> {
        let Some(values) = self.0.get(key) else {
            return Ok(None);
        };
        let is = |forms: [&str; 2]| forms.iter().any(|form| values.contains(*form));
        match (values.len(), is(["1", "true"]), is(["0", "false"])) {
            (1, true, _) => Ok(Some(true)),
            (1, _, true) => Ok(Some(false)),
            _ => Err(self.invalid_value(key)),
        }
    }

    /// The error for a key whose values cannot be used.
    #[must_use]
    pub fn invalid_value(&self, key: &str) -> FilterError {
        let values: Vec<&str> = self.values(key).collect();
        FilterError::InvalidValue {
            key: key.to_owned(),
            values: format!("[{}]", values.join(" ")),
        }
    }
}

/// Compiled values of one key. Empty: matches everything.
#[derive(Debug, Clone, Default)]
pub struct Pattern(Vec<(String, Option<Regex>)>);

impl Pattern {
    /// Whether one of the values is in `text`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|(literal, regex)| {
                literal == text || regex.as_ref().is_some_and(|regex| regex.is_match(text))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Filters {
        Filters::parse(text).unwrap()
    }

    #[test]
    fn both_dialects_mean_the_same() {
        let list = parse(r#"{"label":["a","b=c"],"status":["exited"]}"#);
        let map = parse(r#"{"label":{"a":true,"b=c":true},"status":{"exited":true}}"#);
        assert_eq!(list, map);
        assert_eq!(list.values("label").collect::<Vec<_>>(), ["a", "b=c"]);
        assert!(parse("").is_empty());
        for bad in ["x", r#"{"dangling":true}"#, "[]"] {
            assert_eq!(
                Filters::parse(bad).unwrap_err().to_string(),
                "invalid filter",
                "{bad}"
            );
        }
    }

    #[test]
    fn unknown_keys_and_bad_booleans_are_told() {
        let filters =
            parse(r#"{"a":["b"],"dangling":["b"],"on":["1"],"off":["false"],"two":["1","0"]}"#);
        assert_eq!(
            filters.validate(&["dangling"]).unwrap_err().to_string(),
            "invalid filter 'a'"
        );
        let told = filters.boolean("dangling").unwrap_err().to_string();
        assert_eq!(told, "invalid filter 'dangling=[b]'");
        assert_eq!(filters.boolean("on"), Ok(Some(true)));
        assert_eq!(filters.boolean("off"), Ok(Some(false)));
        assert_eq!(filters.boolean("absent"), Ok(None));
        assert!(filters.boolean("two").is_err());
    }

    #[test]
    fn names_match_as_unanchored_patterns() {
        let pattern = parse(r#"{"name":["^web[0-9]$","db","a("]}"#).pattern("name");
        for (name, wanted) in [
            ("web1", true),
            ("web12", false),
            ("mydb2", true),
            ("a(", true),
            ("x", false),
        ] {
            assert_eq!(pattern.matches(name), wanted, "{name}");
        }
        assert!(parse("").pattern("name").matches("anything"));
    }

    #[test]
    fn every_wanted_label_must_be_there() {
        let labels = BTreeMap::from([
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), String::new()),
        ]);
        for (filter, wanted) in [
            (r#"{"label":["a"]}"#, true),
            (r#"{"label":["a=1","b"]}"#, true),
            (r#"{"label":["a=2"]}"#, false),
            (r#"{"label":["a","c"]}"#, false),
            ("{}", true),
        ] {
            assert_eq!(
                parse(filter).matches_labels("label", &labels),
                wanted,
                "{filter}"
            );
        }
    }
}
