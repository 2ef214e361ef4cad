//! TLS as the cluster speaks it: version 1.3 only, ring only, no resumption.
//!
//! A resumed session would skip the verifier (a removed peer could return for
//! a day), so tickets, session caches and 0-RTT are off. The certificate lies
//! behind a resolver: swapping it touches no running connection and needs no
//! restart. Chance and time come from the ports.
//! Source: RFC 8446; the resumption pitfall from others' bug reports.

mod verify;

use std::{
    fmt,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use cluster::{
    ids::ClusterId,
    ports::{clock::Clock, entropy::Entropy},
};
use rustls::{
    SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, GetRandomFailed, SecureRandom, ring as ring_crypto},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
    time_provider::TimeProvider,
};

pub use verify::CertificateFault;
use verify::{ClientVerifier, ServerVerifier};
pub(crate) use verify::{Expected, refusal_sentence};

use crate::identity::{Credentials, IdentityError};

/// Name of the protocol inside TLS; a new number only when the Hello frame
/// itself can no longer be read.
pub(crate) const ALPN: &[u8] = b"cdb/1";

/// Where a verifier leaves the reason it refused: TLS carries only a number.
pub(crate) type FaultSlot = Arc<OnceLock<CertificateFault>>;

/// Reads a private key for signing.
pub(crate) fn load_key(key: &PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
    ring_crypto::sign::any_supported_type(key)
}

/// ring's algorithms with chance from the entropy port. (ring draws its key
/// exchange secrets itself, from the operating system; the simulator hooks
/// that call.)
///
/// rustls wants the generator for ever: one pointer per endpoint is leaked,
/// and endpoints are made once per process or simulated start.
pub(crate) fn provider(entropy: &Arc<dyn Entropy>) -> Arc<CryptoProvider> {
    let random: &'static EntropyRandom = Box::leak(Box::new(EntropyRandom(Arc::clone(entropy))));
    Arc::new(CryptoProvider { secure_random: random, ..ring_crypto::default_provider() })
}

#[derive(Debug)]
struct EntropyRandom(Arc<dyn Entropy>);

impl SecureRandom for EntropyRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.0.fill(bytes);
        Ok(())
    }
}

/// The wall clock as rustls and quinn ask for it.
#[derive(Debug)]
pub(crate) struct ClockTime(pub(crate) Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.wall().0)))
    }
}

impl quinn::TimeSource for ClockTime {
    fn now(&self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH + Duration::from_millis(self.0.wall().0)
    }
}

/// The certificate in use, swappable while connections run.
///
/// The lock is held for the copy of one pointer, inside this crate only:
/// rustls asks for the certificate from its own callbacks.
pub(crate) struct CertificateStore(RwLock<Arc<CertifiedKey>>);

impl CertificateStore {
    pub(crate) fn new(credentials: &Credentials) -> Result<Arc<Self>, IdentityError> {
        Ok(Arc::new(Self(RwLock::new(Arc::new(credentials.certified_key()?)))))
    }

    pub(crate) fn replace(&self, credentials: &Credentials) -> Result<(), IdentityError> {
        let key = Arc::new(credentials.certified_key()?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for CertificateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateStore")
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for CertificateStore {
    fn resolve(&self, _hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What both sides of TLS are made of.
#[derive(Clone, Debug)]
pub(crate) struct TlsParts {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) time: Arc<dyn TimeProvider>,
}

impl TlsParts {
    pub(crate) fn new(entropy: &Arc<dyn Entropy>, clock: &Arc<dyn Clock>) -> Self {
        Self { provider: provider(entropy), time: Arc::new(ClockTime(Arc::clone(clock))) }
    }

    /// The answering side: certificates of this cluster, or none at all.
    pub(crate) fn server(
        &self,
        cluster: ClusterId,
        authority: &CertificateDer<'static>,
        store: Arc<CertificateStore>,
    ) -> Result<rustls::ServerConfig, rustls::Error> {
        let verifier = ClientVerifier::new(cluster, authority, &self.provider)?;
        let mut config = rustls::ServerConfig::builder_with_details(
            Arc::clone(&self.provider),
            Arc::clone(&self.time),
        )
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(store);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// The dialing side. Why a server was refused is left in the slot.
    pub(crate) fn client(
        &self,
        expected: Expected,
        store: Option<Arc<CertificateStore>>,
    ) -> Result<(rustls::ClientConfig, FaultSlot), rustls::Error> {
        let slot = FaultSlot::default();
        let verifier = ServerVerifier::new(expected, &self.provider, Arc::clone(&slot))?;
        let builder = rustls::ClientConfig::builder_with_details(
            Arc::clone(&self.provider),
            Arc::clone(&self.time),
        )
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match store {
            Some(store) => builder.with_client_cert_resolver(store),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        // The name says which node is dialed and would travel in the clear.
        config.enable_sni = false;
        Ok((config, slot))
    }
}
