//! TLS at the etcd door: which HTTP is spoken within, and who is let in. Asked by
//! rustls and by hand, by gRPC, and by curl where there is one.
#![cfg(feature = "etcd")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

mod common;
#[path = "common/doors.rs"]
mod doors;
#[path = "etcd_tls/names.rs"]
mod names;
#[path = "common/need.rs"]
mod need;
#[path = "common/real_etcd.rs"]
mod real_etcd;
#[path = "etcd_tls/renewal.rs"]
mod renewal;
#[path = "common/web.rs"]
mod web;

use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use clusterdb::doors::etcd::proto::etcdserverpb::kv_client::KvClient;
use common::{Cluster, Ports};
use doors::{await_volume, connect, get};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// A key of everybody's, in base64.
const KEY: &str = r#"{"key":"a2V5"}"#;

/// A certificate and its key, as files too.
struct Shown {
    certificate: rcgen::Certificate,
    key: KeyPair,
    files: [PathBuf; 2],
}

/// A node whose etcd door is within TLS.
struct Door {
    cluster: Cluster,
    _ports: Ports,
    folder: tempfile::TempDir,
    address: SocketAddr,
    shows: Shown,
    /// The clients that it knows: [`NAMES`].
    knows: [Shown; 3],
}

/// Whose certificates a door knows; none of the last is a user.
const NAMES: [&str; 3] = ["root", "ann", "bob"];
/// Who asks: the first of them.
const ROOT: Option<&str> = Some("root");

fn made(folder: &tempfile::TempDir, name: &str) -> Shown {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let files = ["pem", "key"].map(|kind| folder.path().join(format!("{name}.{kind}")));
    std::fs::write(&files[0], certificate.pem()).unwrap();
    std::fs::write(&files[1], key.serialize_pem()).unwrap();
    Shown { certificate, key, files }
}

/// Of somebody who shows a certificate, for a client of gRPC that may show one too.
fn endpoint(address: SocketAddr, shows: &Shown, known: Option<&Shown>) -> Endpoint {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(shows.certificate.pem()))
        .domain_name("localhost");
    if let Some(Shown { certificate, key, .. }) = known {
        tls = tls.identity(Identity::from_pem(certificate.pem(), key.serialize_pem()));
    }
    Channel::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap()
}

impl Door {
    /// Opens it; clients may come without a certificate or must have one.
    async fn open(optional: bool) -> Self {
        let (folder, ports) = (tempfile::tempdir().unwrap(), Ports::take());
        let address = ports.of(1).0;
        let (shows, knows) = (made(&folder, "door"), NAMES.map(|name| made(&folder, name)));
        let [certificate, key] = shows.files.each_ref().map(|file| file.display());
        let authority = folder.path().join("clients.pem");
        let all: String = knows.iter().map(|known| known.certificate.pem()).collect();
        std::fs::write(&authority, all).unwrap();
        let authority = authority.display();
        let extra = format!(
            "doors:\n  etcd:\n    listen: {address}\n    replicas: 1\n    tls:\n      \
             certificate: {certificate}\n      key: {key}\n      client_authority: {authority}\n      \
             client_optional: {optional}\n"
        );
        let mut cluster = Cluster::prepare(folder.path(), 1, &extra);
        cluster.found();
        let door = Self { cluster, _ports: ports, folder, address, shows, knows };
        await_volume(&mut KvClient::new(connect(door.endpoint(ROOT)).await)).await;
        door
    }

    fn known(&self, name: &str) -> &Shown {
        &self.knows[NAMES.iter().position(|known| *known == name).unwrap()]
    }

    /// For a client of gRPC, with the certificate of a name or without.
    fn endpoint(&self, name: Option<&str>) -> Endpoint {
        endpoint(self.address, &self.shows, name.map(|name| self.known(name)))
    }

    /// A connection that asks for these protocols, as far as the client knows.
    fn connection(
        &self,
        asks: &[&str],
        name: Option<&str>,
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.shows.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if let Some(name) = name {
            let Shown { certificate, key, .. } = self.known(name);
            let key = pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = asks.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = "localhost".try_into().unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(web::WAIT)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(tls, stream))
    }

