//! Where requests of HTTP/1 begin and end in a client's bytes, and what is done to their heads on the way to hyper.
//!
//! Go's HTTP server, which old clients and people with curl were written against, takes a request target with any
//! byte above a blank in it; hyper's takes what RFC 3986 lists. So a head is held until it is whole, and such bytes of
//! its target are percent-encoded, which is the same request. A head that hyper would refuse with an empty answer is
//! replaced by one that it takes, and [`Framing::begin`] tells what the client shall hear: dockerd's words. Bodies
//! are never touched: hyper says of each request how long its body is, and nothing that follows is looked at before.

use hyper::StatusCode;

/// Bytes of a head, and of what is made of it; hyper's buffer holds it and a little more.
pub(crate) const MAX_HEAD_BYTES: usize = 60 << 10;
/// Header fields of a request: what hyper takes.
const MAX_FIELDS: usize = 100;
/// What hyper gets in place of a head that is refused.
const REPLACEMENT: &[u8] = b"GET / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n";
/// How a connection of HTTP/2 opens (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// By its `Content-Length`, in bytes.
    Known(u64),
    /// By its last chunk.
    Chunked,
}

/// What a client is told whose head cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The status.
    pub(crate) status: StatusCode,
    /// All of the body, which Go repeats in the status line.
    pub(crate) words: &'static str,
}

impl Refusal {
    const fn new(status: StatusCode, words: &'static str) -> Self {
        Self { status, words }
    }

    const BAD: Self = Self::new(StatusCode::BAD_REQUEST, "400 Bad Request");
    const FIELD_NAME: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "400 Bad Request: invalid header name",
    );
    const TOO_LARGE: Self = Self::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "431 Request Header Fields Too Large",
    );
    const CODING: Self = Self::new(StatusCode::NOT_IMPLEMENTED, "Unsupported transfer encoding");
    const VERSION: Self = Self::new(
        StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        "505 HTTP Version Not Supported: unsupported protocol version",
    );
}

/// The place in a client's bytes.
#[derive(Debug)]
pub(crate) struct Framing {
    phase: Phase,
    /// The head that hyper has, as the client sent it, until its request begins.
    given: Vec<u8>,
    refusal: Option<Refusal>,
}

#[derive(Debug)]
enum Phase {
    /// Of a head, what came of it.
    Head(Vec<u8>),
    /// hyper has a whole head and has not begun the request.
    Given,
    /// In a body.
    Body(Left),
    /// Nothing is looked at any more: it is HTTP/2, or hyper ends the connection.
    Opaque,
    /// A head was refused: nothing that follows is a request.
    Refused,
}

#[derive(Debug, Clone, Copy)]
enum Left {
    /// So many bytes.
    Known(u64),
    Chunked(Chunked),
}

/// Where in a chunked body (RFC 9112, section 7.1).
#[derive(Debug, Clone, Copy)]
enum Chunked {
    /// In a line that gives a length; this much of it, and whether digits may follow.
    Length { length: u64, digits: bool },
    /// In a chunk and the line end behind it: bytes of both that are left.
    Data(u64),
    /// In the trailers: whether the line has anything in it.
    Trailer { empty: bool },
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            phase: Phase::Head(Vec::new()),
            given: Vec::new(),
            refusal: None,
        }
    }
}

impl Framing {
    /// hyper has begun a request, whose body is that long. `Some` when the head was not the client's.
    pub(crate) fn begin(&mut self, body: BodyLength) -> Option<Refusal> {
        self.given = Vec::new();
        let refusal = self.refusal.take();
        if matches!(self.phase, Phase::Given) {
            self.phase = match body {
                _ if refusal.is_some() => Phase::Refused,
                BodyLength::Known(0) => Phase::Head(Vec::new()),
                BodyLength::Known(length) => Phase::Body(Left::Known(length)),
                BodyLength::Chunked => Phase::Body(Left::Chunked(Chunked::LINE)),
            };
        }
        refusal
    }

