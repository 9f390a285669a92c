//! Names to addresses without libc: static glibc cannot load the NSS modules of the machine it runs on.
//!
//! Does what `nsswitch.conf`'s `files dns` does: /etc/hosts, then the servers of /etc/resolv.conf with its
//! search list and `ndots` (resolv.conf(5)), A and AAAA at once, TCP when an answer is truncated. Answers
//! are accepted only from the server asked, with the id and question that were sent.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// One try at one server; resolv.conf's default is 5 s, which a person who waits for a pull feels.
const TRY_TIMEOUT: Duration = Duration::from_secs(3);

/// How often the list of servers is gone through (resolv.conf's default).
const ROUNDS: usize = 2;

/// As libc: more servers than these are not asked.
const SERVERS_MAX: usize = 3;

/// The largest answer over UDP without EDNS (RFC 1035 section 2.3.4), with room for servers that exceed it.
const UDP_BYTES: usize = 4096;

/// /etc/hosts and /etc/resolv.conf beyond this size are not read on.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The servers say that there is no such name (or no address for it).
    #[error("lookup {name} on {server}: no such host")]
    NoSuchHost {
        /// What was asked for.
        name: String,
        /// Who says so.
        server: SocketAddr,
    },
    /// The name cannot be asked for.
    #[error("lookup {name}: not a host name")]
    BadName {
        /// What was asked for.
        name: String,
    },
    /// No server gave a usable answer.
    #[error("lookup {name}: no name server answered")]
    Unanswered {
        /// What was asked for.
        name: String,
        /// What the last server did.
        #[source]
        source: io::Error,
    },
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Resolver {
    hosts: PathBuf,
    resolv_conf: PathBuf,
    port: u16,
}

impl Default for Resolver {
    fn default() -> Self {
        Self {
            hosts: "/etc/hosts".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            port: 53,
        }
    }
}

/// What resolv.conf says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Servers {
    addresses: Vec<IpAddr>,
    search: Vec<String>,
    ndots: usize,
}

impl Resolver {
    /// Resolves `name`; a literal address is its own answer. Files are read anew each time.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let known = from_hosts(&read(&self.hosts).await, name);
        if !known.is_empty() {
            return Ok(known);
        }
        if name == "localhost" || name.ends_with(".localhost") {
            // RFC 6761 section 6.3.
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let servers = parse_resolv_conf(&read(&self.resolv_conf).await);
        let mut denied = None;
        for candidate in candidates(name, &servers) {
            match self.ask_all(&candidate, &servers).await {
                Err(Error::NoSuchHost { server, .. }) => denied = Some(server),
                other => return other,
            }
        }
        let name = name.to_owned();
        Err(match denied {
            Some(server) => Error::NoSuchHost { name, server },
            None => Error::BadName { name },
        })
    }

