//! A runtime on threads of its own, for what lives inside another program.
//!
//! Whoever asks it waits on a plain channel, so it may be asked from any thread,
//! a task of another runtime included. It ends, and is waited for, when it is
//! dropped; what then still runs in it is dropped with it.

use std::{
    future::Future,
    io,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// Threads for tasks: an embedded node waits for its disk, not for a core.
const THREADS: usize = 2;

/// A runtime.
#[derive(Debug)]
pub struct OwnRuntime {
    handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A task ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task of the runtime ended without an answer")]
pub struct Unanswered;

impl OwnRuntime {
    /// Starts one.
    ///
    /// # Errors
    /// If the system gives no threads.
    #[expect(clippy::disallowed_methods, reason = "this is a device: a runtime needs a thread")]
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("embedded".into()).spawn(move || {
            // Whoever sends, and whoever is dropped, ends it.
            drop(runtime.block_on(ended));
        })?;
        Ok(Self { handle, end: Some(end), thread: Some(thread) })
    }

    /// Runs a task and waits for it, on whatever thread this is.
    ///
    /// # Errors
    /// If it panics.
    pub fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.handle.spawn(async move {
            // It is asked for below, and nowhere else.
            let _ = reply.send(task.await);
        });
        answer.recv().map_err(|_| Unanswered)
    }

    /// The same for a task, of any runtime.
    ///
    /// # Errors
    /// If it panics, or the runtime ends.
    pub async fn ask<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Unanswered> {
        self.handle.spawn(task).await.map_err(|_| Unanswered)
    }

    /// Begins a task nobody waits for here.
    pub fn begin(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        self.handle.spawn(task)
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_asked_and_dropped_from_inside_another_runtime() {
        let own = OwnRuntime::start().unwrap();
        assert_eq!(own.run(async { 7 }), Ok(7));
        let panicked = own.run(async { assert!(std::env::args().count() == 0, "on purpose") });
        assert_eq!(panicked, Err(Unanswered));
        assert_eq!(own.ask(async { 8 }).await, Ok(8));
        own.begin(std::future::pending());
        drop(own);
    }
}
