//! Requests: one bidirectional stream each, answered, refused or timed out.
//!
//! The asker writes prelude and frame, finishes, and reads one frame. Who
//! gives up resets its stream, so that a half-written request is never taken
//! for a bad frame. The server bounds class, count, bytes and time of what it
//! works on; a refused request costs its stream, a broken one the connection.
//! When the asker gives up or the connection ends, the handler is dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cluster::{
    formats::FrameKind,
    limits::FRAME_BYTES_MAX,
    ports::network::{Inbound, Peer, RequestClass},
};
use quinn::{Connection, ReadError, RecvStream, SendStream};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    credit::{ByteBudget, ClassPermits},
    fault::{PeerFault, StreamCode},
    framing::{Payload, Prelude, ReadFailure, frame, read_end, read_frame},
    limits::{REQUEST_BODY_TIMEOUT, REQUEST_TIMEOUT_MAX},
    metrics,
};

/// Stream priorities: higher goes first.
pub(crate) const RAFT_PRIORITY: i32 = 3;

fn priority(class: RequestClass) -> i32 {
    match class {
        RequestClass::Data => 2,
        RequestClass::Admin | RequestClass::Join => 1,
        RequestClass::Bulk => 0,
    }
}

/// A sending half that is reset, not finished, when it is dropped early.
#[derive(Debug)]
struct Unfinished(Option<SendStream>);

impl Unfinished {
    async fn write(&mut self, chunks: &mut [Bytes]) -> bool {
        match &mut self.0 {
            Some(stream) => stream.write_all_chunks(chunks).await.is_ok(),
            None => false,
        }
    }

    fn finish(&mut self) -> Option<SendStream> {
        let mut stream = self.0.take()?;
        stream.finish().is_ok().then_some(stream)
    }

    fn reset(&mut self, code: StreamCode) {
        if let Some(mut stream) = self.0.take() {
            let _ = stream.reset(code.code());
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.reset(StreamCode::Cancelled);
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AskFailure {
    /// Nothing was sent.
    NotSent(String),
    /// The peer has too many under way; nothing was done.
    Busy,
    /// The peer does not take this class from us; nothing was done.
    NotAllowed,
    /// It may have been executed.
    Lost(String),
    /// As [`Self::Lost`]: the peer itself gave up waiting.
    Expired,
}

/// Sends one request. `sent` turns true when it can no longer be called back.
pub(crate) async fn ask(
    connection: &Connection,
    prelude: Prelude,
    body: Bytes,
    sent: &AtomicBool,
) -> Result<Bytes, AskFailure> {
    let not_sent = |error: quinn::ConnectionError| AskFailure::NotSent(error.to_string());
    let (stream, mut recv) = connection.open_bi().await.map_err(not_sent)?;
    // Fails only if the stream is gone already; the write will say so.
    let _ = stream.set_priority(priority(prelude.class));
    let mut stream = Unfinished(Some(stream));
    let [header, body] = frame(FrameKind::Request, body);
    let mut chunks = [Bytes::copy_from_slice(&prelude.encode()), header, body];
    sent.store(true, Ordering::Release);
    metrics::count(metrics::REQUESTS_SENT);
    // A failed write is not the end: a refusal waits on the other half.
    if stream.write(&mut chunks).await {
        stream.finish();
    }
    match read_frame(&mut recv, FrameKind::Response, FRAME_BYTES_MAX, None).await {
        Ok(Some(payload)) => Ok(payload.bytes),
        Ok(None) => Err(AskFailure::Lost("the answer is empty".to_owned())),
        Err(ReadFailure::Fault(fault)) => Err(answer_fault(connection, fault)),
        Err(ReadFailure::Gone(error)) => Err(answer_gone(&error)),
    }
}

fn answer_fault(connection: &Connection, fault: PeerFault) -> AskFailure {
    metrics::count(metrics::PEER_FAULTS);
    let reason = fault.to_string();
    crate::fault::CloseCode::Fault.close(connection, &reason);
    AskFailure::Lost(reason)
}

fn answer_gone(error: &std::io::Error) -> AskFailure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ReadError>());
    let code = match inner {
        Some(ReadError::Reset(code)) => StreamCode::from_code(*code),
        Some(
            ReadError::ConnectionLost(_)
            | ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected,
        )
        | None => None,
    };
    match code {
        Some(StreamCode::Busy) => AskFailure::Busy,
        Some(StreamCode::NotAllowed) => AskFailure::NotAllowed,
        Some(StreamCode::AnswerTooLarge) => {
            AskFailure::Lost("its answer exceeds the largest frame".to_owned())
        }
        Some(StreamCode::Expired) => AskFailure::Expired,
        Some(StreamCode::Cancelled) => AskFailure::Lost("the peer dropped the request".to_owned()),
        None => AskFailure::Lost(error.to_string()),
    }
}

/// What one peer may ask here.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) inbound: Arc<dyn Inbound>,
    pub(crate) peer: Peer,
    pub(crate) permits: ClassPermits,
    pub(crate) budget: ByteBudget,
    pub(crate) frame_bytes_max: usize,
}

