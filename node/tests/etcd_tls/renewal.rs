//! Certificates are renewed while the door is open.

use std::time::{Duration, Instant};

use clusterdb::doors::etcd::proto::etcdserverpb::kv_client::KvClient;
use tokio::time::sleep;
use tonic::transport::Endpoint;

use super::{
    Door, ROOT, Shown,
    common::LONG,
    doors::{connect, get},
    endpoint, made,
};

/// What the door says of files that it cannot use.
const REFUSED: &str = "goes on with its old certificates";
/// Less than there is between two looks of the door.
const LOOK: Duration = Duration::from_millis(900);
/// Three looks of the door, and half a one.
const LOOKS: Duration = Duration::from_millis(3_500);

/// Whether somebody is let in who comes anew.
async fn is_served(endpoint: Endpoint) -> bool {
    let Ok(channel) = endpoint.connect().await else { return false };
    KvClient::new(channel).range(get("key", "")).await.is_ok()
}

/// Waits until a condition holds.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LONG, "waited {LONG:?} in vain: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

impl Door {
    /// How often it refused files so far.
    fn refusals(&self) -> usize {
        self.cluster.nodes[0].log_text().matches(REFUSED).count()
    }

    /// Whether it shows this one's certificate to whoever comes anew: others are not believed.
    async fn presents(&self, shown: &Shown) -> bool {
        is_served(endpoint(self.address, shown, Some(self.known("root")))).await
    }

    fn write(&self, at: usize, text: &str) {
        std::fs::write(&self.shows.files[at], text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let door = Door::open(false).await;
    let [b, c] = ["b", "c"].map(|name| made(&door.folder, name));
    let mut old = KvClient::new(connect(door.endpoint(ROOT)).await);
    assert!(door.presents(&door.shows).await && !door.presents(&b).await);

    let begun = Instant::now();
    door.write(1, &b.key.serialize_pem());
    door.write(0, &b.certificate.pem());
    let written = begun.elapsed();
    until("b is shown", async || door.presents(&b).await).await;
    assert!(!door.presents(&door.shows).await, "and no longer a");
    let refused = door.refusals();
    assert!(refused == 0 || written > LOOK, "what lay there in between was nobody's concern");

    door.write(1, &c.key.serialize_pem());
    until("a key that does not fit is told", async || door.refusals() == refused + 1).await;
    let text = c.certificate.pem();
    door.write(0, &text[..text.len() / 2]);
    until("half of a certificate is told", async || door.refusals() == refused + 2).await;
    sleep(LOOKS).await;
    assert_eq!(door.refusals(), refused + 2, "once");
    assert!(door.presents(&b).await, "it goes on with what it has");

    door.write(0, &text);
    until("c is shown", async || door.presents(&c).await).await;
    old.range(get("key", "")).await.expect("a connection of before stays");
    let log = door.cluster.nodes[0].log_text();
    for named in &door.shows.files {
        let file = named.to_str().unwrap();
        let told = log.lines().any(|line| line.contains(REFUSED) && line.contains(file));
        assert!(told, "{file} is not named:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_of_clients_is_believed_without_a_restart() {
    let door = Door::open(false).await;
    let carl = made(&door.folder, "carl");
    let comes = |who| is_served(endpoint(door.address, &door.shows, Some(who)));
    let mut ann = KvClient::new(connect(door.endpoint(Some("ann"))).await);
    assert!(comes(door.known("ann")).await && !comes(&carl).await);

    std::fs::write(door.folder.path().join("clients.pem"), carl.certificate.pem()).unwrap();
    until("carl is let in", async || comes(&carl).await).await;
    assert!(!comes(door.known("ann")).await, "ann is not, who comes anew");
    ann.range(get("key", "")).await.expect("a connection of before stays");
}
