//! The one route table. The README's table is made from it, and a test compares it with Docker's specification.

use hyper::Method;

use crate::handlers::{containers, exec, images, networks, streams, system, volumes};
use crate::route::Action::{Change, NeverSwarm, NoManager, NoSwarm, NotYet, Run};
use crate::route::Verb::{Delete, Get, Head, Post, Put};
use crate::route::{Action, Coverage, Route, Verb};

const fn route(verb: Verb, pattern: &'static str, since: u16, action: Action) -> Route {
    Route {
        verb,
        pattern,
        since,
        action,
    }
}

/// Every endpoint, the first match wins: fixed paths stand before those with a name, longer ends before shorter.
#[rustfmt::skip]
static ROUTES: &[Route] = &[
    // System
    route(Head, "/_ping", 40, Run(system::ping)),
    route(Get, "/_ping", 12, Run(system::ping)),
    route(Get, "/version", 12, Run(system::version)),
    route(Get, "/info", 12, Run(system::info)),
    route(Post, "/auth", 12, Run(system::auth)),
    route(Get, "/events", 12, Run(streams::events)),
    route(Get, "/system/df", 25, NotYet),
    route(Post, "/session", 31, NotYet),
    route(Post, "/grpc", 39, NotYet),
    // Containers
    route(Get, "/containers/json", 12, Run(containers::list)),
    route(Post, "/containers/create", 12, Change(containers::create)),
    route(Post, "/containers/prune", 25, NotYet),
    route(Get, "/containers/{id}/attach/ws", 12, NotYet),
    route(Get, "/containers/{id}/json", 12, Run(containers::inspect)),
    route(Get, "/containers/{id}/top", 12, Run(containers::top)),
    route(Get, "/containers/{id}/logs", 12, Run(streams::logs)),
    route(Get, "/containers/{id}/changes", 12, NotYet),
    route(Get, "/containers/{id}/export", 12, NotYet),
    route(Get, "/containers/{id}/stats", 17, NotYet),
    route(Head, "/containers/{id}/archive", 20, NotYet),
    route(Get, "/containers/{id}/archive", 20, NotYet),
    route(Put, "/containers/{id}/archive", 20, NotYet),
    route(Get, "/containers/{id}/checkpoints", 25, NotYet),
    route(Post, "/containers/{id}/checkpoints", 25, NotYet),
    route(Post, "/containers/{id}/resize", 15, Change(containers::resize)),
    route(Post, "/containers/{id}/start", 12, Change(containers::start)),
    route(Post, "/containers/{id}/stop", 12, Change(containers::stop)),
    route(Post, "/containers/{id}/restart", 12, Change(containers::restart)),
    route(Post, "/containers/{id}/kill", 12, Change(containers::kill)),
    route(Post, "/containers/{id}/update", 22, NotYet),
    route(Post, "/containers/{id}/rename", 17, Change(containers::rename)),
    route(Post, "/containers/{id}/pause", 12, Change(containers::pause)),
    route(Post, "/containers/{id}/unpause", 12, Change(containers::unpause)),
    route(Post, "/containers/{id}/attach", 12, Run(streams::attach)),
    route(Post, "/containers/{id}/wait", 12, Run(containers::wait)),
    route(Post, "/containers/{id}/exec", 15, Change(exec::create)),
    route(Delete, "/containers/{id}", 12, Change(containers::remove)),
    // Execs
    route(Get, "/exec/{id}/json", 16, Run(exec::inspect)),
    route(Post, "/exec/{id}/start", 15, Run(exec::start)),
    route(Post, "/exec/{id}/resize", 15, Change(exec::resize)),
    // Images
    route(Get, "/images/json", 12, Run(images::list)),
    route(Get, "/images/search", 12, NotYet),
    route(Get, "/images/get", 15, NotYet),
    route(Post, "/images/create", 12, Run(images::create)),
    route(Post, "/images/load", 12, Run(images::load)),
    route(Post, "/images/prune", 25, NotYet),
    route(Get, "/images/{name}/get", 12, NotYet),
    route(Get, "/images/{name}/history", 12, Run(images::history)),
    route(Get, "/images/{name}/json", 12, Run(images::inspect)),
    route(Post, "/images/{name}/push", 12, NotYet),
    route(Post, "/images/{name}/tag", 12, Change(images::tag)),
    route(Delete, "/images/{name}", 12, Change(images::remove)),
    route(Get, "/distribution/{name}/json", 30, NotYet),
    // Build
    route(Post, "/build", 12, NotYet),
    route(Post, "/build/prune", 31, NotYet),
    route(Post, "/build/cancel", 39, NotYet),
    route(Post, "/commit", 12, NotYet),
    // Networks
    route(Get, "/networks", 21, Run(networks::list)),
    route(Get, "/networks/", 21, Run(networks::list)),
    route(Post, "/networks/create", 21, NotYet),
    route(Post, "/networks/prune", 25, NotYet),
    route(Post, "/networks/{id}/connect", 21, NotYet),
    route(Post, "/networks/{id}/disconnect", 21, NotYet),
    route(Get, "/networks/{id}", 21, Run(networks::inspect)),
    route(Delete, "/networks/{id}", 21, NotYet),
    // Volumes
    route(Get, "/volumes", 21, Run(volumes::list)),
    route(Post, "/volumes/create", 21, Change(volumes::create)),
    route(Post, "/volumes/prune", 25, NotYet),
    route(Get, "/volumes/{name}", 21, Run(volumes::inspect)),
    route(Put, "/volumes/{name}", 42, NoManager),
    route(Delete, "/volumes/{name}", 21, Change(volumes::remove)),
    // Plugins
    route(Get, "/plugins", 25, Run(system::plugins)),
    route(Get, "/plugins/privileges", 25, NotYet),
    route(Post, "/plugins/pull", 25, NotYet),
    route(Post, "/plugins/create", 25, NotYet),
    route(Get, "/plugins/{name}/json", 25, NotYet),
    route(Post, "/plugins/{name}/enable", 25, NotYet),
    route(Post, "/plugins/{name}/disable", 25, NotYet),
    route(Post, "/plugins/{name}/push", 25, NotYet),
    route(Post, "/plugins/{name}/set", 25, NotYet),
    route(Post, "/plugins/{name}/upgrade", 26, NotYet),
    route(Delete, "/plugins/{name}", 25, NotYet),
    // Swarm: as an engine that is in none
    route(Get, "/swarm", 24, NoManager),
    route(Get, "/swarm/unlockkey", 24, NoManager),
    route(Post, "/swarm/init", 24, NeverSwarm),
    route(Post, "/swarm/join", 24, NeverSwarm),
    route(Post, "/swarm/leave", 24, NoSwarm),
    route(Post, "/swarm/update", 24, NoManager),
    route(Post, "/swarm/unlock", 24, NoManager),
    route(Get, "/nodes", 24, NoManager),
    route(Post, "/nodes/{id}/update", 24, NoManager),
    route(Get, "/nodes/{id}", 24, NoManager),
    route(Delete, "/nodes/{id}", 24, NoManager),
    route(Get, "/services", 24, NoManager),
    route(Post, "/services/create", 24, NoManager),
    route(Post, "/services/{id}/update", 24, NoManager),
    route(Get, "/services/{id}/logs", 25, NoManager),
    route(Get, "/services/{id}", 24, NoManager),
    route(Delete, "/services/{id}", 24, NoManager),
    route(Get, "/tasks", 24, NoManager),
    route(Get, "/tasks/{id}/logs", 29, NoManager),
    route(Get, "/tasks/{id}", 24, NoManager),
    route(Get, "/secrets", 25, NoManager),
    route(Post, "/secrets/create", 25, NoManager),
    route(Post, "/secrets/{id}/update", 25, NoManager),
    route(Get, "/secrets/{id}", 25, NoManager),
    route(Delete, "/secrets/{id}", 25, NoManager),
    route(Get, "/configs", 30, NoManager),
    route(Post, "/configs/create", 30, NoManager),
    route(Post, "/configs/{id}/update", 30, NoManager),
    route(Get, "/configs/{id}", 30, NoManager),
    route(Delete, "/configs/{id}", 30, NoManager),
];

