//! Many clients, each of which asks one thing at a time.

use std::time::{Duration, Instant};

use clusterdb::doors::etcd::proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use tonic::transport::Channel;

use crate::{report::Figures, servers::Server, volume};

/// Keys that are written and read.
pub(crate) const KEYS: u64 = 10_000;
pub(crate) const VALUE_BYTES: usize = 256;
/// Keys of a range.
const RANGE: u64 = 1_000;

/// What is asked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Put,
    Get,
    Range,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Range => "range",
        }
    }
}

pub(crate) fn key(number: u64) -> Vec<u8> {
    format!("key{number:08}").into_bytes()
}

/// Writes every key once, so that a range is whole from the first.
pub(crate) async fn fill(server: &Server) {
    volume::load(server, KEYS).await;
}

async fn ask(kv: &mut KvClient<Channel>, kind: Kind, chance: u64) {
    match kind {
        Kind::Put => {
            let (key, value) = (key(chance % KEYS), vec![b'v'; VALUE_BYTES]);
            kv.put(PutRequest { key, value, ..PutRequest::default() }).await.unwrap();
        }
        Kind::Get => {
            let get = RangeRequest { key: key(chance % KEYS), ..RangeRequest::default() };
            kv.range(get).await.unwrap();
        }
        Kind::Range => {
            let first = chance % (KEYS - RANGE);
            let (key, range_end) = (key(first), key(first + RANGE));
            let range = RangeRequest { key, range_end, ..RangeRequest::default() };
            let read = kv.range(range).await.unwrap().into_inner();
            assert_eq!(read.kvs.len() as u64, RANGE);
        }
    }
}

/// One client, until the time is up; microseconds of each request.
async fn client(mut kv: KvClient<Channel>, kind: Kind, seed: u64, ends: Instant) -> Vec<u64> {
    let (mut state, mut took) = (seed.wrapping_mul(2) | 1, Vec::new());
    while Instant::now() < ends {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let begin = Instant::now();
        ask(&mut kv, kind, state >> 33).await;
        took.push(u64::try_from(begin.elapsed().as_micros()).unwrap());
    }
    took
}

pub(crate) async fn measure(server: &Server, kind: Kind, clients: usize, seconds: u64) -> Figures {
    let mut connections = Vec::new();
    for number in 0..clients {
        let kv = KvClient::new(server.connect(number).await);
        connections.push(kv.max_decoding_message_size(64 << 20));
    }
    let (before, begin) = (server.cpu(), Instant::now());
    let ends = begin + Duration::from_secs(seconds);
    let clients = connections.into_iter().zip(0..);
    let clients = clients.map(|(kv, seed)| tokio::spawn(client(kv, kind, seed, ends)));
    let mut took = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        took.extend(client.await.unwrap());
    }
    Figures::of(took, begin.elapsed(), server.cpu() - before)
}
