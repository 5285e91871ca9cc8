//! `idem_store::Store` in a directory: a begin that declares its effect.

use std::collections::VecDeque;
use std::future::Future as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use idem_store::{Begin, Begun, Completion, Failure, Fingerprint, Options, Permit, Store};

use crate::Error;
use crate::turns::{Contender, Key, Load, Times, VALUE, new_key, on_threads, record, times};

pub(crate) const NAME: &str = "idem-store";

pub(crate) const NOW: u64 = 1_700_000_000_000;

pub(crate) struct Embedded {
    store: Store,
    /// Of the last turn; its memory stays for the next one.
    permits: Vec<Permit>,
}

impl Embedded {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        Ok(Self {
            store: Store::open(dir, Options::new())?,
            permits: Vec::new(),
        })
    }
}

pub(crate) fn begin(store: &Store, key: &Key, now_ms: u64) -> Completion<Begun> {
    store.begin(&Begin::new(key, Fingerprint([3; 32]), 60_000, now_ms).declare(&VALUE))
}

/// A begin that is refused because too much waits is asked again.
pub(crate) fn begin_blocking(store: &Store, key: &Key, now_ms: u64) -> Permit {
    loop {
        match begin(store, key, now_ms).wait() {
            Ok(Begun::Fresh(permit)) => return permit,
            Err(error) if error.is_busy() => std::thread::yield_now(),
            other => panic!("a new key: {other:?}"),
        }
    }
}

impl Contender for Embedded {
    fn name(&self) -> &'static str {
        NAME
    }

    fn turn(&mut self, load: Load, slice: Duration) -> Times {
        let store = &self.store;
        match load {
            Load::Threads(1) => on_one_thread(store, slice, &mut self.permits),
            Load::Threads(n) => {
                let permits: Vec<Mutex<Vec<Permit>>> = (0..64).map(|_| Mutex::default()).collect();
                let times = on_threads(n, slice, |key| {
                    let permit = begin_blocking(store, key, NOW);
                    let own = usize::from(key[15]) % 64;
                    permits[own].lock().expect("sound").push(permit);
                });
                let taken = permits.into_iter();
                let taken = taken.flat_map(|own| own.into_inner().expect("sound"));
                self.permits.extend(taken);
                times
            }
            Load::Pending(n) => pending(store, n, slice, &mut self.permits),
        }
    }

    /// What was begun ends, so that the log lives on as in a service: old segments go, and their
    /// files are used again.
    fn tidy(&mut self) {
        let ended: Vec<_> = self
            .permits
            .drain(..)
            .map(|permit| self.store.fail(permit, Failure::NotHappened, NOW))
            .collect();
        for ended in ended {
            ended.wait().expect("ends");
        }
        // The log shrinks to what it needs.
        let patience = Instant::now();
        while self.store.stats().segments > 3 && patience.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn on_one_thread(store: &Store, slice: Duration, permits: &mut Vec<Permit>) -> Times {
    let mut times = times();
    let start = Instant::now();
    let mut before = start;
    while before - start < slice {
        permits.push(begin_blocking(store, &new_key(), NOW));
        let now = Instant::now();
        record(&mut times, now - before);
        before = now;
    }
    times
}

/// Wakes the thread that drives the completions.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// One thread keeps `in_flight` begins going, without a runtime: it polls the oldest, because
/// batches become durable in order.
fn pending(store: &Store, in_flight: usize, slice: Duration, permits: &mut Vec<Permit>) -> Times {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut times = times();
    let mut queue: VecDeque<(Instant, Completion<Begun>)> = VecDeque::with_capacity(in_flight);
    let start = Instant::now();
    let mut now = start;
    while now - start < slice || !queue.is_empty() {
        while queue.len() < in_flight && now - start < slice {
            queue.push_back((now, begin(store, &new_key(), NOW)));
        }
        let mut any = false;
        while let Some((began, oldest)) = queue.front_mut() {
            match Pin::new(oldest).poll(&mut context) {
                Poll::Pending => break,
                Poll::Ready(Ok(Begun::Fresh(permit))) => {
                    if !any {
                        now = Instant::now();
                        any = true;
                    }
                    record(&mut times, now - *began);
                    permits.push(permit);
                }
                // Refused for want of a segment; not counted.
                Poll::Ready(Err(error)) if error.is_busy() => {}
                Poll::Ready(other) => panic!("a new key: {other:?}"),
            }
            queue.pop_front();
        }
        if !any {
            std::thread::park();
            now = Instant::now();
        }
    }
    times
}
