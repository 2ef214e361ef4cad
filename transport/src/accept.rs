//! The answering side: from a knock to a node's link, a client or a stranger.

use std::sync::Arc;

use cluster::{limits::FRAME_BYTES_MAX, ports::network::Peer};
use quinn::{Connection, Incoming, VarInt};
use tokio::time::timeout;

use crate::{
    admission::{Place, Seat, Verdict},
    connection::{Link, raise_windows},
    credit::{ByteBudget, ClassLimits, ClassPermits},
    endpoint::{Shared, proven_peer},
    fault::{CloseCode, PeerFault},
    handshake::{GreetFailure, Greeting, HelloRefusal, Role},
    limits::{CLIENT_BODY_BYTES_MAX, STRANGER_FRAME_BYTES_MAX, STRANGERS_MAX},
    metrics,
    peer::{CloseGuard, LinkEvent},
    requests::{Service, serve, serve_one},
};

/// Answers until the endpoint is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let proven = incoming.remote_address_validated();
        let ip = incoming.remote_address().ip();
        match shared.admission.knock(ip, proven, &shared.limits) {
            Verdict::Accept(place) => {
                shared.runtime.spawn(receive(Arc::clone(&shared), incoming, place));
            }
            Verdict::Retry => {
                metrics::count(metrics::RETRIES);
                // Fails only for proven addresses, which are not asked again.
                let _ = incoming.retry();
            }
            Verdict::Refuse => {
                metrics::count(metrics::CONNECTIONS_REFUSED);
                incoming.refuse();
            }
            Verdict::Ignore => {
                metrics::count(metrics::CONNECTIONS_REFUSED);
                incoming.ignore();
            }
        }
    }
}

/// A peer that is known and greeted.
struct Guest {
    connection: Connection,
    peer: Peer,
    greeting: Greeting,
}

async fn receive(shared: Arc<Shared>, incoming: Incoming, mut place: Place) {
    let address = incoming.remote_address();
    let greeted = timeout(shared.limits.handshake_timeout, greet_guest(&shared, incoming)).await;
    let failure = match greeted {
        Ok(Ok(guest)) => {
            place.established();
            return welcome(shared, guest, place).await;
        }
        Ok(Err(failure)) => failure,
        Err(_) => "the handshake took too long".to_owned(),
    };
    metrics::count(metrics::HANDSHAKES_FAILED);
    tracing::debug!(%address, failure, "a handshake failed");
}

async fn greet_guest(shared: &Arc<Shared>, incoming: Incoming) -> Result<Guest, String> {
    let connecting = incoming.accept().map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    let guard = CloseGuard(Some(connection.clone()));
    let peer = proven_peer(&connection).ok_or("the certificate names nobody")?;
    let ours = shared.hello(Role::Node, 0);
    match Greeting::hear(&connection, &ours, &peer).await {
        Ok(greeting) => Ok(Guest { connection: guard.keep(), peer, greeting }),
        Err(failure) => Err(turn_away(&guard.keep(), failure)),
    }
}

fn turn_away(connection: &Connection, failure: GreetFailure) -> String {
    let (code, reason) = match failure {
        GreetFailure::Closed(error) => return error.to_string(),
        GreetFailure::Fault(fault) => {
            metrics::count(metrics::PEER_FAULTS);
            (CloseCode::Fault, fault.to_string())
        }
        GreetFailure::Refused(refusal) => {
            let code = match refusal {
                HelloRefusal::Version { .. } => CloseCode::Version,
                HelloRefusal::Cluster { .. }
                | HelloRefusal::Identity
                | HelloRefusal::Config { .. } => CloseCode::Hello,
            };
            (code, refusal.to_string())
        }
    };
    code.close(connection, &reason);
    reason
}

async fn welcome(shared: Arc<Shared>, guest: Guest, place: Place) {
    match guest.peer {
        Peer::Node(_) => welcome_node(&shared, guest, place).await,
        Peer::Client { .. } => serve_client(&shared, guest).await,
        Peer::Anonymous => serve_stranger(&shared, guest).await,
    }
}

