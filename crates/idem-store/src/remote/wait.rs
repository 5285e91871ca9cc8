//! Waiting for a holder by asking again and again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::completion::{Completion, Promise};
use crate::error::{Error, Kind};
use crate::permit::{Lookup, Waited};
use crate::remote::{Counters, Remote};

/// The first pause; each one after it is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// The longest pause: how late a waiter may wake.
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
        let (until, patience) = (now + timeout, now + timeout.max(PAUSE_MAX));
        let (promise, completion) = Promise::new(|_| ());
        let key = key.to_vec();
        self.served.runtime.spawn(async move {
            let waited = poll(&place.store, &key, until, patience).await;
            drop(place);
            promise.keep(waited);
        });
        Ok(completion)
    }
}

/// One of the places for waiters. It keeps no store alive.
struct Place {
    store: Weak<Remote>,
    counters: Arc<Counters>,
}

impl Place {
    fn take(store: &Arc<Remote>) -> Result<Self, Error> {
        if store.closed.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Closed));
        }
        let max = store.options.waiters_max;
        if !store.counters.wait_begins(max) {
            return Err(Error::new(Kind::Busy("too many wait for keys")));
        }
        let (store, counters) = (Arc::downgrade(store), Arc::clone(&store.counters));
        Ok(Self { store, counters })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counters.wait_ends();
    }
}

/// Asks at least once, and waits for no answer longer than the `patience` lasts.
async fn poll(
    store: &Weak<Remote>,
    key: &[u8],
    until: Instant,
    patience: Instant,
) -> Result<Waited, Error> {
    let mut pause = PAUSE_MIN;
    loop {
        let asked = match store.upgrade() {
            Some(store) => store.get(key)?,
            None => return Err(Error::new(Kind::Closed)),
        };
        match timeout_at(patience, asked).await {
            Ok(Ok(Lookup::InFlight { .. })) => {}
            Ok(Ok(_)) => return Ok(Waited::Ended),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(Waited::TimedOut),
        }
        let now = Instant::now();
        if now >= until {
            return Ok(Waited::TimedOut);
        }
        sleep_until(until.min(now + pause)).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}
