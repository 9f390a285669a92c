//! The one lookup of a container by what a client typed, and the rules for names.
//!
//! Order (moby `daemon/container.go`, `container/view.go`): the full id, then the exact name with or
//! without its slash, then an id prefix that only one container has. Pure: reads an index through
//! [`Directory`], changes nothing.

use crate::Error;

/// Where containers are found.
pub trait Directory {
    /// What is found.
    type Item;
    /// The container with exactly this id.
    fn with_id(&self, id: &str) -> Option<Self::Item>;
    /// The container with exactly this name, which has no slash.
    fn with_name(&self, name: &str) -> Option<Self::Item>;
    /// The containers whose id begins so, at most `limit`.
    fn with_prefix(&self, prefix: &str, limit: usize) -> Vec<Self::Item>;
}

/// Digits of a container's id.
const ID_DIGITS: usize = 64;

/// Finds the container that a client calls `text`.
///
/// # Errors
/// InvalidParameter for an empty text and for a prefix that several ids have, NotFound for none.
pub fn container<D: Directory>(directory: &D, text: &str) -> Result<D::Item, Error> {
    if text.is_empty() {
        return Err(Error::invalid(
            "invalid container name or ID: value is empty",
        ));
    }
    if text.len() == ID_DIGITS
        && let Some(found) = directory.with_id(text)
    {
        return Ok(found);
    }
    if let Some(found) = directory.with_name(text.strip_prefix('/').unwrap_or(text)) {
        return Ok(found);
    }
    let mut matching = directory.with_prefix(text, 2);
    match (matching.pop(), matching.is_empty()) {
        (Some(found), true) => Ok(found),
        (Some(_), false) => Err(Error::invalid(format!(
            "multiple IDs found with provided prefix: {text}"
        ))),
        (None, _) => Err(Error::not_found(format!("No such container: {text}"))),
    }
}

/// The error for a name that another container has.
pub fn name_taken(name: &str, owner: &str) -> Error {
    Error::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". \
         You have to remove (or rename) that container to be able to reuse that name."
    ))
}

/// Coopers' and sailors' adjectives: the first half of a random name.
const ADJECTIVES: &[&str] = &[
    "able", "airy", "amber", "apt", "balmy", "blithe", "bold", "brave", "breezy", "bright",
    "brisk", "bubbly", "busy", "calm", "candid", "cheery", "chipper", "civil", "clever", "coastal",
    "cosy", "crisp", "curious", "daring", "dapper", "deft", "direct", "eager", "early", "earnest",
    "easy", "elated", "fair", "famed", "fancy", "fearless", "fine", "fleet", "fluent", "fond",
    "frank", "free", "fresh", "frosty", "gallant", "genial", "gentle", "giddy", "glad", "golden",
    "good", "grand", "handy", "happy", "hardy", "hearty", "honest", "hopeful", "humble", "ideal",
    "jaunty", "jolly", "jovial", "keen", "kind", "lasting", "lively", "loyal", "lucid", "lucky",
    "lunar", "mellow", "merry", "mighty", "modest", "neat", "nifty", "nimble", "noble", "oaken",
    "open", "patient", "placid", "plucky", "polite", "prime", "proud", "quaint", "quick", "quiet",
    "rapid", "ready", "regal", "robust", "rosy", "rugged", "sage", "savvy", "serene", "sharp",
    "shiny", "silent", "sleek", "smart", "snug", "sober", "solid", "spry", "staunch", "steady",
    "stellar", "sturdy", "sunny", "supple", "sure", "swift", "tidy", "tranquil", "trusty",
    "upbeat", "valiant", "vivid", "warm", "wise", "witty", "worthy", "zany", "zesty",
];

