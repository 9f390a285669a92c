//! Heads and bodies cut at every byte; expected words were recorded from dockerd 28.5.2 (`curl -g`, raw sockets).

use super::*;

/// What hyper and the handlers see of a connection: the bytes that hyper gets, request by request, and refusals.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    hyper: Vec<u8>,
    refused: Vec<Refusal>,
    early: Vec<u8>,
}

/// Plays hyper: feeds the pieces, and begins each request as soon as its head is there.
fn play(pieces: &[&[u8]], bodies: &[BodyLength], half_closed: bool) -> Seen {
    let (mut framing, mut seen) = (Framing::default(), Seen::default());
    let (mut bodies, mut held) = (bodies.iter(), Vec::new());
    let mut given = |framing: &mut Framing, seen: &mut Seen, head: Option<Vec<u8>>| {
        if let Some(head) = head {
            seen.hyper.extend(&head);
            if let Some(body) = bodies.next() {
                seen.refused.extend(framing.begin(*body));
            }
        }
    };
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() && !framing.is_refused() {
            let passed = framing.pass(rest);
            seen.hyper.extend(&rest[..passed]);
            rest = &rest[passed..];
            let (taken, head) = framing.take_head(rest);
            rest = &rest[taken..];
            given(&mut framing, &mut seen, head);
        }
        held.extend(rest);
    }
    if half_closed {
        let head = framing.end();
        given(&mut framing, &mut seen, head);
    }
    seen.early = [framing.early(), held].concat();
    seen
}

