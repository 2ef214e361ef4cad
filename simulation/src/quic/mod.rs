//! Quinn mode: the product's own transport over simulated UDP.
//!
//! Everything above the socket is real: quinn, rustls with ring, `transport`
//! with its links, lanes and certificates, and its client. Below it packets fly
//! through the weather (`Wire`). A crash drops the runtime, so peers notice by
//! silence or by a stateless reset, never because the world tells them.
//!
//! Invariants: all chance is the seed's (entropy is injected into the transport;
//! ring's key exchange draws through the `getrandom` hook); all time is the
//! host's, also where a connection is dropped outside its runtime.

mod door;
mod inbound;
mod runtime;
mod socket;
mod wire;

use std::{fmt, sync::Arc};

use actors::client::Door;
use cluster::{
    ids::{ClusterId, FIRST_TENANT, NodeId},
    membership::Boot,
    ports::{clock::Clock, entropy::Entropy},
    units::{Instant, WallTime},
};
use transport::{
    Limits, Transport, TransportConfig,
    client::{ClientEndpoint, ClientParts, Profile},
    identity::{Authority, Credentials, IdentityError},
};

pub(crate) use inbound::LateInbound;
pub(crate) use wire::Wire;

use door::QuicDoor;

use crate::{
    clock::{HostClock, WALL_ORIGIN_MS},
    entropy::SeededEntropy,
    network::{Address, Fabric},
    rng::Rng,
    trace::Trace,
    world::Members,
};

/// What all nodes agree on, as the transport compares it.
const CONFIG_HASH: u64 = 1;
/// When certificates are issued.
const ISSUED: WallTime = WallTime(WALL_ORIGIN_MS);

/// The packets of a world and who issues its hosts' certificates.
#[derive(Debug)]
pub(crate) struct Quic {
    seed: u64,
    wire: Wire,
    authority: Authority,
}

/// A boot's end of the network.
pub(crate) struct Seat {
    pub(crate) transport: Arc<Transport>,
    pub(crate) inbound: Arc<LateInbound>,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("transport", &self.transport).finish_non_exhaustive()
    }
}

impl Quic {
    /// The wire of `fabric`'s hosts.
    ///
    /// # Panics
    /// If no certificate can be made of names and keys that are all our own.
    pub(crate) fn new(seed: u64, cluster: ClusterId, fabric: Fabric, trace: Trace) -> Self {
        let entropy = SeededEntropy::new(Rng::stream(seed, "certificates", 0));
        let authority = Authority::create(cluster, &entropy, ISSUED);
        #[expect(clippy::expect_used, reason = "names and keys are our own")]
        let authority = authority.expect("the world's authority");
        let wire = Wire::new(Rng::stream(seed, "wire", 0), fabric, trace);
        Self { seed, wire, authority }
    }

    /// A node's certificate: the same for each of its starts, so that nodes may
    /// come at any time and nothing of them need be kept.
    fn certificate(&self, node: NodeId) -> Result<Credentials, IdentityError> {
        let low = u64::try_from(node.0 & u128::from(u64::MAX)).unwrap_or(0);
        let entropy = SeededEntropy::new(Rng::stream(self.seed, "node certificate", low));
        self.authority.issue_node(node, &entropy, ISSUED)
    }

    /// The packets under way.
    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// When the next packet arrives.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.wire.due()
    }

    /// Hands over the packets that arrived by `now`.
    pub(crate) fn advance(&self, now: Instant) {
        self.wire.advance(now);
    }

    /// Starts the transport of a boot; call inside its runtime.
    pub(crate) fn sit(
        &self,
        node: NodeId,
        boot: Boot,
        clock: &Arc<HostClock>,
        rng: Rng,
        trace: &Trace,
    ) -> Result<Seat, String> {
        let credentials = self.certificate(node).map_err(|error| error.to_string())?;
        let me = Address::Node(node);
        let inbound = Arc::new(LateInbound::new(me, clock.clone(), trace.clone()));
        let config = TransportConfig {
            credentials,
            boot,
            config_hash: CONFIG_HASH,
            limits: Limits::default(),
            socket: self.wire.bind(me, me.socket(), clock.clone()),
            entropy: Arc::new(SeededEntropy::new(rng)),
            clock: clock.clone(),
        };
        let transport = Transport::start(config, inbound.clone())
            .map_err(|error| format!("the transport does not start: {error}"))?;
        Ok(Seat { transport, inbound })
    }

    /// A client's door with a certificate of its own, to be used in the
    /// clients' runtime.
    ///
    /// # Panics
    /// If the seed's certificate is unusable, which a test would notice.
    pub(crate) fn door(
        &self,
        client: u32,
        members: Members,
        clock: &Arc<HostClock>,
    ) -> Arc<dyn Door> {
        // Two doors of one client must not draw the same connection ids.
        let rng = Rng::stream(self.seed, "client transport", self.wire.bindings());
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(rng));
        let principal = format!("client-{client}");
        let issued = self.authority.issue_client(&principal, FIRST_TENANT, &*entropy, clock.wall());
        #[expect(clippy::expect_used, reason = "the authority and the name are our own")]
        let credentials = issued.expect("a client's certificate");
        let parts = ClientParts { entropy, clock: clock.clone() };
        let (wire, clock) = (self.wire.clone(), clock.clone());
        let open = move |node: NodeId| {
            let endpoints = vec![Address::Node(node).socket().to_string()];
            let profile = Profile { endpoints, credentials: credentials.clone() };
            let socket = wire.bind_any(Address::Client(client), clock.clone());
            let made = ClientEndpoint::with_socket(profile, parts.clone(), socket);
            #[expect(clippy::expect_used, reason = "a simulated socket is always there")]
            made.expect("an endpoint over a simulated socket")
        };
        Arc::new(QuicDoor::new(members, open))
    }
}
