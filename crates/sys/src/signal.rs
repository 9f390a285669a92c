//! Signals by name and number (Linux numbers): THE one table, for the API's texts and the runtime's command line.

use std::fmt;
use std::str::FromStr;

/// A signal number, 1 … 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalError {
    /// Neither a name nor a number.
    Invalid(String),
    /// A number that no name stands for. dockerd's `kill` refuses it; its `stop` hands it to the kernel, which
    /// refuses it in turn, and goes on to SIGKILL.
    Unsupported(i32),
}

impl fmt::Display for SignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) => write!(f, "invalid signal: {text}"),
            Self::Unsupported(number) => {
                write!(f, "the linux daemon does not support signal {number}")
            }
        }
    }
}

impl std::error::Error for SignalError {}

/// The number of the signal that ends a process without asking it.
pub const SIGKILL: i32 = 9;

/// The number of the signal that asks a process to end.
pub const SIGTERM: i32 = 15;

/// Highest real-time signal.
const LAST: i32 = 64;
const RTMIN: i32 = 34;

const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", SIGKILL),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", SIGTERM),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

impl Signal {
    /// What `stop` sends unless told otherwise.
    pub const TERM: Self = Self(SIGTERM);
    /// What cannot be refused.
    pub const KILL: Self = Self(SIGKILL);

    /// The number, 1 … 64.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    /// The number: that is what events carry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    /// Reads `15`, `TERM`, `SIGTERM`, `sigterm`, `RTMIN+3`, `RTMAX-1`.
    fn from_str(text: &str) -> Result<Self, SignalError> {
        let refused = || SignalError::Invalid(text.to_owned());
        if let Ok(number) = text.parse::<i32>() {
            return match number {
                0 => Err(refused()),
                // Those in between are glibc's own.
                1..=31 | RTMIN..=LAST => Ok(Self(number)),
                _ => Err(SignalError::Unsupported(number)),
            };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Self(*number));
        }
        let real_time = if name == "RTMIN" {
            Some(RTMIN)
        } else if name == "RTMAX" {
            Some(LAST)
        } else if let Some(offset) = name.strip_prefix("RTMIN+") {
            offset.parse::<u8>().ok().map(|n| RTMIN + i32::from(n))
        } else {
            name.strip_prefix("RTMAX-")
                .and_then(|n| n.parse::<u8>().ok())
                .map(|n| LAST - i32::from(n))
        };
        match real_time {
            Some(number) if (RTMIN..=LAST).contains(&number) => Ok(Self(number)),
            _ => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_in_any_form() {
        for (text, number) in [
            ("15", 15),
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("IOT", 6),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMAX", 64),
        ] {
            assert_eq!(
                text.parse::<Signal>().map(Signal::number),
                Ok(number),
                "{text}"
            );
        }
        for text in ["0", "xx", "", "SIG", "RTMIN+31", "SIGSIGTERM"] {
            let told = text.parse::<Signal>().unwrap_err().to_string();
            assert_eq!(told, format!("invalid signal: {text}"));
        }
        for text in ["-1", "32", "33", "65"] {
            let told = text.parse::<Signal>().unwrap_err().to_string();
            assert_eq!(
                told,
                format!("the linux daemon does not support signal {text}")
            );
        }
    }
}