/// Whole, cut in two at every byte, and byte by byte: all the same.
fn check(bytes: &[u8], bodies: &[BodyLength]) -> Seen {
    let whole = play(&[bytes], bodies, false);
    for cut in 1..bytes.len() {
        let (front, back) = bytes.split_at(cut);
        assert_eq!(play(&[front, back], bodies, false), whole, "cut at {cut}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(play(&single, bodies, false), whole);
    whole
}

const NO_BODY: BodyLength = BodyLength::Known(0);

#[test]
fn what_go_takes_in_a_target_is_encoded_for_hyper() {
    for (target, wanted) in [
        (&b"/_ping"[..], "/_ping"),
        (
            b"/a?filters={\"b\":[\"c\"]}",
            "/a?filters=%7B%22b%22:[%22c%22]%7D",
        ),
        (
            b"/<>^|`\\#'?<>^|`\\#'",
            "/%3C%3E%5E%7C%60%5C%23'?%3C%3E%5E%7C%60%5C%23'",
        ),
        (b"/\xc3\xbc?\xff", "/%C3%BC?%FF"),
        (b"/%22%7B", "/%22%7B"),
    ] {
        let head = |target: &[u8]| [b"GET ", target, b" HTTP/1.1\r\nHost: \"{x}\r\n\r\n"].concat();
        let seen = check(&head(target), &[NO_BODY]);
        assert_eq!(seen.hyper, head(wanted.as_bytes()));
        assert_eq!(seen.refused, []);
        let made = std::str::from_utf8(&seen.hyper[4..4 + wanted.len()]).unwrap();
        assert!(hyper::Uri::try_from(made).is_ok(), "{made}");
    }
}

#[test]
fn bodies_are_never_touched_and_what_follows_them_is() {
    use BodyLength::{Chunked, Known};
    let second = b"GET /{b} HTTP/1.1\r\nHost: x\r\n\r\n";
    let encoded = b"GET /%7Bb%7D HTTP/1.1\r\nHost: x\r\n\r\n";
    let tricky = b"GET /{a} HTTP/1.1\r\n\r\n";
    let mut chunked = b"15;x=\"y\"\r\n".to_vec();
    chunked.extend(tricky);
    chunked.extend(b"\r\n0A\r\n[\r\n0\r\n\r\n\"]\r\n0\r\nTrailer: {\r\n\r\n");
    for (head, body, length) in [
        ("GET /a HTTP/1.1\nHost: x\n\n", &b""[..], NO_BODY),
        (
            "POST /a HTTP/1.1\r\nContent-Length: 21\r\n\r\n",
            tricky,
            Known(21),
        ),
        (
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            &chunked,
            Chunked,
        ),
        (
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"0\r\n\r\n",
            Chunked,
        ),
        (
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"0\n\n",
            Chunked,
        ),
    ] {
        let first = [head.as_bytes(), body].concat();
        let seen = check(&[&first, &second[..]].concat(), &[length, NO_BODY]);
        assert_eq!(seen.hyper, [&first, &encoded[..]].concat(), "{head}");
        assert_eq!(seen.refused, [], "{head}");
        // Behind a request that takes the connection over stands input, as it was typed.
        for input in [&b"{hello"[..], b"\x16\x03", b"a {\n\n"] {
            let seen = check(&[&first, input].concat(), &[length]);
            assert_eq!(seen.early, input, "{head}");
        }
    }
}

#[test]
fn a_head_that_cannot_be_read_gets_dockerds_words() {
    let fields = "A: b\r\n".repeat(MAX_FIELDS + 1);
    let field = "a".repeat(MAX_HEAD_BYTES);
    // What grows past the limit when it is encoded.
    let braces = "{".repeat(MAX_HEAD_BYTES / 2);
    let many = format!("GET / HTTP/1.1\r\n{fields}\r\n");
    let long = format!("GET / HTTP/1.1\r\nA: {field}\r\n\r\n");
    let wide = format!("GET /{braces} HTTP/1.1\r\n\r\n");
    for (head, wanted) in [
        ("GARBAGE\r\n\r\n", Refusal::BAD),
        ("GET\r\n\r\n", Refusal::BAD),
        ("GET / HTTX/1.1\r\n\r\n", Refusal::BAD),
        ("GET / HTTP/9.9\r\n\r\n", Refusal::VERSION),
        ("GET / HTTP/2.0\r\n\r\n", Refusal::VERSION),
        ("GET /_ping?a b HTTP/1.1\r\nHost: x\r\n\r\n", Refusal::BAD),
        ("GET /_ping?a\0b HTTP/1.1\r\nHost: x\r\n\r\n", Refusal::BAD),
        (
            "GET /_ping?a\u{7f} HTTP/1.1\r\nHost: x\r\n\r\n",
            Refusal::BAD,
        ),
        ("GET /a%zzb HTTP/1.1\r\nHost: x\r\n\r\n", Refusal::BAD),
        ("GET _ping HTTP/1.1\r\nHost: x\r\n\r\n", Refusal::BAD),
        ("GE(T /_ping HTTP/1.1\r\nHost: x\r\n\r\n", Refusal::BAD),
        (" GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n", Refusal::BAD),
        (
            "GET /_ping HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
            Refusal::BAD,
        ),
        (
            "GET /_ping HTTP/1.1\r\nHost: x\r\nnocolon\r\n\r\n",
            Refusal::BAD,
        ),
        (
            "GET /_ping HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n",
            Refusal::BAD,
        ),
        (
            "GET /_ping HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n",
            Refusal::FIELD_NAME,
        ),
        (
            "GET /_ping HTTP/1.1\r\nContent-Length: a\r\n\r\n",
            Refusal::BAD,
        ),
        (
            "GET /_ping HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            Refusal::BAD,
        ),
        (
            "GET /_ping HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            Refusal::BAD,
        ),
        (
            "GET /_ping HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            Refusal::CODING,
        ),
        (&many, Refusal::TOO_LARGE),
        (&long, Refusal::TOO_LARGE),
        (&wide, Refusal::TOO_LARGE),
    ] {
        let behind = format!("{head}GET /{{b}} HTTP/1.1\r\n\r\n");
        let seen = if behind.len() < 1000 {
            check(behind.as_bytes(), &[NO_BODY, NO_BODY])
        } else {
            play(&[behind.as_bytes()], &[NO_BODY, NO_BODY], false)
        };
        let name = &head[..head.len().min(80)];
        assert_eq!(seen.refused, [wanted], "{name:?}");
        assert_eq!(seen.hyper, REPLACEMENT, "{name:?}");
    }
}

#[test]
fn half_a_head_is_answered_when_no_more_comes() {
    for head in [
        &b"GET /_pi"[..],
        b"GARBAGE",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"\r\n",
    ] {
        let seen = play(&[head], &[NO_BODY], true);
        assert_eq!(seen.refused, [Refusal::BAD]);
    }
    assert_eq!(play(&[], &[NO_BODY], true), Seen::default());
}

#[test]
fn http_2_is_left_alone() {
    let opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0GET /{a} HTTP/1.1\r\n\r\n";
    assert_eq!(check(opening, &[]).hyper, opening);
}