    /// How many of these bytes, the next ones, hyper shall have as they are. What follows is asked for again.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> usize {
        match &mut self.phase {
            // It asks for more than the head that it has: it is not what it looked like.
            Phase::Given if self.refusal.is_none() => {
                self.phase = Phase::Opaque;
                bytes.len()
            }
            Phase::Opaque => bytes.len(),
            Phase::Head(_) | Phase::Given | Phase::Refused => 0,
            Phase::Body(Left::Known(left)) => {
                let taken = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                if *left == 0 {
                    self.phase = Phase::Head(Vec::new());
                }
                taken
            }
            Phase::Body(Left::Chunked(chunked)) => match chunked.pass(bytes) {
                Some((taken, false)) => taken,
                Some((taken, true)) => {
                    self.phase = Phase::Head(Vec::new());
                    taken
                }
                // hyper refuses it as well.
                None => {
                    self.phase = Phase::Opaque;
                    bytes.len()
                }
            },
        }
    }

    /// Takes bytes of a head, and answers how many, and what hyper gets once the head is whole. Takes none in a body.
    pub(crate) fn take_head(&mut self, bytes: &[u8]) -> (usize, Option<Vec<u8>>) {
        let Phase::Head(head) = &mut self.phase else {
            return (0, None);
        };
        for (index, byte) in bytes.iter().enumerate() {
            head.push(*byte);
            let first = head.len() == 1;
            if first && !is_token(*byte) && !matches!(byte, b'\r' | b'\n') {
                return (index + 1, Some(self.give(Err(Refusal::BAD))));
            }
            if *byte == b'\n' && is_whole(head) {
                let made = make(head);
                return (index + 1, Some(self.give(made)));
            }
            if head.len() > MAX_HEAD_BYTES {
                return (index + 1, Some(self.give(Err(Refusal::TOO_LARGE))));
            }
        }
        (bytes.len(), None)
    }

    /// The client sends no more: what hyper gets in place of half a head, if there is one.
    pub(crate) fn end(&mut self) -> Option<Vec<u8>> {
        match &self.phase {
            Phase::Head(head) if !head.is_empty() => Some(self.give(Err(Refusal::BAD))),
            _ => None,
        }
    }

    fn give(&mut self, made: Result<Vec<u8>, Refusal>) -> Vec<u8> {
        if let Phase::Head(head) = std::mem::replace(&mut self.phase, Phase::Given) {
            self.given = head;
        }
        made.unwrap_or_else(|refusal| {
            tracing::debug!(words = refusal.words, "a client sent what is no request");
            self.refusal = Some(refusal);
            REPLACEMENT.to_vec()
        })
    }

    /// What the client sent behind the request that was begun last, as it sent it, and was taken by
    /// [`Framing::take_head`].
    pub(crate) fn early(&mut self) -> Vec<u8> {
        let mut early = std::mem::take(&mut self.given);
        if let Phase::Head(head) = &mut self.phase {
            early.append(head);
        }
        early
    }

    /// Whether nothing that the client sends is looked at any more.
    pub(crate) fn is_refused(&self) -> bool {
        self.refusal.is_some() || matches!(self.phase, Phase::Refused)
    }
}

impl Chunked {
    const LINE: Self = Self::Length {
        length: 0,
        digits: true,
    };

    /// How many bytes belong to the body, and whether it is over; `None` when it is no chunked body.
    fn pass(&mut self, bytes: &[u8]) -> Option<(usize, bool)> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            at += 1;
            *self = match *self {
                Self::Length { length: 0, .. } if *byte == b'\n' => Self::Trailer { empty: true },
                Self::Length { length, .. } if *byte == b'\n' => Self::Data(length.checked_add(2)?),
                Self::Length { length, digits } => match char::from(*byte).to_digit(16) {
                    Some(digit) if digits => Self::Length {
                        length: length.checked_mul(16)?.checked_add(digit.into())?,
                        digits,
                    },
                    _ => Self::Length {
                        length,
                        digits: false,
                    },
                },
                Self::Data(left) => {
                    let rest = bytes.len() - (at - 1);
                    let taken = rest.min(usize::try_from(left).unwrap_or(usize::MAX));
                    at += taken - 1;
                    match left - taken as u64 {
                        0 => Self::LINE,
                        left => Self::Data(left),
                    }
                }
                Self::Trailer { empty: true } if *byte == b'\n' => return Some((at, true)),
                Self::Trailer { empty } => Self::Trailer {
                    empty: *byte == b'\n' || (empty && *byte == b'\r'),
                },
            };
        }
        Some((at, false))
    }
}

