//! A peer below the transport: bare quinn, any certificate, bytes by hand.

use std::{net::SocketAddr, sync::Arc};

use cluster::{
    formats::{FrameKind, encode_frame},
    ids::{ClusterId, NodeId},
};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, crypto::rustls::QuicClientConfig,
};
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
};
use transport::identity::Credentials;

use crate::harness::loopback;

/// Trusts everybody: the attacker's view.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// A bare endpoint with or without a certificate.
pub(crate) fn endpoint(credentials: Option<&Credentials>) -> Endpoint {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut tls = match credentials {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = [own.certificate(), own.authority()]
                .map(|der| CertificateDer::from(der.to_vec()))
                .to_vec();
            let key = PrivatePkcs8KeyDer::from(own.key().to_pkcs8().to_vec());
            builder.with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key)).unwrap()
        }
    };
    tls.alpn_protocols = vec![b"cdb/1".to_vec()];
    let mut endpoint = Endpoint::client(loopback()).unwrap();
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(crypto)));
    endpoint
}

pub(crate) async fn connect(
    endpoint: &Endpoint,
    address: SocketAddr,
) -> Result<Connection, ConnectionError> {
    endpoint.connect(address, "cdb").unwrap().await
}

/// The bytes of Hello as the README of the handshake lists them.
pub(crate) fn hello(role: u8, cluster: ClusterId, node: NodeId) -> Vec<u8> {
    let mut bytes = vec![1, 0, 1, 0, role, 0, 0, 0];
    bytes.extend_from_slice(&cluster.0.to_le_bytes());
    bytes.extend_from_slice(&node.0.to_le_bytes());
    bytes.extend_from_slice(&3_u64.to_le_bytes());
    bytes.extend_from_slice(&4_u128.to_le_bytes());
    bytes.extend_from_slice(&7_u64.to_le_bytes());
    bytes.extend_from_slice(&1_u64.to_le_bytes());
    assert_eq!(bytes.len(), 80);
    bytes
}

/// Says hello and waits for the answer, or for the end.
pub(crate) async fn greet(connection: &Connection, hello: &[u8]) -> Result<(), ConnectionError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    if send.write_all(&encode_frame(FrameKind::Hello, 1, hello)).await.is_ok() {
        send.finish().unwrap();
    }
    match recv.read_to_end(10_000).await {
        Ok(answer) if answer.len() == 24 + 80 => Ok(()),
        Ok(answer) => panic!("an answer of {} bytes", answer.len()),
        Err(_) => Err(connection.closed().await),
    }
}

/// Code and reason with which the other side closed.
pub(crate) async fn closed(connection: &Connection) -> (u64, String) {
    match connection.closed().await {
        ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into(), String::from_utf8(close.reason.to_vec()).unwrap())
        }
        ConnectionError::ConnectionClosed(close) => {
            (close.error_code.into(), String::from_utf8(close.reason.to_vec()).unwrap())
        }
        other @ (ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted) => panic!("{other}"),
    }
}
