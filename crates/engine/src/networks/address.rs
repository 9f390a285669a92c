//! Addresses as Go reads them, with its words for what is none (`net/netip`, `ParseAddr`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Parts of an IPv4 address.
const PARTS: usize = 4;

/// Reads an address. The zone of an IPv6 address is read and left out.
///
/// # Errors
/// In Go's words; what is wrong in an IPv6 address is not told further.
pub(crate) fn go_address(text: &str) -> Result<IpAddr, String> {
    let refused = |why: String| format!("ParseAddr({text:?}): {why}");
    match text.find(['.', ':', '%']).map(|at| &text[at..=at]) {
        Some(".") => ipv4(text).map(IpAddr::V4).map_err(refused),
        Some(":") => {
            let address = match text.split_once('%') {
                Some((_, "")) => return Err(refused("zone must be a non-empty string".to_owned())),
                Some((address, _)) => address,
                None => text,
            };
            let address: Result<Ipv6Addr, _> = address.parse();
            let address = address.map(IpAddr::V6);
            address.map_err(|_| refused("unable to parse IP".to_owned()))
        }
        Some(_) => Err(refused("missing IPv6 address".to_owned())),
        None => Err(refused("unable to parse IP".to_owned())),
    }
}

fn ipv4(text: &str) -> Result<Ipv4Addr, String> {
    let at = |why: &str, at: usize| Err(format!("{why} (at {:?})", &text[at..]));
    let bytes = text.as_bytes();
    let (mut parts, mut value, mut digits) = (Vec::with_capacity(PARTS), 0_u16, 0);
    for (index, character) in text.char_indices() {
        match character {
            '0'..='9' => {
                if digits == 1 && value == 0 {
                    return Err("IPv4 field has octet with leading zero".to_owned());
                }
                value = value * 10 + u16::from(bytes[index] - b'0');
                digits += 1;
                if value > u8::MAX.into() {
                    return Err("IPv4 field has value >255".to_owned());
                }
            }
            '.' if index == 0 || index + 1 == text.len() || bytes[index - 1] == b'.' => {
                return at("IPv4 field must have at least one digit", index);
            }
            '.' if parts.len() + 1 == PARTS => return Err("IPv4 address too long".to_owned()),
            '.' => {
                parts.push(value);
                (value, digits) = (0, 0);
            }
            _ => return at("unexpected character", index),
        }
    }
    parts.push(value);
    let part = |at: usize| u8::try_from(parts[at]).expect("no part is above 255");
    match parts.len() {
        PARTS => Ok(Ipv4Addr::new(part(0), part(1), part(2), part(3))),
        _ => Err("IPv4 address too short".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from dockerd 28.5.2 as the end of `bad nameserver address …`.
    #[test]
    fn what_is_no_address_is_told_in_gos_words() {
        for (text, wanted) in RECORDED {
            let read = go_address(text).map(|address| address.to_string());
            let wanted = wanted.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(read, wanted, "{text}");
        }
    }

    const RECORDED: &[(&str, Result<&str, &str>)] = &[
        ("1.2.3.4", Ok("1.2.3.4")),
        ("::1", Ok("::1")),
        ("fe80::1%eth0", Ok("fe80::1")),
        ("1.2.3", Err("ParseAddr(\"1.2.3\"): IPv4 address too short")),
        (
            "1.2.3.4.5",
            Err("ParseAddr(\"1.2.3.4.5\"): IPv4 address too long"),
        ),
        (
            "1..2.3",
            Err("ParseAddr(\"1..2.3\"): IPv4 field must have at least one digit (at \".2.3\")"),
        ),
        (
            ".1.2.3",
            Err("ParseAddr(\".1.2.3\"): IPv4 field must have at least one digit (at \".1.2.3\")"),
        ),
        (
            "1.2.3.",
            Err("ParseAddr(\"1.2.3.\"): IPv4 field must have at least one digit (at \".\")"),
        ),
        (
            "01.2.3.4",
            Err("ParseAddr(\"01.2.3.4\"): IPv4 field has octet with leading zero"),
        ),
        (
            "256.1.1.1",
            Err("ParseAddr(\"256.1.1.1\"): IPv4 field has value >255"),
        ),
        (
            "1.2.3.x",
            Err("ParseAddr(\"1.2.3.x\"): unexpected character (at \"x\")"),
        ),
        ("%eth0", Err("ParseAddr(\"%eth0\"): missing IPv6 address")),
        (
            "fe80::1%",
            Err("ParseAddr(\"fe80::1%\"): zone must be a non-empty string"),
        ),
        (
            "1.1.1.1 ",
            Err("ParseAddr(\"1.1.1.1 \"): unexpected character (at \" \")"),
        ),
        ("x", Err("ParseAddr(\"x\"): unable to parse IP")),
        ("", Err("ParseAddr(\"\"): unable to parse IP")),
        (
            "1.1.1.1\nnameserver 6.6.6.6",
            Err(
                "ParseAddr(\"1.1.1.1\\nnameserver 6.6.6.6\"): unexpected character (at \"\\nnameserver 6.6.6.6\")",
            ),
        ),
    ];
}
