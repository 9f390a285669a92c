//! What differs between any two runs of one line, and what stands for it in both engines' outputs.

use regex_lite::Regex;

/// One thing that differs by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Normal {
    /// Ids and digests, whole or short, also at the end of a word.
    Ids,
    /// Instants of RFC 3339; Go's zero time is none.
    Times,
    /// How long ago something was.
    Spans,
    /// The width of columns, which follows from what stands in them.
    Columns,
    /// Ports that the engine or the kernel chose.
    Ports,
    /// Process ids, times and load of a table of processes.
    Processes,
    /// Addresses on the engine's own bridge, and those of its network cards.
    Addresses,
    /// Progress of a pull: each layer's own lines in order, without those that depend on who was first.
    Progress,
    /// The order of lines.
    Order,
    /// How often one line came.
    Repeats,
    /// How much an engine holds in all: others use the reference at the same time.
    Held,
}

/// What nearly every line needs.
pub(crate) const USUAL: &[Normal] = &[
    Normal::Times,
    Normal::Ids,
    Normal::Spans,
    Normal::Columns,
    Normal::Addresses,
];

/// All of the above but ids, which both engines must agree on: of images, whose id is their content.
pub(crate) const IMAGES: &[Normal] = &[
    Normal::Times,
    Normal::Spans,
    Normal::Columns,
    Normal::Progress,
];

fn replaced(text: &str, pattern: &str, by: &str) -> String {
    let pattern = Regex::new(pattern).expect("a pattern of this file");
    pattern.replace_all(text, by).into_owned()
}

fn lines(text: &str, each: impl Fn(&str) -> String) -> String {
    let lines: Vec<String> = text.split('\n').map(each).collect();
    lines.join("\n")
}

impl Normal {
    /// `text` with this taken out.
    pub(crate) fn of(self, text: &str) -> String {
        match self {
            Self::Ids => {
                let uuid = r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b";
                let text = replaced(text, uuid, "<id>");
                replaced(&text, r"\b([0-9a-f]{64}|[0-9a-f]{12})\b", "<id>")
            }
            Self::Times => {
                let zero = text.replace("0001-01-01T00:00:00Z", "<zero time>");
                let pattern =
                    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d\d:?\d\d( [A-Z]+)?|Z)";
                replaced(&zero, pattern, "<time>")
            }
            Self::Spans => {
                let unit = "(second|minute|hour|day|week|month|year)s?";
                let count = "(Less than an?|About an?|About [0-9]+|[0-9]+)";
                let text = replaced(text, &format!("{count} {unit}"), "<span>");
                replaced(&text, r"execDuration=\d+", "execDuration=<span>")
            }
            Self::Columns => lines(text, |line| {
                line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
            }),
            Self::Ports => replaced(text, r":(3[2-9]|[45]\d|6[0-5])\d{3}\b", ":<port>"),
            Self::Processes => {
                let clock = replaced(text, r"\b\d\d:\d\d(:\d\d)?\b", "<clock>");
                let text = replaced(&clock, r"(^|\s)\d{3,}", "$1<pid>");
                replaced(&text, r"<pid> \d+ <clock>", "<pid> <load> <clock>")
            }
            Self::Addresses => {
                let card = r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b";
                let text = replaced(text, card, "<hardware address>");
                replaced(&text, r"<bridge>\.\d+", "<address>")
            }
            Self::Progress => progress(text),
            Self::Order => {
                let mut lines: Vec<&str> = text.split('\n').collect();
                lines.sort_unstable();
                lines.join("\n")
            }
            Self::Held => lines(text, |line| {
                let counted = r"^( *)(Containers|Running|Paused|Stopped|Images): \d+$";
                replaced(line, counted, "$1$2: <count>")
            }),
            Self::Repeats => {
                let mut lines: Vec<&str> = text.split('\n').collect();
                lines.dedup();
                lines.join("\n")
            }
        }
    }
}

/// Lines of the whole pull in order, each layer's own together.
fn progress(text: &str) -> String {
    let layer = Regex::new("^[0-9a-f]{12}: ").expect("a pattern of this file");
    let by_chance = ["Waiting", "Verifying Checksum"];
    let is_by_chance = |line: &str| {
        layer.is_match(line)
            && by_chance
                .iter()
                .any(|words| line.trim_end().ends_with(words))
    };
    let mut lines: Vec<&str> = text
        .split('\n')
        .filter(|line| !is_by_chance(line))
        .collect();
    let begin = lines.iter().position(|line| layer.is_match(line));
    let end = lines.iter().rposition(|line| layer.is_match(line));
    if let (Some(begin), Some(end)) = (begin, end) {
        // Stable: a layer's own order stays.
        lines[begin..=end].sort_by_key(|line| line.get(..12));
    }
    lines.join("\n")
}

#[test]
fn what_differs_by_chance_is_taken_out_and_nothing_else() {
    let id = "0123456789abcdef".repeat(4);
    let cases = [
        (
            Normal::Ids,
            format!("x={id} sha256:{id} 0123456789ab 0123456789abc"),
            "x=<id> sha256:<id> <id> 0123456789abc",
        ),
        (
            Normal::Times,
            "2026-11-22T22:03:43.5Z 0001-01-01T00:00:00Z".to_owned(),
            "<time> <zero time>",
        ),
        (
            Normal::Spans,
            "a|Up Less than a second|Up 2 seconds (Paused)|About a minute ago".to_owned(),
            "a|Up <span>|Up <span> (Paused)|<span> ago",
        ),
        (Normal::Columns, "a   b\nc d  ".to_owned(), "a b\nc d"),
        (
            Normal::Ports,
            "0.0.0.0:32768->80/tcp [::]:49153 :80".to_owned(),
            "0.0.0.0:<port>->80/tcp [::]:<port> :80",
        ),
        (
            Normal::Processes,
            "root 12345 345 12 22:01 00:00:00 sleep 600".to_owned(),
            "root <pid> <pid> <load> <clock> <clock> sleep <pid>",
        ),
        (
            Normal::Progress,
            "one\nbbbbbbbbbbbb: b1\naaaaaaaaaaaa: Waiting\naaaaaaaaaaaa: a1\nbbbbbbbbbbbb: b2\nend"
                .to_owned(),
            "one\naaaaaaaaaaaa: a1\nbbbbbbbbbbbb: b1\nbbbbbbbbbbbb: b2\nend",
        ),
    ];
    for (normal, text, expected) in cases {
        assert_eq!(normal.of(&text), expected, "{normal:?}");
    }
}
