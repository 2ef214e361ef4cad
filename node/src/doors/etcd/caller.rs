//! Who asks: what a connection and its metadata tell, and as whom the store is
//! then asked.
//!
//! Nothing is permitted or refused here: every request goes on as a
//! [`cluster::auth::Principal`] and is judged where it takes effect (`cluster::auth`).

use std::{fmt, sync::Arc};

use tonic::{Extensions, metadata::MetadataMap};

/// Bytes of a token; etcd's simple ones have about 30, signed ones some hundreds.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// What a caller showed.
#[derive(Clone, Default)]
pub struct Caller {
    /// The token of an earlier `Authenticate`, if one was sent.
    pub token: Option<String>,
    /// The client's certificate (DER), if the door asked for one.
    pub certificate: Option<Vec<u8>>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("certificate", &self.certificate.as_ref().map(Vec::len))
            .finish()
    }
}

impl Caller {
    /// What metadata and connection say.
    pub fn of(metadata: &MetadataMap, extensions: &Extensions) -> Self {
        let token = ["token", "authorization"]
            .iter()
            .find_map(|name| metadata.get(*name)?.to_str().ok())
            .filter(|token| token.len() <= TOKEN_BYTES_MAX)
            .map(|token| token.trim_start_matches("Bearer ").to_owned());
        let certificate = certificates(extensions)
            .and_then(|chain| chain.first().map(|certificate| certificate.to_vec()));
        Self { token, certificate }
    }
}

type Chain = Arc<Vec<tonic::transport::CertificateDer<'static>>>;

fn certificates(extensions: &Extensions) -> Option<Chain> {
    use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
    extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?.peer_certs()
}

/// The name in a certificate that the connection has proved, if it names anybody:
/// its common name, as in etcd.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}
