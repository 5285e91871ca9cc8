//! Waiting for a holder by asking again and again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::completion::{Completion, Promise};
use crate::error::{Error, Kind};
use crate::permit::{Lookup, Waited};
use crate::remote::Remote;

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
        let until = std::time::Instant::now() + timeout;
        let (promise, completion) = Promise::new(|_| ());
        let key = key.to_vec();
        self.served.runtime.spawn(async move {
            let waited = poll(&place.0, &key, until.into()).await;
            drop(place);
            promise.keep(waited);
        });
        Ok(completion)
    }
}

/// One of the places for waiters. It keeps no store alive.
struct Place(Weak<Remote>);

impl Place {
    fn take(store: &Arc<Remote>) -> Result<Self, Error> {
        if store.closed.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Closed));
        }
        let max = store.options.waiters_max;
        let taken = store
            .waiters
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiters| {
                (waiters < max).then_some(waiters + 1)
            });
        taken.map_err(|_| Error::new(Kind::Busy("too many wait for keys")))?;
        Ok(Self(Arc::downgrade(store)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(store) = self.0.upgrade() {
            store.waiters.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

async fn poll(store: &Weak<Remote>, key: &[u8], until: Instant) -> Result<Waited, Error> {
    let mut pause = PAUSE_MIN;
    loop {
        let asked = match store.upgrade() {
            Some(store) => store.get(key)?,
            None => return Err(Error::new(Kind::Closed)),
        };
        if !matches!(asked.await?, Lookup::InFlight { .. }) {
            return Ok(Waited::Ended);
        }
        let now = Instant::now();
        if now >= until {
            return Ok(Waited::TimedOut);
        }
        sleep_until(until.min(now + pause)).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}
