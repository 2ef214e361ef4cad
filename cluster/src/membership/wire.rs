//! Gossip on the wire: who speaks, and the sieve before foca.
//!
//! A datagram is a little-endian `u16` version followed by foca's own bytes
//! (postcard): a header and updates about members. It comes over an
//! authenticated connection, yet what it says about others is hearsay: the
//! sieve drops a datagram whose sender is not the connection's peer or that
//! names a stranger as a party, and takes single updates about strangers out.
//! So foca never meets a node the catalog does not know.

use bytes::Buf;
use foca::{Codec, Header, Member, Message, PostcardCodec};

use crate::{
    ids::{Incarnation, NodeId},
    limits::DATAGRAM_BYTES_MAX,
};

/// Version of the datagram, first in it.
pub const GOSSIP_VERSION: u16 = 1;
/// Bytes foca may fill.
pub(super) const BODY_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - 2;
/// Times a node may have been declared down and come back within one start:
/// at one a second a node would need four months.
const RENEWALS_MAX: u32 = 10_000_000;

/// A member as gossip names it. Of two with one node id the later start wins,
/// and within a start the one renewed more often.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Its start.
    pub incarnation: Incarnation,
    /// How often it was declared down since and came back.
    pub renewal: u32,
}

impl Identity {
    /// A node that has just started.
    pub fn new(node: NodeId, incarnation: Incarnation) -> Self {
        Self { node, incarnation, renewal: 0 }
    }

    /// Whether a running node could have come this far.
    pub(super) fn is_plausible(&self) -> bool {
        self.renewal <= RENEWALS_MAX
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { renewal: self.renewal.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.incarnation, self.renewal) > (adversary.incarnation, adversary.renewal)
    }
}

/// What a peer did wrong with a datagram; it is dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GossipFault {
    /// Longer than [`DATAGRAM_BYTES_MAX`].
    #[error("datagram of {bytes} bytes exceeds {DATAGRAM_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Of a version this release does not speak.
    #[error("gossip of version {0}, this release speaks {GOSSIP_VERSION}")]
    Version(u16),
    /// It names a sender other than the connection's peer.
    #[error("gossip sent in the name of another node")]
    Sender,
    /// It names a party the catalog does not know.
    #[error("gossip names a node that is not a member")]
    Stranger,
    /// Not a datagram of this protocol.
    #[error("malformed gossip: {0}")]
    Malformed(String),
}

/// Puts the version before foca's bytes.
pub(super) fn seal(body: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(2 + body.len());
    datagram.extend_from_slice(&GOSSIP_VERSION.to_le_bytes());
    datagram.extend_from_slice(body);
    datagram
}

/// Checks a datagram and gives foca's bytes without updates about strangers.
pub(super) fn sift(
    datagram: &[u8],
    from: NodeId,
    is_known: impl Fn(&Identity) -> bool,
) -> Result<Vec<u8>, GossipFault> {
    let mut rest = open(datagram)?;
    let mut codec = PostcardCodec;
    let header = codec.decode_header(&mut rest).map_err(malformed)?;
    check_parties(&header, from, &is_known)?;
    let mut sifted = Vec::with_capacity(datagram.len());
    codec.encode_header(&header, &mut sifted).map_err(malformed)?;
    if rest.is_empty() {
        return Ok(sifted);
    }
    let mut kept: u16 = 0;
    let mut updates = Vec::with_capacity(rest.len());
    let count = rest.try_get_u16().map_err(malformed)?;
    for _ in 0..count {
        let member: Member<Identity> = codec.decode_member(&mut rest).map_err(malformed)?;
        if is_known(member.id()) {
            codec.encode_member(&member, &mut updates).map_err(malformed)?;
            kept += 1;
        }
    }
    if !rest.is_empty() {
        return Err(GossipFault::Malformed("bytes after the updates".into()));
    }
    sifted.extend_from_slice(&kept.to_be_bytes());
    sifted.extend_from_slice(&updates);
    Ok(sifted)
}

fn open(datagram: &[u8]) -> Result<&[u8], GossipFault> {
    if datagram.len() > DATAGRAM_BYTES_MAX {
        return Err(GossipFault::TooLarge { bytes: datagram.len() });
    }
    let Some((version, rest)) = datagram.split_first_chunk::<2>() else {
        return Err(GossipFault::Malformed("shorter than its version".into()));
    };
    match u16::from_le_bytes(*version) {
        GOSSIP_VERSION => Ok(rest),
        other => Err(GossipFault::Version(other)),
    }
}

fn check_parties(
    header: &Header<Identity>,
    from: NodeId,
    is_known: impl Fn(&Identity) -> bool,
) -> Result<(), GossipFault> {
    if header.src.node != from {
        return Err(GossipFault::Sender);
    }
    let third = match &header.message {
        Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => Some(target),
        Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => Some(origin),
        Message::Ping(_)
        | Message::Ack(_)
        | Message::Announce
        | Message::Feed
        | Message::Gossip
        | Message::Broadcast
        | Message::TurnUndead => None,
    };
    let known = is_known(&header.src) && third.is_none_or(is_known);
    if known { Ok(()) } else { Err(GossipFault::Stranger) }
}

fn malformed(error: impl std::fmt::Display) -> GossipFault {
    GossipFault::Malformed(error.to_string())
}
