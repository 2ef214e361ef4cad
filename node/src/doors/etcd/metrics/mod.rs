//! `/metrics` on the client port: what dashboards and alerts made for etcd look for, under
//! etcd's names.
//!
//! Only what is known is shown. State is read from the replica of this node when the page is
//! asked for (or from what others say of the volume's shard, where there is none), times and
//! bytes of the disk from the node's own metrics, and what came through this door is counted
//! by it. Where etcd's members count what each of them applied, a door counts what it served:
//! the sum over all doors is the volume's. `node/docs/etcd.md` has the names, compared with a
//! real etcd's by a test.
//!
//! It needs no name and tells no key, no user and no address: what the node's own page at its
//! `http` address tells anybody, too.

mod calls;
mod page;

pub(super) use calls::{Call, Calls};

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use axum::{
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use cluster::{mvcc::version::Version, request::ReplicaStatus};
use tonic::Code;

use self::page::{Page, renamed};
use super::{
    gateway::{Gateway, member_id, revision},
    maintenance::{ETCD_VERSION, STORAGE_VERSION, in_use, is_learner},
};
use crate::observe::{metrics as own, process::ProcessFigures};

/// Families of the node's own page that etcd has under other names.
const SAME: [(&str, &str); 4] = [
    (own::LOG_SYNC_SECONDS, "etcd_disk_wal_fsync_duration_seconds"),
    (own::STORE_COMMIT_SECONDS, "etcd_disk_backend_commit_duration_seconds"),
    (transport::metrics::RAFT_SENT_BYTES, "etcd_network_peer_sent_bytes_total"),
    (own::PROCESS_START_SECONDS, "process_start_time_seconds"),
];

/// What the door counts by itself.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Bytes that connections of clients brought, within TLS.
    pub(super) received: AtomicU64,
    /// Bytes that were sent on them.
    pub(super) sent: AtomicU64,
    /// Streams of watches that are open.
    pub(super) watch_streams: Arc<Present>,
    /// Watches that run.
    pub(super) watches: Arc<Present>,
    /// Events that watches were told.
    pub(super) events: AtomicU64,
    /// Leases whose time began anew.
    pub(super) renewed: AtomicU64,
}

/// How many there are of something now.
#[derive(Debug, Default)]
pub(super) struct Present(AtomicU64);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct One(Arc<Present>);

impl Present {
    /// Counts one more.
    pub(super) fn one(self: &Arc<Self>) -> One {
        self.0.fetch_add(1, Relaxed);
        One(self.clone())
    }

