//! The ceiling: three processes that answer every put and get at once with nothing in it.
//!
//! What speaks gRPC with this library, to this client, on this machine can answer no
//! faster, whatever it stores. So how much of the way there a store uses is seen in the
//! same turns.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
};

use clusterdb::doors::etcd::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
    kv_server::{Kv, KvServer},
};
use futures_util::stream;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::real_etcd::end;

/// With this in its environment the program is one of the processes.
const IS_CEILING: &str = "ETCD_BENCH_IS_CEILING";

/// The processes, while they run.
#[derive(Debug)]
pub(crate) struct Ceiling {
    children: Vec<Child>,
    /// Where each listens.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Ceiling {
    pub(crate) fn start(processes: usize) -> Self {
        let mut ceiling = Self { children: Vec::new(), addresses: Vec::new() };
        for _ in 0..processes {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.env(IS_CEILING, "1").stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            ceiling.addresses.push(line.trim().parse().unwrap());
            ceiling.children.push(child);
        }
        ceiling
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }
}

impl Drop for Ceiling {
    fn drop(&mut self) {
        self.children.iter_mut().for_each(end);
    }
}

/// Whether this process is to be one of them.
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os(IS_CEILING).is_some()
}

/// Answers until it is ended; says first where it listens.
pub(crate) async fn serve() {
    let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    println!("{}", incoming.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    let incoming = incoming.with_nodelay(Some(true));
    Server::builder()
        .add_service(KvServer::new(Nothing))
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

/// Stores nothing.
struct Nothing;

#[tonic::async_trait]
impl Kv for Nothing {
    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        Ok(Response::new(PutResponse::default()))
    }

    async fn range(&self, _: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        Ok(Response::new(RangeResponse::default()))
    }

    type RangeStreamStream = stream::Empty<Result<RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}
