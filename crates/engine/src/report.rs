//! What the engine is doing, for a person who wonders why it does not: text, at no cost until somebody asks.

use std::fmt::Write as _;

use crate::Engine;

impl Engine {
    /// Every container with its state and execs, and what is kept ready or under way. Waits for nothing that a stuck
    /// container could hold.
    pub fn report(&self) -> String {
        let inner = self.inner();
        let mut text = String::new();
        let mut line = |words: String| {
            writeln!(text, "{words}").expect("writing to a string");
        };
        line(format!(
            "engine {}: {} tasks",
            inner.id,
            inner.tasks_under_way()
        ));
        line(format!("event listeners: {}", inner.journal.listeners()));
        for container in self.index().all() {
            let snapshot = container.snapshot();
            let facts = &snapshot.facts;
            line(format!(
                "container {} {}: {}, change {}, run {}, pid {}, execs {:?}{}",
                snapshot.id(),
                snapshot.name,
                snapshot.status.as_str(),
                snapshot.generation,
                facts.run,
                facts.pid.unwrap_or_default(),
                container.execs.ids(),
                if snapshot.removal_error.is_empty() {
                    String::new()
                } else {
                    format!(", not removed: {}", snapshot.removal_error)
                }
            ));
        }
        text
    }
}