async fn welcome_node(shared: &Arc<Shared>, guest: Guest, place: Place) {
    let Guest { connection, greeting, .. } = guest;
    let node = greeting.theirs.node;
    let Some(handle) = shared.peer(node).filter(|_| node != shared.node) else {
        return CloseCode::Removed.close(&connection, "this node was removed from the cluster");
    };
    raise_windows(&connection);
    let generation = greeting.theirs.generation;
    let Ok(theirs) = greeting.answer(&connection, &shared.hello(Role::Node, generation)).await
    else {
        return;
    };
    let link = Link::new(connection, shared.node, &theirs, generation, Some(place));
    let link = Arc::new(link);
    if handle.events.send(LinkEvent::Accepted(Arc::clone(&link))).await.is_err() {
        CloseCode::Removed.close(&link.connection, "this node was removed from the cluster");
    }
}

async fn serve_client(shared: &Arc<Shared>, guest: Guest) {
    let Guest { connection, peer, greeting } = guest;
    let Some(_seat) = Seat::take(&shared.admission.clients, shared.limits.clients_max) else {
        metrics::count(metrics::CONNECTIONS_REFUSED);
        return CloseCode::Busy.close(&connection, "too many clients are connected to this node");
    };
    let streams = ClassLimits::CLIENT.streams();
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
    if greeting.answer(&connection, &shared.hello(Role::Node, 0)).await.is_err() {
        return;
    }
    metrics::count(metrics::CONNECTIONS_OPENED);
    let service = Arc::new(Service {
        inbound: Arc::clone(&shared.inbound),
        peer,
        permits: ClassPermits::new(ClassLimits::CLIENT),
        budget: ByteBudget::within(CLIENT_BODY_BYTES_MAX, &shared.clients_budget),
        frame_bytes_max: FRAME_BYTES_MAX,
    });
    // Clients replace their connections themselves, well before this.
    let age_max = shared.limits.connection_age_max * 2;
    match timeout(age_max, serve(connection.clone(), service)).await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => cut_off(&connection, fault),
        Err(_) => CloseCode::Aged.close(&connection, "the connection is too old: connect again"),
    }
    metrics::count(metrics::CONNECTIONS_CLOSED);
}

async fn serve_stranger(shared: &Arc<Shared>, guest: Guest) {
    let Guest { connection, peer, greeting } = guest;
    let Some(_seat) = Seat::take(&shared.admission.strangers, STRANGERS_MAX) else {
        metrics::count(metrics::CONNECTIONS_REFUSED);
        return CloseCode::Busy.close(&connection, "too many strangers are connected to this node");
    };
    // One for the request, beside the one of Hello that may linger.
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(ClassLimits::STRANGER.streams()));
    let service = Service {
        inbound: Arc::clone(&shared.inbound),
        peer,
        permits: ClassPermits::new(ClassLimits::STRANGER),
        budget: ByteBudget::within(STRANGER_FRAME_BYTES_MAX, &shared.clients_budget),
        frame_bytes_max: STRANGER_FRAME_BYTES_MAX,
    };
    let serving = async {
        greeting.answer(&connection, &shared.hello(Role::Node, 0)).await.ok()?;
        metrics::count(metrics::CONNECTIONS_OPENED);
        let (send, recv) = connection.accept_bi().await.ok()?;
        match serve_one(&service, send, recv).await {
            // Until the answer has arrived.
            Ok(Some(answered)) => drop(answered.stopped().await),
            // A refusal must arrive too; the stranger closes when it has it.
            Ok(None) => drop(timeout(shared.limits.handshake_timeout, connection.closed()).await),
            Err(fault) => cut_off(&connection, fault),
        }
        Some(())
    };
    let _ = timeout(crate::limits::REQUEST_BODY_TIMEOUT, serving).await;
    CloseCode::Done.close(&connection, "one request is served without a certificate");
}

fn cut_off(connection: &Connection, fault: PeerFault) {
    metrics::count(metrics::PEER_FAULTS);
    tracing::warn!(address = %connection.remote_address(), %fault, "a peer broke the protocol");
    CloseCode::Fault.close(connection, &fault.to_string());
}