    async fn ask_all(&self, name: &str, servers: &Servers) -> Result<Vec<IpAddr>, Error> {
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in servers
            .addresses
            .iter()
            .cycle()
            .take(servers.addresses.len() * ROUNDS)
        {
            let server = SocketAddr::new(*address, self.port);
            let (v4, v6) = tokio::join!(ask(server, name, TYPE::A), ask(server, name, TYPE::AAAA));
            match (v4, v6) {
                (Ok(mut found), Ok(more)) => {
                    found.extend(more);
                    if found.is_empty() {
                        let name = name.to_owned();
                        return Err(Error::NoSuchHost { name, server });
                    }
                    return Ok(found);
                }
                // One family that answers is better than an error.
                (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.is_empty() => return Ok(found),
                (Err(error), _) | (_, Err(error)) => {
                    if error.kind() == io::ErrorKind::InvalidInput {
                        return Err(Error::BadName {
                            name: name.to_owned(),
                        });
                    }
                    failure = error;
                }
            }
        }
        Err(Error::Unanswered {
            name: name.to_owned(),
            source: failure,
        })
    }
}

/// A missing or unreadable file says nothing.
async fn read(path: &Path) -> String {
    let path = path.to_owned();
    let read = move || {
        let mut bytes = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
        if let Err(error) = read {
            tracing::debug!(path = %path.display(), %error, "nothing is known of names from there");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    // Awaited at once: two small files.
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn from_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse) else {
            continue;
        };
        if words.any(|known| known.eq_ignore_ascii_case(name)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

fn parse_resolv_conf(text: &str) -> Servers {
    let mut servers = Servers {
        addresses: Vec::new(),
        search: Vec::new(),
        ndots: 1,
    };
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let address: Option<IpAddr> = words
                    .next()
                    .and_then(|word| word.split('%').next()?.parse().ok());
                servers.addresses.extend(address);
            }
            Some("search" | "domain") => servers.search = words.map(str::to_owned).collect(),
            Some("options") => {
                let ndots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                servers.ndots = ndots.unwrap_or(servers.ndots);
            }
            _ => {}
        }
    }
    servers.addresses.truncate(SERVERS_MAX);
    if servers.addresses.is_empty() {
        servers.addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    servers
}

/// The names to ask for, in libc's order: with enough dots as it is first, otherwise last.
fn candidates(name: &str, servers: &Servers) -> Vec<String> {
    if let Some(absolute) = name.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let mut all: Vec<String> = servers
        .search
        .iter()
        .map(|domain| format!("{name}.{}", domain.trim_matches('.')))
        .collect();
    let as_it_is = name.to_owned();
    if name.matches('.').count() >= servers.ndots {
        all.insert(0, as_it_is);
    } else {
        all.push(as_it_is);
    }
    all
}

/// Asks one server once; an empty list means that the name has no such address.
async fn ask(server: SocketAddr, name: &str, kind: TYPE) -> io::Result<Vec<IpAddr>> {
    let (id, query) = query(name, kind)?;
    tokio::time::timeout(TRY_TIMEOUT, async {
        let local: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local).await?;
        // Connected: the kernel drops what comes from elsewhere.
        socket.connect(server).await?;
        socket.send(&query).await?;
        let mut buffer = vec![0; UDP_BYTES];
        loop {
            let length = socket.recv(&mut buffer).await?;
            match answer(&buffer[..length], id, name, kind)? {
                Answer::Addresses(addresses) => return Ok(addresses),
                Answer::Truncated => return ask_tcp(server, &query, id, name, kind).await,
                Answer::Foreign => {}
            }
        }
    })
    .await?
}

async fn ask_tcp(
    server: SocketAddr,
    query: &[u8],
    id: u16,
    name: &str,
    kind: TYPE,
) -> io::Result<Vec<IpAddr>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(query).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; length.into()];
    stream.read_exact(&mut reply).await?;
    match answer(&reply, id, name, kind)? {
        Answer::Addresses(addresses) => Ok(addresses),
        Answer::Truncated | Answer::Foreign => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn query(name: &str, kind: TYPE) -> io::Result<(u16, Vec<u8>)> {
    let id = u16::from_ne_bytes(sys::random::bytes()?);
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    packet.questions.push(Question::new(
        name,
        QTYPE::TYPE(kind),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    let bytes = packet
        .build_bytes_vec()
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok((id, bytes))
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Addresses(Vec<IpAddr>),
    /// Ask again over TCP.
    Truncated,
    /// Not the answer to our question.
    Foreign,
}

fn answer(bytes: &[u8], id: u16, name: &str, kind: TYPE) -> io::Result<Answer> {
    let Ok(packet) = Packet::parse(bytes) else {
        return Ok(Answer::Foreign);
    };
    let asked = packet.questions.first().is_some_and(|question| {
        question.qname.to_string().eq_ignore_ascii_case(name) && question.qtype == QTYPE::TYPE(kind)
    });
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !asked {
        return Ok(Answer::Foreign);
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Ok(Answer::Truncated);
    }
    match packet.rcode() {
        simple_dns::RCODE::NoError | simple_dns::RCODE::NameError => {}
        other => {
            return Err(io::Error::other(format!(
                "the name server answered {other:?}"
            )));
        }
    }
    // The chain of aliases is followed by the server; every address in the answer belongs to it.
    let addresses = packet
        .answers
        .iter()
        .filter_map(|record| match &record.rdata {
            RData::A(a) => Some(IpAddr::from(Ipv4Addr::from(a.address))),
            RData::AAAA(aaaa) => Some(IpAddr::from(Ipv6Addr::from(aaaa.address))),
            _ => None,
        });
    Ok(Answer::Addresses(addresses.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name server on loopback that answers each query by `reply`; over TCP it always tells the truth.
    async fn serve(reply: fn(&mut Packet<'_>, u16)) -> Resolver {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = udp.local_addr().unwrap().port();
        let tcp = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let bytes = respond(&buffer[..length], reply);
                udp.send_to(&bytes, from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut query = vec![0; length.into()];
                stream.read_exact(&mut query).await.unwrap();
                let bytes = respond(&query, address);
                stream
                    .write_u16(u16::try_from(bytes.len()).unwrap())
                    .await
                    .unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        });
        let directory = tempfile::tempdir().unwrap().keep();
        let resolv_conf = directory.join("resolv.conf");
        std::fs::write(&resolv_conf, "nameserver 127.0.0.1\nsearch corp.test\n").unwrap();
        Resolver {
            hosts: directory.join("hosts"),
            resolv_conf,
            port,
        }
    }

    fn respond(query: &[u8], reply: fn(&mut Packet<'_>, u16)) -> Vec<u8> {
        let parsed = Packet::parse(query).unwrap();
        let mut packet = Packet::new_reply(parsed.id());
        packet.questions = parsed.questions.clone();
        reply(&mut packet, parsed.id());
        packet.build_bytes_vec().unwrap()
    }

    /// 192.0.2.7 for an A question, nothing for the other.
    fn address(packet: &mut Packet<'_>, _id: u16) {
        let question = packet.questions[0].clone();
        if question.qtype == QTYPE::TYPE(TYPE::A) {
            let rdata = RData::A(simple_dns::rdata::A::from(Ipv4Addr::new(192, 0, 2, 7)));
            packet.answers.push(simple_dns::ResourceRecord::new(
                question.qname,
                CLASS::IN,
                60,
                rdata,
            ));
        }
    }

    fn expected() -> Vec<IpAddr> {
        vec!["192.0.2.7".parse().unwrap()]
    }

    #[tokio::test]
    async fn no_more_is_read_of_a_file_than_any_real_one_has() {
        let resolver = serve(address).await;
        std::fs::write(&resolver.hosts, "203.0.113.9 near.test\n").unwrap();
        // A hole larger than any memory.
        let hosts = File::options().write(true).open(&resolver.hosts).unwrap();
        hosts.set_len(1 << 42).unwrap();
        let known: Vec<IpAddr> = vec!["203.0.113.9".parse().unwrap()];
        assert_eq!(resolver.lookup("near.test").await.unwrap(), known);
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_aliases_of_hosts_come_first() {
        let resolver = serve(address).await;
        assert_eq!(
            resolver.lookup("registry.example.com").await.unwrap(),
            expected()
        );
        std::fs::write(
            &resolver.hosts,
            "203.0.113.9 other Registry.example.com # x\n",
        )
        .unwrap();
        let known: Vec<IpAddr> = vec!["203.0.113.9".parse().unwrap()];
        assert_eq!(
            resolver.lookup("registry.example.com").await.unwrap(),
            known
        );
        assert_eq!(
            resolver.lookup("2001:db8::1").await.unwrap(),
            vec!["2001:db8::1".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(resolver.lookup("localhost").await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_truncated_answer_is_asked_for_again_over_tcp() {
        let resolver = serve(|packet, _| packet.set_flags(PacketFlag::TRUNCATION)).await;
        assert_eq!(
            resolver.lookup("big.example.com").await.unwrap(),
            expected()
        );
    }

    #[tokio::test]
    async fn a_missing_name_and_a_broken_server_are_two_errors() {
        let missing = serve(|packet, _| *packet.rcode_mut() = simple_dns::RCODE::NameError).await;
        let error = missing.lookup("nope.example.com").await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("lookup nope.example.com on 127.0.0.1:")
                && text.ends_with(": no such host"),
            "{text}"
        );
        let broken =
            serve(|packet, _| *packet.rcode_mut() = simple_dns::RCODE::ServerFailure).await;
        assert!(matches!(
            broken.lookup("x.example.com").await,
            Err(Error::Unanswered { .. })
        ));
        assert!(matches!(
            missing.lookup(&"a".repeat(64)).await,
            Err(Error::BadName { .. })
        ));
    }

    #[test]
    fn an_answer_to_another_question_is_not_taken() {
        let (id, bytes) = query("a.test", TYPE::A).unwrap();
        let reply = respond(&bytes, address);
        let taken = |id, name, kind| answer(&reply, id, name, kind).unwrap();
        assert_eq!(taken(id, "A.test", TYPE::A), Answer::Addresses(expected()));
        assert_eq!(taken(id ^ 1, "a.test", TYPE::A), Answer::Foreign);
        assert_eq!(taken(id, "b.test", TYPE::A), Answer::Foreign);
        assert_eq!(taken(id, "a.test", TYPE::AAAA), Answer::Foreign);
        assert_eq!(
            answer(&bytes, id, "a.test", TYPE::A).unwrap(),
            Answer::Foreign,
            "a query is no answer"
        );
    }

    #[test]
    fn resolv_conf_is_read_as_libc_does() {
        let text = "# c\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n\
                    domain a.test\nsearch b.test c.test.\noptions timeout:1 ndots:2\n";
        let servers = parse_resolv_conf(text);
        assert_eq!(servers.addresses.len(), SERVERS_MAX);
        assert_eq!(
            candidates("x.y", &servers),
            ["x.y.b.test", "x.y.c.test", "x.y"]
        );
        assert_eq!(
            candidates("x.y.z", &servers),
            ["x.y.z", "x.y.z.b.test", "x.y.z.c.test"]
        );
        assert_eq!(candidates("x.", &servers), ["x"]);
        assert_eq!(
            parse_resolv_conf("").addresses,
            [IpAddr::from(Ipv4Addr::LOCALHOST)]
        );
    }
}
