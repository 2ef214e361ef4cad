//! Who asks: what a connection and its metadata tell, and as whom the store is
//! then asked.
//!
//! Nothing is permitted or refused here: every request goes on as a
//! [`cluster::auth::Principal`] and is judged where it takes effect (`cluster::auth`).

use std::{fmt, sync::Arc};

use tonic::{
    Extensions,
    metadata::{AsciiMetadataValue, MetadataMap},
};

/// Bytes of a token; ours have about 130 and what the name of the user takes.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// What a caller showed.
#[derive(Clone, Default)]
pub struct Caller {
    /// The token of an earlier `Authenticate`, if one was sent; empty if what was sent
    /// cannot be one. It is no less shown then: who shows a wrong token is not to pass by
    /// the name in a certificate.
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
        let token = metadata.get("token").or_else(|| metadata.get("authorization")).map(token_of);
        let certificate = certificates(extensions)
            .and_then(|chain| chain.first().map(|certificate| certificate.to_vec()));
        Self { token, certificate }
    }
}

fn token_of(sent: &AsciiMetadataValue) -> String {
    let text = sent.to_str().ok().filter(|text| text.len() <= TOKEN_BYTES_MAX);
    text.unwrap_or_default().trim_start_matches("Bearer ").to_owned()
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

#[cfg(test)]
mod tests {
    use tonic::metadata::AsciiMetadataValue;

    use super::*;

    fn shown(name: &'static str, value: &[u8]) -> Option<String> {
        let mut metadata = MetadataMap::new();
        metadata.insert(name, AsciiMetadataValue::try_from(value).unwrap());
        Caller::of(&metadata, &Extensions::new()).token
    }

    #[test]
    fn a_token_that_cannot_be_one_is_a_wrong_one_and_not_none() {
        assert_eq!(Caller::of(&MetadataMap::new(), &Extensions::new()).token, None);
        for name in ["token", "authorization"] {
            assert_eq!(shown(name, b"t1.x"), Some("t1.x".into()));
            assert_eq!(shown(name, "tökén".as_bytes()), Some(String::new()));
            assert_eq!(shown(name, &[b'x'; 8_193]), Some(String::new()));
        }
        assert_eq!(shown("authorization", b"Bearer t1.x"), Some("t1.x".into()));
    }
}