/// Serves until the connection ends (`Ok`) or the peer breaks a rule.
pub(crate) async fn serve(connection: Connection, service: Arc<Service>) -> Result<(), PeerFault> {
    let mut running: JoinSet<Result<Option<SendStream>, PeerFault>> = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(done) = running.join_next() => match done {
                Ok(outcome) => outcome.map(drop)?,
                Err(error) => tracing::error!(%error, "a request handler panicked"),
            },
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    let service = Arc::clone(&service);
                    running.spawn(async move { serve_one(&service, send, recv).await });
                }
                Err(_) => return Ok(()),
            },
        }
    }
}

/// Serves one stream; gives the sending half back once the answer is written.
pub(crate) async fn serve_one(
    service: &Service,
    send: SendStream,
    mut recv: RecvStream,
) -> Result<Option<SendStream>, PeerFault> {
    let gone = send.stopped();
    let mut send = Unfinished(Some(send));
    let reading = timeout(REQUEST_BODY_TIMEOUT, read_request(service, &mut recv));
    let (prelude, request, permit) = match reading.await {
        Ok(Ok(Some(read))) => read,
        Ok(Err(Refusal::Fault(fault))) => return Err(fault),
        Ok(Err(Refusal::Stream(code))) => {
            metrics::count(metrics::REQUESTS_REFUSED);
            send.reset(code);
            let _ = recv.stop(code.code());
            return Ok(None);
        }
        // The asker is gone, or too slow.
        Ok(Ok(None)) | Err(_) => return Ok(None),
    };
    if let Some(stream) = &send.0 {
        let _ = stream.set_priority(priority(prelude.class));
    }
    let Payload { bytes, credit } = request;
    let handler = service.inbound.request(service.peer.clone(), prelude.class, bytes);
    let patience = prelude.timeout.min(REQUEST_TIMEOUT_MAX);
    let answer = tokio::select! {
        biased;
        answer = timeout(patience, handler) => answer,
        _ = gone => return Ok(None),
    };
    drop(credit);
    let Ok(answer) = answer else {
        send.reset(StreamCode::Expired);
        return Ok(None);
    };
    if answer.len() > FRAME_BYTES_MAX {
        tracing::error!(bytes = answer.len(), "an answer exceeds the largest frame");
        send.reset(StreamCode::AnswerTooLarge);
        return Ok(None);
    }
    metrics::count(metrics::REQUESTS_SERVED);
    // Before the answer leaves: the asker may send its next request at once.
    drop(permit);
    let written = send.write(&mut frame(FrameKind::Response, answer)).await;
    Ok(if written { send.finish() } else { None })
}

enum Refusal {
    Fault(PeerFault),
    Stream(StreamCode),
}

type Reading = (Prelude, Payload, tokio::sync::OwnedSemaphorePermit);

/// Reads one request; `None` if its asker is gone.
async fn read_request(
    service: &Service,
    recv: &mut RecvStream,
) -> Result<Option<Reading>, Refusal> {
    let prelude = match Prelude::read(recv).await {
        Ok(prelude) => prelude,
        Err(ReadFailure::Fault(fault)) => return Err(Refusal::Fault(fault)),
        Err(ReadFailure::Gone(_)) => return Ok(None),
    };
    if !service.permits.allows(prelude.class) {
        return Err(Refusal::Stream(StreamCode::NotAllowed));
    }
    let Some(permit) = service.permits.take(prelude.class) else {
        return Err(Refusal::Stream(StreamCode::Busy));
    };
    let budget = Some(&service.budget);
    let read = read_frame(recv, FrameKind::Request, service.frame_bytes_max, budget).await;
    let payload = match read {
        Ok(Some(payload)) => payload,
        Ok(None) => return Err(Refusal::Fault(PeerFault::Truncated)),
        Err(ReadFailure::Fault(fault)) => return Err(Refusal::Fault(fault)),
        Err(ReadFailure::Gone(_)) => return Ok(None),
    };
    match read_end(recv).await {
        Ok(()) => Ok(Some((prelude, payload, permit))),
        Err(ReadFailure::Fault(fault)) => Err(Refusal::Fault(fault)),
        Err(ReadFailure::Gone(_)) => Ok(None),
    }
}

/// Bounds a request in time and says which way it failed.
pub(crate) async fn within<T>(
    limit: Duration,
    sent: &AtomicBool,
    asking: impl Future<Output = Result<T, AskFailure>>,
) -> Result<T, Option<AskFailure>> {
    match timeout(limit, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(AskFailure::Expired)) => Err(None),
        Ok(Err(failure)) => Err(Some(failure)),
        Err(_) if sent.load(Ordering::Acquire) => Err(None),
        Err(_) => Err(Some(AskFailure::NotSent(format!("no connection within {limit:?}")))),
    }
}
