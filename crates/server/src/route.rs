//! Matching a method and path against the route table.

use hyper::Method;

use crate::request::{Call, Reply};

/// How far a route is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// Works.
    Served,
    /// Answers 501.
    NotYet,
    /// Answers as an engine that is in no swarm.
    Inactive,
}

/// What a route does.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    /// Calls the handler, and drops it when the client goes away.
    Run(fn(Call) -> Reply),
    /// Calls the handler, and lets it end even if the client goes away.
    Change(fn(Call) -> Reply),
    /// Answers 501 with words that name the route.
    NotYet,
    /// Answers 503: needs a swarm manager.
    NoManager,
    /// Answers 503: is in no swarm.
    NoSwarm,
    /// Answers 501: swarm mode does not exist here.
    NeverSwarm,
}

/// Verbs that the API has. HEAD is one of its own, as for dockerd: it is no GET without a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Head,
    Post,
    Put,
    Delete,
}

impl Verb {
    /// As it stands in a request.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    fn accepts(self, method: &Method) -> bool {
        method.as_str() == self.as_str()
    }
}

/// One row of the table.
pub(crate) struct Route {
    /// The verb.
    pub(crate) verb: Verb,
    /// Segments between slashes; at most one `{name}`, which takes one segment or more.
    pub(crate) pattern: &'static str,
    /// First API version that has it, as the number after `1.`.
    pub(crate) since: u16,
    /// What it does.
    pub(crate) action: Action,
}

impl Route {
    /// The captured name (empty when the pattern has none), or `None` when path or method differ.
    pub(crate) fn matches(&self, method: &Method, path: &str) -> Option<String> {
        if !self.verb.accepts(method) {
            return None;
        }
        let (before, after) = match self.pattern.split_once('{') {
            None => return (self.pattern == path).then(String::new),
            Some((before, rest)) => (before, rest.split_once('}').map_or("", |(_, after)| after)),
        };
        let name = path.strip_prefix(before)?.strip_suffix(after)?;
        (!name.is_empty()).then(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &'static str, path: &str) -> Option<String> {
        Route {
            verb: Verb::Get,
            pattern,
            since: 12,
            action: Action::NotYet,
        }
        .matches(&Method::GET, path)
    }

    #[test]
    fn names_hold_slashes_and_are_never_empty() {
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(
            matches("/images/{name}/json", "/images/a/b/c:x/json"),
            some("a/b/c:x")
        );
        assert_eq!(matches("/images/{name}/json", "/images/json"), None);
        assert_eq!(matches("/images/{name}/json", "/images//json"), None);
        assert_eq!(
            matches("/images/{name}", "/images/a@sha256:1"),
            some("a@sha256:1")
        );
        assert_eq!(matches("/info", "/info"), some(""));
        assert_eq!(matches("/info", "/info/"), None);
        assert_eq!(
            matches("/containers/{id}/json", "/containers/json/json"),
            some("json")
        );
    }

    #[test]
    fn head_is_no_get() {
        let route = Route {
            verb: Verb::Get,
            pattern: "/info",
            since: 12,
            action: Action::NotYet,
        };
        assert!(route.matches(&Method::GET, "/info").is_some());
        assert!(route.matches(&Method::HEAD, "/info").is_none());
        assert!(route.matches(&Method::POST, "/info").is_none());
    }
}