/// People who made measuring, carrying and computing better: the second half of a random name.
const SURNAMES: &[&str] = &[
    "abel",
    "agnesi",
    "archimedes",
    "babbage",
    "banach",
    "bardeen",
    "bernoulli",
    "bessemer",
    "bohr",
    "boole",
    "bose",
    "brahe",
    "braille",
    "brunel",
    "burnell",
    "cantor",
    "carnot",
    "carson",
    "cauchy",
    "cayley",
    "cerf",
    "church",
    "clarke",
    "conway",
    "cori",
    "coulomb",
    "cray",
    "curie",
    "daguerre",
    "darwin",
    "davy",
    "diesel",
    "dijkstra",
    "dirac",
    "drebbel",
    "edison",
    "elion",
    "engelbart",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "fibonacci",
    "fourier",
    "franklin",
    "fulton",
    "galilei",
    "galois",
    "galvani",
    "gauss",
    "germain",
    "goddard",
    "goedel",
    "gutenberg",
    "haber",
    "hamilton",
    "hamming",
    "harrison",
    "hawking",
    "heaviside",
    "hedy",
    "hertz",
    "hilbert",
    "hodgkin",
    "hoover",
    "hopper",
    "hubble",
    "humboldt",
    "huygens",
    "hypatia",
    "jacobi",
    "jacquard",
    "jenner",
    "joliot",
    "joule",
    "kelvin",
    "kepler",
    "khayyam",
    "kilby",
    "knuth",
    "lagrange",
    "lamarr",
    "laplace",
    "leavitt",
    "leibniz",
    "lilienthal",
    "linnaeus",
    "lovelace",
    "marconi",
    "maxwell",
    "mclean",
    "meitner",
    "mendel",
    "mercator",
    "minkowski",
    "moore",
    "morse",
    "napier",
    "nash",
    "newcomen",
    "newton",
    "nightingale",
    "nobel",
    "noether",
    "oersted",
    "ohm",
    "otto",
    "pascal",
    "pasteur",
    "pauli",
    "peano",
    "planck",
    "poincare",
    "ptolemy",
    "raman",
    "ramanujan",
    "riemann",
    "ritchie",
    "roentgen",
    "rubin",
    "rutherford",
    "shannon",
    "snow",
    "steinmetz",
    "stephenson",
    "tesla",
    "thales",
    "tinbergen",
    "torricelli",
    "trevithick",
    "turing",
    "vaughan",
    "volta",
    "watt",
    "wheatstone",
    "whitney",
    "wiener",
    "wiles",
    "wright",
    "wu",
    "yalow",
    "zeppelin",
    "zuse",
];

/// Random names tried before one gets a number (moby `names-generator`).
const NAME_TRIES: u32 = 6;

/// Makes a random name `adjective_surname` that is not taken. `random` is asked for a number per try;
/// after some tries a digit is appended.
///
/// # Errors
/// What `random` answers.
pub fn random_name<E>(
    mut random: impl FnMut() -> Result<u64, E>,
    is_taken: impl Fn(&str) -> bool,
) -> Result<String, E> {
    let mut tries = 0;
    loop {
        let number = random()?;
        let adjective = ADJECTIVES[index(number, ADJECTIVES.len())];
        let surname = SURNAMES[index(number >> 16, SURNAMES.len())];
        let mut name = format!("{adjective}_{surname}");
        if tries >= NAME_TRIES {
            name.push_str(&(number >> 32).to_string());
        }
        if !is_taken(&name) {
            return Ok(name);
        }
        tries += 1;
    }
}

fn index(number: u64, length: usize) -> usize {
    usize::try_from(number & 0xffff).expect("sixteen bits fit") % length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    /// (id, name) pairs.
    struct Table(Vec<(String, &'static str)>);

    impl Directory for Table {
        type Item = &'static str;

        fn with_id(&self, id: &str) -> Option<&'static str> {
            self.0.iter().find(|row| row.0 == id).map(|row| row.1)
        }

        fn with_name(&self, name: &str) -> Option<&'static str> {
            self.0.iter().find(|row| row.1 == name).map(|row| row.1)
        }

        fn with_prefix(&self, prefix: &str, limit: usize) -> Vec<&'static str> {
            let found = self.0.iter().filter(|row| row.0.starts_with(prefix));
            found.map(|row| row.1).take(limit).collect()
        }
    }

    #[test]
    fn full_id_then_name_then_unique_prefix() {
        let full = "ab".repeat(32);
        let table = Table(vec![
            (full.clone(), "one"),
            ("ac".repeat(32), "abab"),
            ("bb".repeat(32), "two"),
        ]);
        let table_of = [
            (full.as_str(), Ok("one")),
            ("one", Ok("one")),
            ("/one", Ok("one")),
            ("abab", Ok("abab")),
            ("ababa", Ok("one")),
            ("b", Ok("two")),
            (
                "a",
                Err((
                    Class::InvalidParameter,
                    "multiple IDs found with provided prefix: a",
                )),
            ),
            ("//one", Err((Class::NotFound, "No such container: //one"))),
            ("/bb", Err((Class::NotFound, "No such container: /bb"))),
            ("nope", Err((Class::NotFound, "No such container: nope"))),
        ];
        for (text, expected) in table_of {
            let found = container(&table, text).map_err(|error| (error.class, error.message));
            let expected = expected.map_err(|(class, message)| (class, message.to_owned()));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn random_names_are_valid_and_evade_taken_ones() {
        let mut number = 0_u64;
        let mut random = || {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            Ok::<_, std::convert::Infallible>(number >> 8)
        };
        for _ in 0..2_000 {
            let Ok(name) = random_name(&mut random, |_| false);
            assert!(
                api::name::container_name(&name).is_ok() && name.contains('_'),
                "{name}"
            );
        }
        let tried = std::cell::Cell::new(0);
        let Ok(name) = random_name(random, |_| {
            tried.set(tried.get() + 1);
            tried.get() < 8
        });
        assert!(name.ends_with(|last: char| last.is_ascii_digit()), "{name}");
    }
}