/// The route of a request, and the name in its path.
pub(crate) fn find(method: &Method, path: &str) -> Option<(&'static Route, String)> {
    ROUTES
        .iter()
        .find_map(|route| route.matches(method, path).map(|name| (route, name)))
}

/// One row of the README's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    /// `GET`, …
    pub verb: &'static str,
    /// `/containers/{id}/json`.
    pub path: &'static str,
    /// First API version that has it.
    pub since: String,
    /// How far it is there.
    pub coverage: Coverage,
}

/// Every endpoint and how far it is there, in the table's order.
#[must_use]
pub fn route_table() -> Vec<TableRow> {
    let row = |route: &Route| TableRow {
        verb: route.verb.as_str(),
        path: route.pattern,
        since: format!("1.{}", route.since),
        coverage: match route.action {
            Run(_) | Change(_) => Coverage::Served,
            NotYet => Coverage::NotYet,
            NoManager | NoSwarm | NeverSwarm => Coverage::Inactive,
        },
    };
    ROUTES.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn found(method: &Method, path: &str) -> Option<(&'static str, String)> {
        find(method, path).map(|(route, name)| (route.pattern, name))
    }

    /// Docker's specification, `../shared/spec` beside a checkout.
    fn spec() -> Option<BTreeSet<(String, String)>> {
        let near = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|dir| dir.join("shared/spec/engine-api-v1.51.yaml"));
        let Some(text) = near.filter_map(|path| fs::read_to_string(path).ok()).next() else {
            println!("skipped: ../shared/spec is not there");
            return None;
        };
        let mut operations = BTreeSet::new();
        let mut path = String::new();
        for line in text.lines().skip_while(|line| *line != "paths:").skip(1) {
            let at = line.len() - line.trim_start().len();
            let word = line.trim().trim_end_matches(':').trim_matches('"');
            match at {
                0 if !line.is_empty() && !line.starts_with('#') => break,
                2 if word.starts_with('/') => word.clone_into(&mut path),
                4 if ["get", "head", "post", "put", "delete"].contains(&word) => {
                    operations.insert((word.to_uppercase(), path.clone()));
                }
                _ => {}
            }
        }
        Some(operations)
    }

    #[test]
    fn every_operation_of_the_specification_is_in_the_table() {
        let Some(spec) = spec() else { return };
        assert_eq!(spec.len(), 107, "operations read");
        let table: BTreeSet<(String, String)> = route_table()
            .into_iter()
            .map(|row| (row.verb.to_owned(), row.path.to_owned()))
            .collect();
        let missing: Vec<_> = spec.difference(&table).collect();
        assert!(missing.is_empty(), "{missing:?}");
        // What dockerd serves without specifying it.
        let more: Vec<_> = table
            .difference(&spec)
            .map(|(_, path)| path.as_str())
            .collect();
        let checkpoints = "/containers/{id}/checkpoints";
        let wanted = [
            checkpoints,
            "/networks/",
            "/build/cancel",
            checkpoints,
            "/grpc",
        ];
        assert_eq!(more, wanted);
    }

    #[test]
    fn no_row_stands_twice_and_each_is_reached_by_its_own_pattern() {
        for row in route_table() {
            let path = row.path.replace("{id}", "some").replace("{name}", "some");
            let method = Method::from_bytes(row.verb.as_bytes()).unwrap();
            let (pattern, _) = found(&method, &path).unwrap();
            assert_eq!(pattern, row.path);
        }
    }

    #[test]
    fn names_with_slashes_find_their_route() {
        let image = |path| found(&Method::GET, path).unwrap();
        assert_eq!(
            image("/images/a/b:c/json"),
            ("/images/{name}/json", "a/b:c".to_owned())
        );
        assert_eq!(image("/images/json"), ("/images/json", String::new()));
        assert_eq!(
            image("/containers/x/attach/ws").0,
            "/containers/{id}/attach/ws"
        );
        let delete = found(&Method::DELETE, "/images/host:5000/a/b@sha256:0").unwrap();
        assert_eq!(
            delete,
            ("/images/{name}", "host:5000/a/b@sha256:0".to_owned())
        );
    }

    #[test]
    fn unknown_paths_and_wrong_methods_find_nothing() {
        for (method, path) in [
            (Method::PUT, "/version"),
            (Method::GET, "/"),
            (Method::GET, "/nope"),
            (Method::GET, "/version/"),
            (Method::PATCH, "/info"),
            (Method::HEAD, "/containers/create"),
            (Method::HEAD, "/info"),
            (Method::GET, "/containers//json"),
        ] {
            assert_eq!(found(&method, path), None, "{method} {path}");
        }
        assert!(found(&Method::HEAD, "/_ping").is_some());
    }
}
