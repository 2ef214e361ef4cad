//! Hello: the first frame of every connection, one each way.
//!
//! TLS has proved who the peer is; Hello says what it speaks. It travels on
//! the first bidirectional stream, the dialer's first, and nothing else is
//! served before both are read. The payload is a hand-written fixed header, so
//! that what strangers send is never given to a deserializer. A longer payload
//! is a newer release's: what follows the known fields is ignored.
//!
//! ```text
//! 0        2        4      5        8         24     40            48      64            72           80
//! | oldest | newest | role | unused | cluster | node | incarnation | nonce | config hash | generation |
//! ```
//! Versions are u16, ids u128, the rest u64, little-endian.
//!
//! The *generation* orders connections between one pair of nodes: see `peer`.

use cluster::{
    formats::FrameKind,
    ids::{BootNonce, ClusterId, Incarnation, NodeId},
    membership::Boot,
    ports::network::Peer,
};
use quinn::{Connection, ConnectionError};

use crate::{
    fault::PeerFault,
    framing::{ReadFailure, frame, read_frame},
};

/// Oldest protocol this release speaks.
pub(crate) const PROTOCOL_OLDEST: u16 = 1;
/// Newest protocol this release speaks.
pub(crate) const PROTOCOL_NEWEST: u16 = 1;
const HELLO_BYTES: usize = 80;
/// Room for fields of later releases.
const HELLO_BYTES_MAX: usize = 1_024;

/// What a peer says it is; must agree with its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Node,
    Client,
    Stranger,
}

/// The first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) oldest: u16,
    pub(crate) newest: u16,
    pub(crate) role: Role,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) boot: Boot,
    pub(crate) config_hash: u64,
    pub(crate) generation: u64,
}

/// Why two peers that trust each other cannot talk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HelloRefusal {
    #[error(
        "no common protocol version: this side speaks {ours_oldest} to {ours_newest}, \
         the other {theirs_oldest} to {theirs_newest}: upgrade the older one"
    )]
    Version { ours_oldest: u16, ours_newest: u16, theirs_oldest: u16, theirs_newest: u16 },
    #[error("hello names cluster {theirs}, this is cluster {ours}")]
    Cluster { ours: ClusterId, theirs: ClusterId },
    #[error("hello names another identity than the certificate")]
    Identity,
    #[error(
        "the cluster configurations differ (hash {ours:016x} here, {theirs:016x} there): \
         start all nodes with the same one"
    )]
    Config { ours: u64, theirs: u64 },
}

/// Why the exchange failed.
#[derive(Debug)]
pub(crate) enum GreetFailure {
    /// The connection ended; its reason says more.
    Closed(ConnectionError),
    /// The peer broke a rule.
    Fault(PeerFault),
    /// The peer is not one to talk to.
    Refused(HelloRefusal),
}

impl Hello {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            oldest: PROTOCOL_OLDEST,
            newest: PROTOCOL_NEWEST,
            role,
            cluster: ClusterId(0),
            node: NodeId(0),
            boot: Boot::default(),
            config_hash: 0,
            generation: 0,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let role = match self.role {
            Role::Node => 0,
            Role::Client => 1,
            Role::Stranger => 2,
        };
        let mut bytes = Vec::with_capacity(HELLO_BYTES);
        bytes.extend_from_slice(&self.oldest.to_le_bytes());
        bytes.extend_from_slice(&self.newest.to_le_bytes());
        bytes.extend_from_slice(&[role, 0, 0, 0]);
        bytes.extend_from_slice(&self.cluster.0.to_le_bytes());
        bytes.extend_from_slice(&self.node.0.to_le_bytes());
        bytes.extend_from_slice(&self.boot.incarnation.0.to_le_bytes());
        bytes.extend_from_slice(&self.boot.nonce.0.to_le_bytes());
        bytes.extend_from_slice(&self.config_hash.to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, PeerFault> {
        let mut fields = Fields { rest: bytes, bytes: bytes.len() };
        let oldest = u16::from_le_bytes(fields.next()?);
        let newest = u16::from_le_bytes(fields.next()?);
        let [role, ..] = fields.next::<4>()?;
        let role = match role {
            0 => Role::Node,
            1 => Role::Client,
            2 => Role::Stranger,
            other => return Err(PeerFault::HelloRole(other)),
        };
        Ok(Self {
            oldest,
            newest,
            role,
            cluster: ClusterId(u128::from_le_bytes(fields.next()?)),
            node: NodeId(u128::from_le_bytes(fields.next()?)),
            boot: Boot {
                incarnation: Incarnation(u64::from_le_bytes(fields.next()?)),
                nonce: BootNonce(u128::from_le_bytes(fields.next()?)),
            },
            config_hash: u64::from_le_bytes(fields.next()?),
            generation: u64::from_le_bytes(fields.next()?),
        })
    }

    /// Whether `theirs` is one to talk to. `peer` is what TLS proved; a
    /// cluster of zero on our side means: not known yet (joining).
    pub(crate) fn check(&self, theirs: &Self, peer: &Peer) -> Result<(), HelloRefusal> {
        if theirs.newest < self.oldest || theirs.oldest > self.newest {
            return Err(HelloRefusal::Version {
                ours_oldest: self.oldest,
                ours_newest: self.newest,
                theirs_oldest: theirs.oldest,
                theirs_newest: theirs.newest,
            });
        }
        let identity = match (theirs.role, peer) {
            (Role::Node, Peer::Node(node)) => *node == theirs.node,
            (Role::Client, Peer::Client { .. }) | (Role::Stranger, Peer::Anonymous) => true,
            (Role::Node | Role::Client | Role::Stranger, _) => false,
        };
        if !identity {
            return Err(HelloRefusal::Identity);
        }
        let named = theirs.role != Role::Stranger && self.cluster != ClusterId(0);
        if named && theirs.cluster != self.cluster {
            return Err(HelloRefusal::Cluster { ours: self.cluster, theirs: theirs.cluster });
        }
        let nodes = self.role == Role::Node && theirs.role == Role::Node;
        if nodes && self.config_hash != theirs.config_hash {
            return Err(HelloRefusal::Config {
                ours: self.config_hash,
                theirs: theirs.config_hash,
            });
        }
        Ok(())
    }
}

struct Fields<'a> {
    rest: &'a [u8],
    bytes: usize,
}

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> Result<[u8; N], PeerFault> {
        let (field, rest) =
            self.rest.split_first_chunk::<N>().ok_or(PeerFault::HelloShort(self.bytes))?;
        self.rest = rest;
        Ok(*field)
    }
}

