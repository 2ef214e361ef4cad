//! Renews what the door shows while it is open.
//!
//! Its files are looked at once a second and read again once they changed and then stayed
//! as they are until the next look: certificate and key are written one after the other,
//! and what lies there in between does not fit. What cannot be used is told once and tried
//! again with each look; until then the door goes on with what it has, unlike etcd, which
//! refuses handshakes meanwhile. Connections that are there stay.
//!
//! Source: etcd reads certificate and key with each handshake (`transport/listener.go`);
//! the authority of clients only when it starts.

use std::{
    convert::Infallible, fs, future::pending, mem, os::unix::fs::MetadataExt, time::Duration,
};

use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_rustls::TlsAcceptor;

use super::{Handshakes, acceptor};
use crate::config::TlsConfig;

/// How often files are looked at: three questions to the system.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another: which it is (whoever renews may put another
/// in its place, as old and as long), when it changed, and its length. None if there is none.
type Stamp = Option<(u64, i64, i64, u64)>;

/// The files of a door, and what they were when.
pub(in super::super) struct Renewal {
    config: TlsConfig,
    newest: watch::Sender<TlsAcceptor>,
    /// When the newest was made of them.
    used: Vec<Stamp>,
    /// With the last look.
    seen: Vec<Stamp>,
    /// When they were last told to be unusable.
    refused: Vec<Stamp>,
}

impl Renewal {
    /// By the files that the configuration names.
    ///
    /// # Errors
    /// If they cannot be read or used.
    pub(in super::super) fn begin(config: TlsConfig) -> anyhow::Result<Self> {
        // Before they are read: what changes meanwhile is seen.
        let used = stamps(&config);
        let newest = watch::Sender::new(acceptor(&config)?);
        Ok(Self { config, newest, seen: used.clone(), used, refused: Vec::new() })
    }

    /// Who makes handshakes by the newest.
    pub(in super::super) fn handshakes(&self) -> Handshakes {
        Handshakes(self.newest.subscribe())
    }

    /// Looks for as long as the door is open.
    pub(in super::super) async fn keep(mut self) -> Infallible {
        loop {
            sleep(LOOK_EVERY).await;
            // A thread of its own: a disk may take its time.
            let look = move || {
                self.look();
                self
            };
            match spawn_blocking(look).await {
                Ok(looked) => self = looked,
                Err(error) => {
                    tracing::error!(%error, "the etcd door no longer renews its certificates");
                    return pending().await;
                }
            }
        }
    }

    fn look(&mut self) {
        let now = stamps(&self.config);
        let settled = mem::replace(&mut self.seen, now.clone()) == now;
        if now == self.used || !settled {
            return;
        }
        match acceptor(&self.config) {
            Ok(acceptor) => {
                self.newest.send_replace(acceptor);
                self.used = now;
                tracing::info!("the etcd door read its certificates again");
            }
            Err(error) if self.refused != now => {
                self.refused = now;
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the etcd door goes on with its old certificates, the new ones are unusable: \
                     mend the file that is named, it is read again by itself"
                );
            }
            Err(_) => {}
        }
    }
}

fn stamps(config: &TlsConfig) -> Vec<Stamp> {
    let files = [&config.certificate, &config.key].into_iter().chain(&config.client_authority);
    let stamp =
        |found: fs::Metadata| (found.ino(), found.ctime(), found.ctime_nsec(), found.size());
    files.map(|file| fs::metadata(file).ok().map(stamp)).collect()
}
