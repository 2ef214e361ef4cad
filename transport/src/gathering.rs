//! Connections that let others write first: fewer, fuller packets.
//!
//! Whoever writes to a stream wakes the task that drives its connection, and tokio runs
//! at once what was woken last. So a node that answers thirty requests in a row would
//! send thirty datagrams, each with its own system calls, encryption and wake-ups on
//! both sides. Here a woken driver waits until the worker has run what was ready, and
//! then sends what all of it wrote. On an idle node that costs one look at the sockets.
//!
//! The wait has an end without a timer: tokio wakes who yields when a worker's queue is
//! empty, and after 61 polls in any case.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use futures_util::{future::poll_fn, task::AtomicWaker};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::task::yield_now;

/// tokio, but for drivers that gather.
#[derive(Debug)]
pub(crate) struct GatheringRuntime;

impl Runtime for GatheringRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, driver: Driver) {
        tokio::spawn(gather(driver));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Drives, and lets others run between a call and the answer to it.
async fn gather(mut driver: Driver) {
    let call = Arc::new(Call::default());
    let waker = Waker::from(Arc::clone(&call));
    while driver.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        call.wait().await;
        yield_now().await;
        // Whoever called meanwhile is heard in the poll that follows.
        call.is_set.store(false, Ordering::SeqCst);
    }
}

/// What the driver is woken by. Only the first call wakes the task that waits: the
/// others must not cut its pause short.
#[derive(Default)]
struct Call {
    is_set: AtomicBool,
    waits: AtomicWaker,
}

impl Call {
    async fn wait(&self) {
        poll_fn(|context| {
            self.waits.register(context.waker());
            if self.is_set.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_set.swap(true, Ordering::SeqCst) {
            self.waits.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, atomic::AtomicUsize};

    use super::*;

    const WRITERS: usize = 20;

    /// A driver that counts its runs, until it is told to end; what wakes it.
    fn driver(runs: Arc<AtomicUsize>, ends: Arc<AtomicBool>) -> (Driver, Arc<Mutex<Waker>>) {
        let wakes = Arc::new(Mutex::new(Waker::noop().clone()));
        let kept = Arc::clone(&wakes);
        let driver = poll_fn(move |context| {
            runs.fetch_add(1, Ordering::SeqCst);
            *kept.lock().unwrap() = context.waker().clone();
            if ends.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        });
        (Box::pin(driver), wakes)
    }

    // With several workers, tokio runs what was woken last at once.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_driver_runs_once_for_all_who_wrote_before_its_turn() {
        let (runs, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (driver, wakes) = driver(Arc::clone(&runs), Arc::clone(&ends));
        let driving = tokio::spawn(gather(driver));
        let counted = Arc::clone(&runs);
        let writing = tokio::spawn(async move {
            while counted.load(Ordering::SeqCst) == 0 {
                yield_now().await;
            }
            for _ in 0..WRITERS {
                let wakes = Arc::clone(&wakes);
                tokio::spawn(async move { wakes.lock().unwrap().wake_by_ref() });
            }
            while counted.load(Ordering::SeqCst) == 1 {
                yield_now().await;
            }
            ends.store(true, Ordering::SeqCst);
            wakes.lock().unwrap().wake_by_ref();
        });
        writing.await.unwrap();
        driving.await.unwrap();
        // The first, one for all that wrote (two if its turn came between), the last.
        let runs = runs.load(Ordering::SeqCst);
        assert!((3..=4).contains(&runs), "{runs} runs for {WRITERS} writers");
    }
}
