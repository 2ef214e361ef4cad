//! The one-way lanes of a link: Raft on a stream, gossip in datagrams.
//!
//! Each side opens one unidirectional stream for the life of the link. All
//! messages that wait go out in one write, ahead of every request. Its end
//! has a meaning: *all my requests on this connection are answered and I open
//! none*; once both sides said so, a replaced connection can be closed
//! without failing anybody.

use std::sync::Arc;

use bytes::Bytes;
use cluster::{
    formats::{FrameKind, encode_frame},
    limits::FRAME_BYTES_MAX,
    ports::network::{Inbound, Lane},
};
use quinn::{Connection, SendDatagramError, SendStream};

use crate::{
    connection::Link,
    credit::{RaftBatch, RaftQueue},
    fault::PeerFault,
    framing::{FRAME_VERSION, ReadFailure, frame, read_datagram, read_frame},
    metrics,
    requests::RAFT_PRIORITY,
};

/// Writes Raft messages until the link is retired and idle; then ends the
/// stream and waits until the peer has all of it. `false`: the link ended.
pub(crate) async fn write_raft(link: Arc<Link>, queue: Arc<RaftQueue>) -> bool {
    let Ok(mut stream) = link.connection.open_uni().await else { return false };
    let _ = stream.set_priority(RAFT_PRIORITY);
    loop {
        let batch = tokio::select! {
            biased;
            () = link.retired() => break,
            batch = queue.take() => batch,
        };
        if !write_batch(&mut stream, &batch).await {
            metrics::add(metrics::RAFT_DROPPED, batch.messages().len());
            return false;
        }
    }
    link.idle().await;
    stream.finish().is_ok() && matches!(stream.stopped().await, Ok(None))
}

async fn write_batch(stream: &mut SendStream, batch: &RaftBatch) -> bool {
    let mut chunks: Vec<Bytes> = batch
        .messages()
        .iter()
        .flat_map(|message| frame(FrameKind::Raft, message.clone()))
        .collect();
    let bytes: usize = chunks.iter().map(Bytes::len).sum();
    let written = stream.write_all_chunks(&mut chunks).await.is_ok();
    if written {
        metrics::add(metrics::RAFT_SENT, batch.messages().len());
        metrics::add(metrics::RAFT_SENT_BYTES, bytes);
    }
    written
}

/// Hands on Raft messages until the peer ends its stream (`true`) or the link
/// ends (`false`).
pub(crate) async fn read_raft(
    link: Arc<Link>,
    inbound: Arc<dyn Inbound>,
) -> Result<bool, PeerFault> {
    let Ok(mut stream) = link.connection.accept_uni().await else { return Ok(false) };
    loop {
        match read_frame(&mut stream, FrameKind::Raft, FRAME_BYTES_MAX, None).await {
            Ok(Some(payload)) => inbound.message(link.node, Lane::Raft, payload.bytes),
            Ok(None) => break,
            Err(ReadFailure::Fault(fault)) => return Err(fault),
            Err(ReadFailure::Gone(_)) => return Ok(false),
        }
    }
    Ok(true)
}

/// Hands on gossip until the link ends.
pub(crate) async fn read_gossip(
    link: Arc<Link>,
    inbound: Arc<dyn Inbound>,
) -> Result<(), PeerFault> {
    while let Ok(datagram) = link.connection.read_datagram().await {
        inbound.message(link.node, Lane::Gossip, read_datagram(&datagram)?);
    }
    Ok(())
}

/// Sends one gossip datagram, or loses it: gossip repeats itself.
pub(crate) fn send_gossip(connection: &Connection, message: &[u8]) {
    let datagram = encode_frame(FrameKind::Gossip, FRAME_VERSION, message).into();
    match connection.send_datagram(datagram) {
        Ok(()) => metrics::count(metrics::GOSSIP_SENT),
        Err(
            error @ (SendDatagramError::UnsupportedByPeer
            | SendDatagramError::Disabled
            | SendDatagramError::TooLarge
            | SendDatagramError::ConnectionLost(_)),
        ) => {
            tracing::debug!(%error, "a gossip datagram was dropped");
            metrics::count(metrics::GOSSIP_DROPPED);
        }
    }
}
