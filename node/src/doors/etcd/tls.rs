//! TLS of the door: what it shows, whom it takes, and which HTTP is spoken within.
//!
//! Handshakes are made here and not by tonic, which would speak HTTP/2 only: a client
//! of the JSON gateway that knows no other than HTTP/1.1 is served like one of gRPC.
//! What is chosen is only told; the server looks at the first words anyhow, so that a
//! client that asks for neither is served as well, as at etcd's.
//!
//! What a handshake goes by may be renewed before the next one (`renewal`).

mod renewal;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub(super) use self::renewal::Renewal;
use super::ALIVE_WITHIN;
use crate::config::TlsConfig;

/// What may be spoken, the better one first (ALPN).
const SPOKEN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Longest file that is read: all authorities that a system trusts take some 200 KiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Makes handshakes, each by what is the newest then.
#[derive(Clone)]
pub(super) struct Handshakes(watch::Receiver<TlsAcceptor>);

impl Handshakes {
    /// Makes one, within its time.
    pub(super) async fn shake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = self.0.borrow().clone();
        timeout(ALIVE_WITHIN, acceptor.accept(stream)).await?
    }
}

/// By the files that the configuration names. It remembers no session of another one:
/// whoever was let in by an authority that is gone has to show a certificate anew.
///
/// # Errors
/// If they cannot be read or used.
fn acceptor(config: &TlsConfig) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(ring::default_provider());
    let clients: Arc<dyn ClientCertVerifier> = match &config.client_authority {
        None => Arc::new(NoClientAuth),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(authority)?);
            let clients =
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
            let clients =
                if config.client_optional { clients.allow_unauthenticated() } else { clients };
            clients.build().with_context(|| unusable(authority))?
        }
    };
    let key = PrivateKeyDer::from_pem_slice(&read(&config.key)?)
        .with_context(|| unusable(&config.key))?;
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(certificates(&config.certificate)?, key)
        .with_context(|| {
            format!("{} with the key {}", unusable(&config.certificate), config.key.display())
        })?;
    tls.alpn_protocols = SPOKEN.map(<[u8]>::to_vec).into();
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

/// All certificates of a file: one at least.
fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    let found = found.with_context(|| unusable(file))?;
    anyhow::ensure!(!found.is_empty(), "there is no certificate in {}", file.display());
    Ok(found)
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", file.display()))?;
    let fits = bytes.len() as u64 <= FILE_BYTES_MAX;
    anyhow::ensure!(fits, "{} has more than {FILE_BYTES_MAX} bytes", file.display());
    Ok(bytes)
}

fn unusable(file: &Path) -> String {
    format!("{} is of no use to the etcd door", file.display())
}
