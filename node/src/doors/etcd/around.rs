//! What stands around every service of the door: its requests and answers are bounded
//! (`bodies`), and its calls counted (`metrics`).
//!
//! One service does both, and its future is no box: it is in the way of each put.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use actors::client::Room;
use tokio::sync::Semaphore;
use tonic::{
    body::Body,
    codegen::{Service, http},
    server::NamedService,
};

use super::{
    bodies::{CountsItself, WhileWaitedFor, answer, asked, stream},
    frames::in_place,
    metrics::{Call, Calls},
};

/// What services are put into.
#[derive(Debug)]
pub(super) struct Around {
    /// Bytes that requests under way may hold.
    pub(super) bound: Arc<Semaphore>,
    pub(super) calls: Arc<Calls>,
}

impl Around {
    pub(super) fn service<S>(&self, service: S) -> Within<S> {
        Within { service, bound: self.bound.clone(), calls: self.calls.clone() }
    }
}

/// A service whose requests and answers are bounded, and whose calls are counted.
#[derive(Clone, Debug)]
pub(super) struct Within<S> {
    service: S,
    bound: Arc<Semaphore>,
    calls: Arc<Calls>,
}

impl<S: NamedService> NamedService for Within<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Within<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let call = self.calls.begin(request.uri().path());
        let counts_itself = request.extensions_mut().remove::<CountsItself>().is_some();
        let room = (!counts_itself).then(|| Arc::new(Room::of(self.bound.clone())));
        if let Some(room) = &room {
            request = request.map(|body| asked(body, room.clone()));
        }
        Answering { answered: self.service.call(request), room, call }
    }
}

/// An answer that is waited for.
#[derive(Debug)]
pub(super) struct Answering<F> {
    answered: F,
    /// What the request takes; none if its sender counts it, and its answer, by itself.
    room: Option<Arc<Room>>,
    /// None of a method that nobody knows.
    call: Option<Call>,
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<http::Response<Body>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(Pin::new(&mut self.answered).poll(context)).map(in_place);
        // What was asked is held until it is answered, or longer by a stream.
        if self.room.take().is_some() {
            response = bounded(response);
        }
        Poll::Ready(Ok(match self.call.take() {
            Some(call) => call.answered(response),
            None => response,
        }))
    }
}

/// The answer in pieces, if it holds room.
fn bounded(mut response: http::Response<Body>) -> http::Response<Body> {
    if let Some(turn) = response.extensions_mut().remove::<WhileWaitedFor>() {
        return response.map(|body| Body::new(stream(body, turn)));
    }
    match response.extensions_mut().remove::<Arc<Room>>() {
        Some(room) => response.map(|body| Body::new(answer(body, room))),
        None => response,
    }
}