    fn now(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

impl Gateway {
    /// The page, as HTTP.
    pub(super) async fn tell_metrics(self: Arc<Self>, calls: Arc<Calls>) -> Response {
        // The system is asked how many files are open, one by one.
        let made = tokio::task::spawn_blocking(move || self.metrics(&calls)).await;
        match made {
            Ok(page) => {
                ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
            }
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }

    fn metrics(&self, calls: &Calls) -> String {
        let mut page = Page::default();
        self.show_member(&mut page);
        if let Some(known) = self.known() {
            show_state(&mut page, &known);
        }
        self.show_proposals(&mut page, calls);
        self.show_space(&mut page);
        self.show_work(&mut page, calls);
        if let Some(lines) = &self.own_page {
            let own = lines();
            for (ours, theirs) in SAME {
                page.lines(&renamed(&own, ours, theirs));
            }
        }
        if let Ok(figures) = ProcessFigures::now() {
            show_process(&mut page, &figures);
        }
        calls.show(&mut page);
        page.text()
    }

    /// Who it is, and whether it sees a leader.
    fn show_member(&self, page: &mut Page) {
        let mut one = |name, help, label: String| page.family((name, "gauge"), help, [(label, 1)]);
        let id = format!(r#"server_id="{:x}""#, member_id(self.node));
        one("etcd_server_id", "The member, as etcd writes its number.", id);
        let version = format!(r#"server_version="{ETCD_VERSION}""#);
        one("etcd_server_version", "The release of etcd whose API this is.", version);
        let cluster = STORAGE_VERSION.trim_end_matches(".0");
        let cluster = format!(r#"cluster_version="{cluster}""#);
        one("etcd_cluster_version", "The release whose features it claims.", cluster);
        let own = self.status();
        let flag = |is: bool| u8::from(is);
        page.gauge("etcd_server_has_leader", "Whether a leader is known.", flag(self.has_leader()));
        let leads = own.as_ref().is_some_and(|own| own.leading);
        page.gauge("etcd_server_is_leader", "Whether this member leads.", flag(leads));
        let learns = own.as_ref().is_some_and(is_learner);
        page.gauge("etcd_server_is_learner", "Whether it has no vote yet.", flag(learns));
        if let Some(leaders) = self.leaders_seen() {
            let help = "Leaders that this member's replica saw come.";
            page.counter("etcd_server_leader_changes_seen_total", help, leaders);
        }
    }

    fn show_proposals(&self, page: &mut Page, calls: &Calls) {
        if let Some(own) = self.status() {
            // etcd calls positions of its log so, too.
            page.gauge(
                "etcd_server_proposals_committed_total",
                "The position of the log up to which all is decided.",
                own.committed.0,
            );
            page.gauge(
                "etcd_server_proposals_applied_total",
                "The position of the log up to which all took effect here.",
                own.applied.0,
            );
            page.gauge(
                "etcd_server_proposals_pending",
                "Entries of the log that are not decided.",
                own.last.0.saturating_sub(own.committed.0),
            );
        }
        page.counter(
            "etcd_server_proposals_failed_total",
            "Writes through this door whose end is not known, or that found no leader.",
            calls.proposals_failed(),
        );
    }

    fn show_space(&self, page: &mut Page) {
        let space = *self.space.borrow();
        let help = "Bytes of this node's data, as in its status.";
        page.gauge("etcd_mvcc_db_total_size_in_bytes", help, space.used_bytes);
        page.gauge("etcd_debugging_mvcc_db_total_size_in_bytes", help, space.used_bytes);
        let help = "Bytes that this node's data may take.";
        page.gauge("etcd_server_quota_backend_bytes", help, space.capacity_bytes);
    }

    /// What came through this door.
    fn show_work(&self, page: &mut Page, calls: &Calls) {
        let served = |method| calls.came_to("etcdserverpb.KV", method, Code::Ok);
        for (what, method) in
            [("put", "Put"), ("delete", "DeleteRange"), ("txn", "Txn"), ("range", "Range")]
        {
            let help = format!("Requests {method} that this door served.");
            for of in ["etcd_mvcc", "etcd_debugging_mvcc"] {
                page.counter(&format!("{of}_{what}_total"), &help, served(method));
            }
        }
        let lease = |method| calls.came_to("etcdserverpb.Lease", method, Code::Ok);
        let mut counter = |name: &str, help: &str, value: u64| page.counter(name, help, value);
        let granted = "Leases granted through this door.";
        counter("etcd_debugging_lease_granted_total", granted, lease("LeaseGrant"));
        let revoked = "Leases revoked through this door.";
        counter("etcd_debugging_lease_revoked_total", revoked, lease("LeaseRevoke"));
        let counts = &self.counts;
        let renewed = "Leases kept alive through this door.";
        counter("etcd_debugging_lease_renewed_total", renewed, counts.renewed.load(Relaxed));
        let events = "Events that watches of this door were told.";
        counter("etcd_debugging_mvcc_events_total", events, counts.events.load(Relaxed));
        let received = "Bytes that clients sent, by any protocol of this port.";
        counter(
            "etcd_network_client_grpc_received_bytes_total",
            received,
            counts.received.load(Relaxed),
        );
        let sent = "Bytes that were sent to clients.";
        counter("etcd_network_client_grpc_sent_bytes_total", sent, counts.sent.load(Relaxed));
        let streams = "Streams of watches that are open at this door.";
        page.gauge("etcd_debugging_mvcc_watch_stream_total", streams, counts.watch_streams.now());
        let watches = "Watches of these streams.";
        page.gauge("etcd_debugging_mvcc_watcher_total", watches, counts.watches.now());
    }
}

/// What the volume's shard says of itself.
fn show_state(page: &mut Page, known: &ReplicaStatus) {
    page.gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Bytes of the keys and values of the volume, without their history.",
        in_use(known),
    );
    page.gauge("etcd_debugging_mvcc_keys_total", "Keys of the volume.", known.tally.keys);
    let newest = "The newest revision.";
    page.gauge("etcd_debugging_mvcc_current_revision", newest, revision(known.version));
    // etcd's word for: never.
    let compacted = if known.compacted == Version(0) { -1 } else { revision(known.compacted) };
    let help = "The oldest revision that can be read; -1 if nothing was compacted.";
    page.gauge("etcd_debugging_mvcc_compact_revision", help, compacted);
}

fn show_process(page: &mut Page, process: &ProcessFigures) {
    let cpu = "Seconds of processor that the process used.";
    page.counter("process_cpu_seconds_total", cpu, process.cpu.as_secs_f64());
    let resident = "Bytes of memory, pages of the stores in the system's cache too.";
    page.gauge("process_resident_memory_bytes", resident, process.resident_bytes);
    let mapped = "Bytes of addresses, mapped stores too.";
    page.gauge("process_virtual_memory_bytes", mapped, process.virtual_bytes);
    page.gauge("process_open_fds", "Files that are open.", process.open_files);
    page.gauge("process_max_fds", "Files that may be.", process.open_files_max);
}
