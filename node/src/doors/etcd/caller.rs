//! Who asks: what a connection and its metadata tell, and as whom the store is
//! then asked.
//!
//! Nothing is permitted or refused here: every request goes on as a
//! [`Principal`] and is judged where it takes effect (`cluster::auth`).

use std::{fmt, sync::Arc};

use cluster::{auth::Principal, ports::network::BoxFuture};
use tonic::{Extensions, metadata::MetadataMap};

use super::faults::EtcdFault;

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

/// Tells who a caller is. Every request passes here first.
pub trait Identify: Send + Sync + fmt::Debug {
    /// The principal behind what was shown; a token that is none is refused.
    fn identify(&self, caller: Caller) -> BoxFuture<Result<Principal, EtcdFault>>;
}

/// Knows nobody: all come without a name.
#[derive(Clone, Copy, Debug)]
pub struct Strangers;

impl Identify for Strangers {
    fn identify(&self, _caller: Caller) -> BoxFuture<Result<Principal, EtcdFault>> {
        Box::pin(std::future::ready(Ok(Principal::Nameless)))
    }
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
