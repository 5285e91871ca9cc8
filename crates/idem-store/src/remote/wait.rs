//! Waiting for a holder by asking again and again: once for all who wait for the same key.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::completion::{Completion, Promise};
use crate::error::{Error, Kind};
use crate::permit::{Lookup, Waited};
use crate::remote::{Counters, Remote};

/// The first pause; each one after it is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// The longest pause: how late a waiter may wake, and a dropped one be noticed.
const PAUSE_MAX: Duration = Duration::from_millis(50);

impl Remote {
    pub(crate) fn wait(
        self: &Arc<Self>,
        key: &[u8],
        timeout_ms: u64,
    ) -> Result<Completion<Waited>, Error> {
        self.check_key(key)?;
        let place = Place::take(self)?;
        // Beyond a century a timeout makes no difference.
        let timeout = Duration::from_millis(timeout_ms.min(1 << 42));
        let now = Instant::now();
        let (promise, completion) = Promise::new(|_| ());
        let waiter = Waiter {
            promise,
            until: now + timeout,
            patience: now + timeout.max(PAUSE_MAX),
            is_asked_for: false,
            _place: place,
        };
        if let Some(watch) = Watch::join(&self.waits, key, waiter) {
            let watching = watch.run(Arc::downgrade(self));
            self.served.runtime.spawn(watching);
        }
        Ok(completion)
    }
}

/// Who waits for which key.
#[derive(Default)]
pub(crate) struct Waits(Mutex<HashMap<Arc<[u8]>, Watched>>);

struct Watched {
    waiters: Vec<Waiter>,
    /// Tells the [`Watch`] that one more has come. It is also the watch's identity.
    joined: Arc<Notify>,
}

struct Waiter {
    promise: Promise<Waited>,
    until: Instant,
    /// It waits for no answer longer than this lasts.
    patience: Instant,
    /// The question that is under way was asked after it came: its answer counts for it.
    is_asked_for: bool,
    _place: Place,
}

/// One of the places for waiters.
struct Place(Arc<Counters>);

impl Place {
    fn take(store: &Remote) -> Result<Self, Error> {
        if store.closed.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Closed));
        }
        if !store.counters.wait_begins(store.options.waiters_max) {
            return Err(Error::new(Kind::Busy("too many wait for keys")));
        }
        Ok(Self(Arc::clone(&store.counters)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.wait_ends();
    }
}

/// Asks for a key as long as anybody waits for it. It keeps no store alive.
struct Watch {
    waits: Arc<Waits>,
    key: Arc<[u8]>,
    joined: Arc<Notify>,
}

impl Watch {
    /// The watch of this key, if the waiter is the first one.
    fn join(waits: &Arc<Waits>, key: &[u8], waiter: Waiter) -> Option<Self> {
        let mut keys = waits.0.lock();
        if let Some(watched) = keys.get_mut(key) {
            watched.waiters.push(waiter);
            watched.joined.notify_one();
            return None;
        }
        let (key, joined) = (Arc::<[u8]>::from(key), Arc::<Notify>::default());
        let watched = Watched {
            waiters: vec![waiter],
            joined: Arc::clone(&joined),
        };
        keys.insert(Arc::clone(&key), watched);
        drop(keys);
        let waits = Arc::clone(waits);
        Some(Self { waits, key, joined })
    }

    async fn run(self, store: Weak<Remote>) {
        let mut pause = PAUSE_MIN;
        while let Some(answer) = self.ask(&store).await {
            let now = Instant::now();
            let next = self.settle(|waiter| match &answer {
                _ if !waiter.is_asked_for => None,
                Ok(Lookup::InFlight { .. }) => {
                    (waiter.until <= now).then_some(Ok(Waited::TimedOut))
                }
                Ok(_) => Some(Ok(Waited::Ended)),
                Err(error) => Some(Err(error.clone())),
            });
            let Some(next) = next else { return };
            let has_joined = timeout_at(next.min(now + pause), self.joined.notified()).await;
            pause = match has_joined {
                Ok(()) => PAUSE_MIN,
                Err(_) => PAUSE_MAX.min(pause * 2),
            };
        }
    }

    /// What is known of the key, or none when nobody waits for it any more.
    async fn ask(&self, store: &Weak<Remote>) -> Option<Result<Lookup, Error>> {
        for waiter in &mut self.waits.0.lock().get_mut(&self.key)?.waiters {
            waiter.is_asked_for = true;
        }
        let asked = match store.upgrade() {
            Some(store) => store.get(&self.key),
            None => Err(Error::new(Kind::Closed)),
        };
        let mut asked = match asked {
            Ok(asked) => asked,
            Err(error) => return Some(Err(error)),
        };
        loop {
            let look = Instant::now() + PAUSE_MAX;
            if let Ok(answer) = timeout_at(look, &mut asked).await {
                return Some(answer);
            }
            let now = Instant::now();
            self.settle(|waiter| (waiter.patience <= now).then_some(Ok(Waited::TimedOut)))?;
        }
    }

    /// Tells those for whom there is something, leaves out those that were dropped. The first `until` of the
    /// others; none when there are no others: then the watch has ended.
    fn settle(&self, say: impl Fn(&Waiter) -> Option<Result<Waited, Error>>) -> Option<Instant> {
        let (mut told, mut dropped) = (Vec::new(), Vec::new());
        let mut keys = self.waits.0.lock();
        let waiters = &mut keys.get_mut(&self.key)?.waiters;
        for waiter in std::mem::take(waiters) {
            match say(&waiter) {
                Some(result) => told.push((waiter, result)),
                None if waiter.promise.is_abandoned() => dropped.push(waiter),
                None => waiters.push(waiter),
            }
        }
        let next = waiters.iter().map(|waiter| waiter.until).min();
        if next.is_none() {
            keys.remove(&self.key);
        }
        drop(keys);
        // Not under the lock: wakers may run anything.
        drop(dropped);
        for (waiter, result) in told {
            let Waiter {
                promise, _place, ..
            } = waiter;
            // Whoever is told finds the place free.
            drop(_place);
            promise.keep(result);
        }
        next
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The runtime has ended before those who wait did: they are told that the store is closed.
        let mut keys = self.waits.0.lock();
        let ours = |watched: &Watched| Arc::ptr_eq(&watched.joined, &self.joined);
        let left = keys.get(&self.key).is_some_and(ours);
        let left = left.then(|| keys.remove(&self.key));
        drop(keys);
        drop(left);
    }
}