/// The dialer's half: say hello, hear hello.
pub(crate) async fn greet(
    connection: &Connection,
    ours: &Hello,
    peer: &Peer,
) -> Result<Hello, GreetFailure> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(GreetFailure::Closed)?;
    write_hello(connection, &mut send, ours).await?;
    let theirs = read_hello(connection, &mut recv).await?;
    ours.check(&theirs, peer).map_err(GreetFailure::Refused)?;
    Ok(theirs)
}

/// The other half, in two steps, so that limits are raised between them.
pub(crate) struct Greeting {
    pub(crate) theirs: Hello,
    send: quinn::SendStream,
}

impl Greeting {
    pub(crate) async fn hear(
        connection: &Connection,
        ours: &Hello,
        peer: &Peer,
    ) -> Result<Self, GreetFailure> {
        let (send, mut recv) = connection.accept_bi().await.map_err(GreetFailure::Closed)?;
        let theirs = read_hello(connection, &mut recv).await?;
        ours.check(&theirs, peer).map_err(GreetFailure::Refused)?;
        Ok(Self { theirs, send })
    }

    pub(crate) async fn answer(
        mut self,
        connection: &Connection,
        ours: &Hello,
    ) -> Result<Hello, GreetFailure> {
        write_hello(connection, &mut self.send, ours).await?;
        Ok(self.theirs)
    }
}

async fn write_hello(
    connection: &Connection,
    send: &mut quinn::SendStream,
    hello: &Hello,
) -> Result<(), GreetFailure> {
    let mut chunks = frame(FrameKind::Hello, hello.encode().into());
    let written = send.write_all_chunks(&mut chunks).await;
    if written.is_err() || send.finish().is_err() {
        return Err(GreetFailure::Closed(connection.closed().await));
    }
    Ok(())
}

async fn read_hello(
    connection: &Connection,
    recv: &mut quinn::RecvStream,
) -> Result<Hello, GreetFailure> {
    match read_frame(recv, FrameKind::Hello, HELLO_BYTES_MAX, None).await {
        Ok(Some(payload)) => Hello::decode(&payload.bytes).map_err(GreetFailure::Fault),
        Ok(None) => Err(GreetFailure::Fault(PeerFault::Truncated)),
        Err(ReadFailure::Fault(fault)) => Err(GreetFailure::Fault(fault)),
        Err(ReadFailure::Gone(_)) => Err(GreetFailure::Closed(connection.closed().await)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u128) -> Hello {
        Hello { cluster: ClusterId(1), node: NodeId(id), config_hash: 5, ..Hello::new(Role::Node) }
    }

    #[test]
    fn hello_reads_back_and_ignores_what_a_newer_release_adds() {
        let hello = Hello { generation: 9, ..node(3) };
        let mut bytes = hello.encode();
        assert_eq!(bytes.len(), 80);
        bytes.extend_from_slice(b"later");
        assert_eq!(Hello::decode(&bytes), Ok(hello));
        assert_eq!(Hello::decode(&bytes[..79]), Err(PeerFault::HelloShort(79)));
    }

    #[test]
    fn hello_is_checked_against_the_certificate_and_the_cluster() {
        let ours = node(1);
        let peer = Peer::Node(NodeId(2));
        assert_eq!(ours.check(&node(2), &peer), Ok(()));
        assert_eq!(ours.check(&node(3), &peer), Err(HelloRefusal::Identity));
        assert_eq!(ours.check(&node(2), &Peer::Anonymous), Err(HelloRefusal::Identity));
        let foreign = Hello { cluster: ClusterId(8), ..node(2) };
        assert!(matches!(ours.check(&foreign, &peer), Err(HelloRefusal::Cluster { .. })));
        let other = Hello { config_hash: 6, ..node(2) };
        assert!(matches!(ours.check(&other, &peer), Err(HelloRefusal::Config { .. })));
        let newer = Hello { oldest: 2, newest: 4, ..node(2) };
        let refusal = ours.check(&newer, &peer).unwrap_err();
        assert!(refusal.to_string().contains("upgrade the older one"), "{refusal}");
    }
}
