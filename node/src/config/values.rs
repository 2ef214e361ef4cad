//! The values of a configuration: each parses itself, or says what it takes.
//!
//! They fail while the file is read, so the report points at the line.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use cluster::units::ByteSize;
use serde::{Deserialize, de};

use super::{HTTP_PORT_DEFAULT, QUIC_PORT_DEFAULT};

/// Longest name of a zone.
const ZONE_CHARS_MAX: usize = 64;
/// Most threads of one kind; more only wait for the same disk.
pub(crate) const THREADS_MAX: usize = 64;
/// Threads of one kind when nothing is said.
const THREADS_DEFAULT: usize = 4;

/// An address others can reach: a name or IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// The name or address, without the brackets of IPv6.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` is not HOST:PORT, for example node1.example.org:7400");
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let name =
            |host: &str| host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        let valid = bare.map_or_else(|| name(host), |v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
        let host = bare.unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(expected)?;
        if host.is_empty() || !valid {
            return Err(expected());
        }
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
            return Err(format!("`{text}` is every address; name one that others can reach"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not IP:PORT, for example 0.0.0.0:7400"))
}

/// Where to listen for QUIC.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ListenAddress(pub(super) SocketAddr);

impl Default for ListenAddress {
    fn default() -> Self {
        Self(SocketAddr::from((Ipv4Addr::LOCALHOST, QUIC_PORT_DEFAULT)))
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let address = socket(&text)?;
        if address.port() == 0 {
            return Err(format!("`{text}` has port 0; others need a fixed port"));
        }
        Ok(Self(address))
    }
}

/// Where to serve HTTP, or `off`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct HttpAddress(pub(super) Option<SocketAddr>);

impl Default for HttpAddress {
    fn default() -> Self {
        Self(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT_DEFAULT))))
    }
}

impl TryFrom<String> for HttpAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "off" || text == "false" {
            return Ok(Self(None));
        }
        socket(&text).map(|address| Self(Some(address))).map_err(|error| format!("{error}, or off"))
    }
}

/// A failure domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Zone(String);

impl Zone {
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-._/".contains(c));
        if text.is_empty() || text.len() > ZONE_CHARS_MAX || !plain {
            return Err(format!(
                "`{text}` is not a zone: 1 to {ZONE_CHARS_MAX} letters, digits and - . _ /"
            ));
        }
        Ok(Self(text))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number of bytes, written as `512MiB` or as a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) ByteSize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, u64); 9] = [
            ("", 1),
            ("B", 1),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000),
        ];
        let expected =
            || format!("`{text}` is not a size, for example 512MiB, 100GiB or a number of bytes");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| expected())?;
        let (_, factor) =
            UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(expected)?;
        number.checked_mul(*factor).map(|bytes| Self(ByteSize(bytes))).ok_or_else(expected)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Plain numbers arrive as text too: YAML scalars are asked for as strings.
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A number of threads.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u64")]
pub(super) struct Threads(pub(super) usize);

impl Default for Threads {
    fn default() -> Self {
        Self(THREADS_DEFAULT)
    }
}

impl TryFrom<u64> for Threads {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        let threads = usize::try_from(number).ok();
        threads
            .filter(|threads| (1..=THREADS_MAX).contains(threads))
            .map(Self)
            .ok_or_else(|| format!("{number} threads: 1 to {THREADS_MAX} are possible"))
    }
}

/// A filter of the log, known to parse.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Filter(pub(super) String);

impl TryFrom<String> for Filter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse::<tracing_subscriber::filter::Targets>() {
            Ok(_) if !text.trim().is_empty() => Ok(Self(text)),
            Ok(_) | Err(_) => Err(format!(
                "`{text}` is not a log level: error, warn, info, debug, trace, or a filter like \
                 info,transport=debug"
            )),
        }
    }
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One line of text per event.
    Text,
    /// One JSON object per line.
    Json,
}
