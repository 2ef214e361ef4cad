//! Peers that mean no good: noise, half-open handshakes, nonsense in frames.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::Duration,
};

use cluster::formats::{FrameKind, encode_frame, frame_header};
use clusterdb::cli::profile::Profile;
use quinn::{ClientConfig, Connection, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
};
use transport::identity::Credentials;

/// Largest frame a header of ours announces: far over any limit.
const HUGE: u32 = 0xffff_ff00;

/// A sequence that looks random and is the same each time.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend_from_slice(&(self.0 ^ (self.0 >> 29)).to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Sends datagrams of noise, some with the first bytes of QUIC packets.
pub(crate) fn send_noise(to: SocketAddr, count: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut noise = Noise(7);
    for number in 0..count {
        let mut bytes = noise.bytes(1 + number * 37 % 1_400);
        if number % 3 == 0 && bytes.len() > 5 {
            let first = 0xc0 | (bytes[0] & 0x3f);
            bytes[..5].copy_from_slice(&[first, 0, 0, 0, 1]);
        } else if number % 3 == 1 {
            bytes[0] = 0x40 | (bytes[0] & 0x3f);
        }
        // A full buffer of the system loses datagrams: so be it.
        drop(socket.send_to(&bytes, to));
    }
}

/// Begins `count` handshakes and says nothing more: real first packets, each
/// from an address of its own. The sockets are kept so that answers arrive.
pub(crate) async fn stall_handshakes(to: SocketAddr, count: usize) -> Vec<UdpSocket> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        // quinn speaks to a socket of ours; its first packet goes on from there.
        let trap = UdpSocket::bind("127.0.0.1:0").unwrap();
        trap.set_nonblocking(true).unwrap();
        let endpoint = endpoint(None);
        let connecting = endpoint.connect(trap.local_addr().unwrap(), "cdb").unwrap();
        let mut packet = [0; 1_500];
        let bytes = loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if let Ok(bytes) = trap.recv(&mut packet) {
                break bytes;
            }
        };
        drop(connecting);
        trap.send_to(&packet[..bytes], to).unwrap();
        sockets.push(trap);
    }
    sockets
}

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

/// A bare endpoint, with or without a certificate.
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
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(crypto)));
    endpoint
}

/// The operator's credentials out of a profile.
pub(crate) fn operator(profile: &Path) -> Credentials {
    let profile = Profile::load(profile).unwrap();
    let certificates = format!("{}{}", profile.certificate, profile.ca);
    Credentials::from_pem(&certificates, &profile.key).unwrap()
}

/// A connection of a client that the node trusts.
pub(crate) async fn trusted(endpoint: &Endpoint, own: &Credentials, to: SocketAddr) -> Connection {
    let connection = endpoint.connect(to, "cdb").unwrap().await.unwrap();
    let mut hello = vec![1, 0, 1, 0, 1, 0, 0, 0];
    hello.extend_from_slice(&own.names().cluster.0.to_le_bytes());
    hello.resize(80, 0);
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&encode_frame(FrameKind::Hello, 1, &hello)).await.unwrap();
    send.finish().unwrap();
    recv.read_to_end(10_000).await.unwrap();
    connection
}

/// Bytes of request streams that break some rule: prelude and frame.
pub(crate) fn nonsense() -> Vec<Vec<u8>> {
    let mut noise = Noise(11);
    let prelude = |class: u8| [class, 0, 0, 0, 0xe8, 3, 0, 0].to_vec();
    let framed = |class, frame: Vec<u8>| [prelude(class), frame].concat();
    let mut huge = frame_header(FrameKind::Request, 1, b"").to_vec();
    huge[8..12].copy_from_slice(&HUGE.to_le_bytes());
    let crc = crc32c::crc32c(&huge[..20]).to_le_bytes();
    huge[20..].copy_from_slice(&crc);
    let mut bent = encode_frame(FrameKind::Request, 1, &noise.bytes(500));
    bent[200] ^= 1;
    let mut all = vec![
        noise.bytes(3),
        noise.bytes(5_000),
        framed(0, huge),
        framed(0, bent),
        framed(200, encode_frame(FrameKind::Request, 1, b"x")),
        framed(0, encode_frame(FrameKind::Raft, 1, b"x")),
        framed(0, encode_frame(FrameKind::Request, 9, b"x")),
        framed(0, encode_frame(FrameKind::Request, 1, b"x")[..20].to_vec()),
    ];
    // Whole frames whose body is no request, for each class.
    for class in 0..4 {
        all.push(framed(class, encode_frame(FrameKind::Request, 1, b"")));
        all.push(framed(class, encode_frame(FrameKind::Request, 1, &noise.bytes(3_000))));
        all.push(framed(class, encode_frame(FrameKind::Request, 1, &[0; 300])));
        all.push(framed(class, encode_frame(FrameKind::Request, 1, &[0xff; 70_000])));
    }
    all
}

/// Sends one such stream and waits for an answer, a reset or the end of the
/// connection; whether one came in time.
pub(crate) async fn utter(connection: &Connection, bytes: &[u8]) -> bool {
    drop(connection.send_datagram(bytes[..bytes.len().min(1_000)].to_vec().into()));
    let said = async {
        let Ok((mut send, mut recv)) = connection.open_bi().await else { return };
        drop(send.write_all(bytes).await);
        drop(send.finish());
        drop(recv.read_to_end(1 << 20).await);
    };
    let answered = tokio::time::timeout(Duration::from_secs(5), said).await.is_ok();
    // Clients may open no such streams: this one waits for a permission for ever.
    let uni = async {
        if let Ok(mut uni) = connection.open_uni().await {
            drop(uni.write_all(bytes).await);
        }
    };
    drop(tokio::time::timeout(Duration::from_millis(20), uni).await);
    answered
}