    /// Posts JSON by HTTP/1.1, which it asked for.
    fn post(&self, name: Option<&str>, path: &str, body: &str) -> (u16, String) {
        let stream = self.connection(&["http/1.1"], name).unwrap();
        web::ask_on(stream, "POST", path, "", body).whole()
    }

    /// The words that curl prints, if there is one.
    fn curl(&self, arguments: &[&str]) -> Option<String> {
        let port = self.address.port();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"])
            .arg(&self.shows.files[0])
            .args(["--connect-to", &format!("localhost:{port}:{}", self.address)])
            .args(["--data", KEY, "--write-out", " HTTP/%{http_version}"])
            .args(arguments)
            .arg(format!("https://localhost:{port}/v3/kv/range"))
            .current_dir(self.folder.path());
        let output = match curl.output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                need::missing("curl");
                return None;
            }
            output => output.unwrap(),
        };
        let words = [output.stdout, output.stderr].concat();
        Some(String::from_utf8(words).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_of_http_are_spoken_within_tls() {
    let door = Door::open(true).await;
    let chosen = |asks: &[&str]| {
        let stream = door.connection(asks, None).unwrap();
        stream.conn.alpn_protocol().map(|chosen| String::from_utf8(chosen.to_vec()).unwrap())
    };
    assert_eq!(chosen(&["h2", "http/1.1"]).as_deref(), Some("h2"));
    assert_eq!(chosen(&["http/1.1", "h2"]).as_deref(), Some("h2"), "the better one");
    assert_eq!(chosen(&["http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(chosen(&[]), None);

    assert_eq!(door.post(None, "/v3/kv/put", r#"{"key":"a2V5","value":"MQ=="}"#).0, 200);
    let asks_nothing = door.connection(&[], None).unwrap();
    for (status, told) in [
        door.post(None, "/v3/kv/range", KEY),
        web::ask_on(asks_nothing, "POST", "/v3/kv/range", "", KEY).whole(),
    ] {
        assert!(status == 200 && told.contains(r#""value":"MQ==""#), "{status} {told}");
    }
    let mut kv = KvClient::new(connect(door.endpoint(None)).await);
    let found = kv.range(get("key", "")).await.unwrap().into_inner().kvs;
    assert_eq!(found[0].value, b"1", "by gRPC");

    for (asks, spoken) in
        [("--http1.1", "HTTP/1.1"), ("--no-alpn", "HTTP/1.1"), ("--http2", "HTTP/2")]
    {
        let Some(told) = door.curl(&[asks]) else { continue };
        assert!(told.contains(r#""value":"MQ==""#) && told.ends_with(spoken), "{asks}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_needs_a_certificate_needs_it_by_http_1_1_too() {
    let door = Door::open(false).await;
    let stranger = door.endpoint(None).connect().await;
    let refused = match stranger {
        Ok(channel) => KvClient::new(channel).range(get("key", "")).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "without a certificate nobody is served");

    assert_eq!(door.post(ROOT, "/v3/kv/range", KEY).0, 200);
    let mut answered = Vec::new();
    if let Ok(mut stranger) = door.connection(&["http/1.1"], None) {
        use std::io::{Read, Write};
        let asked = format!(
            "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{KEY}",
            KEY.len()
        );
        let _ =
            stranger.write_all(asked.as_bytes()).and_then(|()| stranger.read_to_end(&mut answered));
    }
    assert_eq!(String::from_utf8(answered).unwrap(), "");

    let shown = ["--http1.1", "--cert", "root.pem", "--key", "root.key"];
    for (arguments, served) in [(&shown[..], true), (&shown[..1], false)] {
        let Some(told) = door.curl(arguments) else { continue };
        assert_eq!(told.contains(r#""header""#), served, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_says_who_asks_by_http_1_1_too() {
    let door = Door::open(true).await;
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name":"root","password":"r"}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/enable", "{}"),
    ] {
        let (status, told) = door.post(None, path, body);
        assert_eq!(status, 200, "{path}: {told}");
    }
    let (status, told) = door.post(ROOT, "/v3/kv/range", KEY);
    assert_eq!(status, 200, "{told}");
    let (status, told) = door.post(None, "/v3/kv/range", KEY);
    assert!(status == 400 && told.contains("etcdserver: user name is empty"), "{status} {told}");
}
