//! The pool under real threads.

use std::{
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use super::*;

fn silent() -> OnPanic {
    Arc::new(|_, _| {})
}

#[test]
fn jobs_of_one_replica_run_in_order_and_never_overlap() {
    let threads = EngineThreads::start(4, 1, silent()).unwrap();
    let (sender, receiver) = mpsc::channel();
    let running: Arc<[AtomicUsize; 3]> = Arc::default();
    for number in 0..300_u64 {
        let (sender, running) = (sender.clone(), Arc::clone(&running));
        let replica = usize::try_from(number % 3).unwrap();
        threads.in_order(
            ReplicaId(number % 3),
            Box::new(move || {
                assert_eq!(running[replica].fetch_add(1, Ordering::SeqCst), 0, "overlap");
                thread::yield_now();
                running[replica].fetch_sub(1, Ordering::SeqCst);
                sender.send((replica, number)).unwrap();
            }),
        );
    }
    drop((sender, threads));
    let mut last = [None; 3];
    let mut count = 0;
    for (replica, number) in receiver {
        assert!(last[replica] < Some(number), "replica {replica} out of order at {number}");
        last[replica] = Some(number);
        count += 1;
    }
    assert_eq!(count, 300);
}

#[test]
fn a_blocked_replica_stops_no_other_and_no_read() {
    let threads = EngineThreads::start(2, 1, silent()).unwrap();
    let (release, blocked) = mpsc::channel::<()>();
    let (sender, receiver) = mpsc::channel();
    threads.in_order(ReplicaId(1), Box::new(move || blocked.recv().unwrap_or_default()));
    for kind in ["other", "read"] {
        let sender = sender.clone();
        let job: Job = Box::new(move || sender.send(kind).unwrap());
        if kind == "read" { threads.beside(job) } else { threads.in_order(ReplicaId(2), job) }
    }
    let mut seen: Vec<_> =
        (0..2).map(|_| receiver.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["other", "read"]);
    release.send(()).unwrap();
}

#[test]
fn a_panic_is_reported_and_the_pool_goes_on() {
    let (sender, receiver) = mpsc::channel();
    let reports = sender.clone();
    let on_panic: OnPanic = Arc::new(move |replica, words| {
        reports.send((replica, words.to_owned())).unwrap();
    });
    let threads = EngineThreads::start(1, 1, on_panic).unwrap();
    threads.in_order(ReplicaId(7), Box::new(|| panic!("poison entry")));
    threads.in_order(ReplicaId(7), Box::new(move || sender.send((None, "next".into())).unwrap()));
    let wait = Duration::from_secs(10);
    let report = receiver.recv_timeout(wait).unwrap();
    assert_eq!(report, (Some(ReplicaId(7)), "poison entry".to_owned()));
    assert_eq!(receiver.recv_timeout(wait).unwrap().1, "next");
}

#[test]
fn the_queue_is_bounded_and_whoever_brings_more_waits() {
    let threads = Arc::new(EngineThreads::start(1, 1, silent()).unwrap());
    let (release, blocked) = mpsc::channel::<()>();
    let (started, running) = mpsc::channel();
    threads.beside(Box::new(move || {
        started.send(()).unwrap();
        blocked.recv().unwrap_or_default();
    }));
    running.recv_timeout(Duration::from_secs(10)).unwrap();
    for _ in 0..JOBS_MAX {
        threads.beside(Box::new(|| {}));
    }
    let (done, waited) = mpsc::channel();
    let producer = Arc::clone(&threads);
    thread::scope(|scope| {
        thread::Builder::new()
            .spawn_scoped(scope, move || {
                producer.beside(Box::new(|| {}));
                done.send(()).unwrap();
            })
            .unwrap();
        assert!(waited.recv_timeout(Duration::from_millis(100)).is_err(), "took more than the cap");
        release.send(()).unwrap();
        waited.recv_timeout(Duration::from_secs(10)).unwrap();
    });
}

#[test]
fn a_job_may_bring_a_job() {
    let threads = Arc::new(EngineThreads::start(1, 1, silent()).unwrap());
    let (sender, receiver) = mpsc::channel();
    let inner = Arc::clone(&threads);
    threads.in_order(
        ReplicaId(1),
        Box::new(move || inner.in_order(ReplicaId(1), Box::new(move || sender.send(1).unwrap()))),
    );
    assert_eq!(receiver.recv_timeout(Duration::from_secs(10)).unwrap(), 1);
}