/// Whether a head that ends in a line feed ends in an empty line behind a line that is not.
fn is_whole(head: &[u8]) -> bool {
    let ends = head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n");
    ends && head.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
}

/// What hyper gets for a whole head.
fn make(head: &[u8]) -> Result<Vec<u8>, Refusal> {
    if head == PREFACE {
        return Ok(head.to_vec());
    }
    let encoded = encode_target(head);
    if encoded.len() > MAX_HEAD_BYTES {
        return Err(Refusal::TOO_LARGE);
    }
    check(&encoded)?;
    Ok(encoded)
}

/// Percent-encodes in the request target what Go takes there and hyper does not, and `#`, which is a byte like any
/// other to Go and would end the target for hyper.
fn encode_target(head: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut made = Vec::with_capacity(head.len());
    let mut rest = head.iter();
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    let method = head[start.unwrap_or_default()..]
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\r' | b'\n'))
        .map_or(head.len(), |end| start.unwrap_or_default() + end + 1);
    made.extend(rest.by_ref().take(method));
    for byte in rest.by_ref() {
        if b"\"#<>\\^`{|}".contains(byte) || *byte >= 0x80 {
            made.push(b'%');
            made.push(DIGITS[usize::from(byte >> 4)]);
            made.push(DIGITS[usize::from(byte & 15)]);
        } else {
            made.push(*byte);
            if matches!(byte, b' ' | b'\r' | b'\n') {
                break;
            }
        }
    }
    made.extend(rest);
    made
}

/// Refuses what hyper would, in dockerd's words.
fn check(head: &[u8]) -> Result<(), Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(head).map_err(|error| match error {
        httparse::Error::TooManyHeaders => Refusal::TOO_LARGE,
        httparse::Error::Version if is_other_version(head) => Refusal::VERSION,
        httparse::Error::HeaderName if is_named(head) => Refusal::FIELD_NAME,
        _ => Refusal::BAD,
    })?;
    let target = request.path.unwrap_or_default();
    hyper::Uri::try_from(target).map_err(|_| Refusal::BAD)?;
    // A word alone is where a CONNECT goes.
    if !target.starts_with('/') && target != "*" && !target.contains(':') {
        return Err(Refusal::BAD);
    }
    // In the query it is the handler's: dockerd names it there.
    let path = target.split('?').next().unwrap_or_default();
    if api::query::broken_escape(path).is_some() {
        return Err(Refusal::BAD);
    }
    let values = |name: &'static str| {
        let named = move |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
        request
            .headers
            .iter()
            .filter(named)
            .map(|field| field.value)
    };
    let mut lengths = values("content-length");
    if let Some(first) = lengths.next() {
        let is_number = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
        if !is_number || lengths.any(|other| other != first) {
            return Err(Refusal::BAD);
        }
    }
    let coded = values("transfer-encoding").next_back();
    if coded.is_some_and(|coding| !is_chunked(coding)) {
        return Err(Refusal::CODING);
    }
    if coded.is_some() && request.version == Some(0) {
        return Err(Refusal::BAD);
    }
    Ok(())
}

/// Whether the last of the codings is `chunked`, by which alone a request's body ends.
fn is_chunked(codings: &[u8]) -> bool {
    let last = codings.rsplit(|byte| *byte == b',').next();
    last.is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// Whether the first line ends in a version of HTTP as Go reads one: a digit, a dot, a digit.
fn is_other_version(head: &[u8]) -> bool {
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [_, _, version] = words[..] else {
        return false;
    };
    matches!(version.strip_prefix(b"HTTP/"), Some([major, b'.', minor])
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Whether every field has a name and a colon, so that a name has a wrong byte in it.
fn is_named(head: &[u8]) -> bool {
    let lines = head
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    lines.filter(|line| !line.is_empty()).skip(1).all(|line| {
        line.iter()
            .position(|byte| *byte == b':')
            .is_some_and(|at| at > 0)
    })
}

/// Whether a method may begin with it (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
