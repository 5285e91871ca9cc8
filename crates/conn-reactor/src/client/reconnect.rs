//! When and where one client tries to connect: time and randomness are arguments, and there is no socket here.

use std::net::SocketAddr;

use circuit::{Backoff, Breaker, Config, FailureRate, Jitter, Outcome, Permit, Policy, State};

/// How clients come back after a loss. See [`Reconnect::default`] for the values to start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// The pauses between tries. `first_window_ms` spreads the first try after a loss too: that one is the storm when
    /// a million clients lose one server.
    pub backoff: Policy,
    /// Which endpoint the first try after a session goes to.
    pub prefer: Prefer,
    /// A session that lasted less counts as one more failure: the pauses go on growing, and the next endpoint is tried.
    pub stable_ms: u32,
    /// The rules of each endpoint's breaker; `None`: every try is made. Clients that share [`Endpoints`] share its
    /// breakers, so one finds out for all of them that nobody answers. An endpoint that welcomed somebody within the last
    /// second is there, and at most busy: what it refuses then is for the pauses, and the breaker does not hear of it.
    pub breaker: Option<Config>,
}

/// Which endpoint comes first after a session that was stable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Prefer {
    /// The one that it was with.
    #[default]
    Last,
    /// The first one of the list.
    First,
}

impl Default for Reconnect {
    /// The first try within 2 s, then full jitter below 0.5 s, doubling up to 30 s; back to the last endpoint; stable
    /// after 5 s; five failures in a row, and no welcome for a second, open a breaker for 5 s, which doubles up to 30 s, and one success closes it.
    fn default() -> Self {
        let mut breaker = Config::essay();
        breaker.failure_rate = FailureRate::Off;
        breaker.consecutive_failures = 5;
        breaker.open_ms = 5_000;
        breaker.open_max_ms = 30_000;
        breaker.successes_to_close = 1;
        Self {
            backoff: Policy {
                base_ms: 500,
                cap_ms: 30_000,
                jitter: Jitter::Full,
                first_window_ms: 2_000,
            },
            prefer: Prefer::Last,
            stable_ms: 5_000,
            breaker: Some(breaker),
        }
    }
}

/// Where clients may connect to, with a breaker for each; shared by all clients of a shard.
#[derive(Debug)]
pub struct Endpoints {
    list: Box<[Endpoint]>,
    rules: Reconnect,
}

/// How long an endpoint that answered is taken to be there. Among many clients a busy one refuses any number in a row.
const ANSWERED_HOLDS_MS: u64 = 1_000;

#[derive(Debug)]
struct Endpoint {
    addr: SocketAddr,
    breaker: Option<Breaker>,
    /// When it answered a try last.
    answered_ms: Option<u64>,
    /// When the breaker lets tries through again, and for how long it let none through by then, as far as tries have seen.
    refuses: (u64, u64),
}

impl Endpoint {
    /// How long the breaker refuses in all that refuses for `retry_after_ms` more.
    fn open_ms(&mut self, now_ms: u64, retry_after_ms: u64) -> u64 {
        let until_ms = now_ms.saturating_add(retry_after_ms);
        // At once again, behind a probe that is under way: nothing to come later by.
        if self.refuses.0 != until_ms || retry_after_ms == 0 {
            // The first one that is refused since it opened. Where many share the breaker that is at once.
            self.refuses = (until_ms, retry_after_ms);
        }
        self.refuses.1
    }
}

impl Endpoints {
    /// The addresses, the preferred one first, and how to come back to them. The list is cut at 65,535 addresses.
    ///
    /// # Panics
    /// When there is no address.
    #[must_use]
    pub fn new(addrs: &[SocketAddr], rules: Reconnect) -> Self {
        assert!(!addrs.is_empty(), "a client needs an endpoint");
        let endpoint = |addr: &SocketAddr| Endpoint {
            addr: *addr,
            breaker: rules.breaker.clone().map(Breaker::new),
            answered_ms: None,
            refuses: (0, 0),
        };
        let list = addrs
            .iter()
            .take(u16::MAX.into())
            .map(endpoint)
            .collect::<Box<[_]>>();
        Self { list, rules }
    }

    /// The address of an endpoint, by its place in the list.
    #[must_use]
    pub fn addr(&self, endpoint: usize) -> Option<SocketAddr> {
        self.list.get(endpoint).map(|endpoint| endpoint.addr)
    }

    /// What an endpoint's breaker does with tries; `None` without breakers, or beyond the list.
    #[must_use]
    pub fn breaker(&self, endpoint: usize, now_ms: u64) -> Option<State> {
        let breaker = self.list.get(endpoint)?.breaker.as_ref()?;
        Some(breaker.state(now_ms))
    }

    fn after(&self, endpoint: u16) -> u16 {
        match usize::from(endpoint) + 1 {
            next if next < self.list.len() => endpoint + 1,
            _ => 0,
        }
    }

    fn record(&mut self, endpoint: u16, permit: Option<Box<Permit>>, how: Outcome, now_ms: u64) {
        let endpoint = &mut self.list[usize::from(endpoint)];
        let answered_ms = endpoint.answered_ms;
        match how {
            Outcome::Success => endpoint.answered_ms = Some(now_ms),
            // The permit goes back unused.
            Outcome::Failure
                if answered_ms.is_some_and(|at| now_ms.saturating_sub(at) < ANSWERED_HOLDS_MS) =>
            {
                return;
            }
            Outcome::Failure => {}
        }
        if let (Some(breaker), Some(permit)) = (&mut endpoint.breaker, permit) {
            breaker.record(*permit, how, now_ms);
        }
    }
}

/// The way of one client back to its server: a state machine in 40 bytes.
///
/// Whoever drives it asks [`attempt`](Self::attempt) when a pause is over, makes the connection, says
/// [`established`](Self::established) when the peer has welcomed the session, and [`lost`](Self::lost) when the try
/// failed or the connection is gone; that returns the next pause. [`Clients`](super::Clients) does so with a reactor.
///
/// ```
/// use conn_reactor::client::{Attempt, Endpoints, Reconnect, Reconnector};
///
/// let addrs = ["192.0.2.1:7400".parse()?, "192.0.2.2:7400".parse()?];
/// let mut endpoints = Endpoints::new(&addrs, Reconnect::default());
/// let mut client = Reconnector::new();
/// let (now_ms, random) = (0, 17); // your clock, your generator
/// assert_eq!(client.attempt(&mut endpoints, now_ms, random), Attempt::Connect(addrs[0]));
/// let pause_ms = client.lost(&mut endpoints, now_ms, random);
/// assert!(pause_ms <= 2_000);
/// // After a failure the next endpoint.
/// assert_eq!(client.attempt(&mut endpoints, now_ms + pause_ms, random), Attempt::Connect(addrs[1]));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Default)]
pub struct Reconnector {
    backoff: Backoff,
    /// When to come back after the next loss, counted from there.
    slot_ms: Option<u32>,
    /// Where the connection goes to, or the next try.
    endpoint: u16,
    phase: Phase,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Waiting,
    /// With the breaker's permit while it does not know how the try ends.
    Trying(Option<Box<Permit>>),
    Established {
        since_ms: u64,
    },
}

/// What to do now that a pause is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Connect to this address.
    Connect(SocketAddr),
    /// The breakers of all endpoints refuse: ask again after this time.
    Wait {
        /// Milliseconds, spread as the pauses are.
        delay_ms: u64,
    },
}

impl Reconnector {
    /// A client that has never tried.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses an endpoint: the one whose turn it is, or the next one whose breaker lets a try through.
    /// `random` must be uniform over all `u64`, here and below.
    pub fn attempt(&mut self, endpoints: &mut Endpoints, now_ms: u64, random: u64) -> Attempt {
        let mut shift_ms = u64::MAX;
        for _ in 0..endpoints.list.len() {
            let endpoint = &mut endpoints.list[usize::from(self.endpoint)];
            let permit = match &mut endpoint.breaker {
                None => None,
                Some(breaker) => match breaker.try_call(now_ms) {
                    Ok(permit) => Some(Box::new(permit)),
                    Err(rejected) => {
                        let open_ms = endpoint.open_ms(now_ms, rejected.retry_after_ms());
                        shift_ms = shift_ms.min(open_ms);
                        self.endpoint = endpoints.after(self.endpoint);
                        continue;
                    }
                },
            };
            self.phase = Phase::Trying(permit);
            return Attempt::Connect(endpoint.addr);
        }
        // Those that wait for one breaker must not come together when it closes: all come later by as long as it is open,
        // so that slots which it has covered stay in a row, and by a jitter, for those that came together already.
        // They have not tried, so the backoff does not move on.
        let policy = &endpoints.rules.backoff;
        let spread_ms = { self.backoff }
            .next_delay_ms(policy, random)
            .max(Backoff::new().next_delay_ms(policy, random));
        Attempt::Wait {
            delay_ms: shift_ms.saturating_add(spread_ms.max(1)),
        }
    }

    /// The peer has welcomed the session.
    pub fn established(&mut self, endpoints: &mut Endpoints, now_ms: u64) {
        self.answered(endpoints, now_ms);
        self.phase = Phase::Established { since_ms: now_ms };
    }

    /// The peer said something that shows that it works, though not a welcome: too busy, or an id that is taken.
    /// For the breaker that is a success; the pauses grow all the same.
    pub fn answered(&mut self, endpoints: &mut Endpoints, now_ms: u64) {
        if let Phase::Trying(permit) = &mut self.phase {
            endpoints.record(self.endpoint, permit.take(), Outcome::Success, now_ms);
        }
    }

    /// The try failed, or the connection is gone. Returns the pause before the next try, in milliseconds.
    pub fn lost(&mut self, endpoints: &mut Endpoints, now_ms: u64, random: u64) -> u64 {
        match std::mem::take(&mut self.phase) {
            Phase::Established { since_ms } => {
                if now_ms.saturating_sub(since_ms) < endpoints.rules.stable_ms.into() {
                    self.endpoint = endpoints.after(self.endpoint);
                } else {
                    self.backoff.reset();
                    if endpoints.rules.prefer == Prefer::First {
                        self.endpoint = 0;
                    }
                }
            }
            Phase::Trying(permit) => {
                endpoints.record(self.endpoint, permit, Outcome::Failure, now_ms);
                self.endpoint = endpoints.after(self.endpoint);
            }
            Phase::Waiting => {}
        }
        self.pause_ms(endpoints, random)
    }

    /// The try that [`attempt`](Self::attempt) asked for could not even begin here: no descriptor, no route. The
    /// breaker learns nothing from it. Returns the pause before the next try, in milliseconds, at the next endpoint.
    pub fn not_tried(&mut self, endpoints: &mut Endpoints, random: u64) -> u64 {
        self.phase = Phase::Waiting;
        self.endpoint = endpoints.after(self.endpoint);
        self.pause_ms(endpoints, random)
    }

    fn pause_ms(&mut self, endpoints: &Endpoints, random: u64) -> u64 {
        let policy = &endpoints.rules.backoff;
        match self.slot_ms.take() {
            Some(slot_ms) if self.backoff.tries() == 0 => {
                self.backoff = Backoff::in_slot(slot_ms);
                self.backoff.next_delay_ms(policy, random)
            }
            // The session was not stable: a server that ends each one at once, or a client that it cannot stand, must
            // not go round and round at the pace of an early slot.
            Some(slot_ms) => self
                .backoff
                .next_delay_ms(policy, random)
                .max(slot_ms.into()),
            None => self.backoff.next_delay_ms(policy, random),
        }
    }

    /// The server gave this client a place among those that come back: the first try after the next loss is
    /// `slot_ms` after it, and the usual pauses follow. While sessions are not [stable](Reconnect::stable_ms), the pause
    /// that is usual then is the shortest. Said again, the last word holds.
    pub fn assign_slot(&mut self, slot_ms: u32) {
        self.slot_ms = Some(slot_ms);
    }

    /// The server has parted from this client with a word of its own, so it has not lost all of them at once: the next
    /// pause is the usual one.
    pub fn forget_slot(&mut self) {
        self.slot_ms = None;
    }

    /// The server asks that this client come back at any time within `window_ms` of the next loss.
    pub fn return_within(&mut self, window_ms: u32, random: u64) {
        self.slot_ms = u32::try_from(share_of(window_ms.into(), random)).ok();
    }

    /// Where the connection goes to, or the next try: a place in the list of [`Endpoints`].
    #[must_use]
    pub fn endpoint(&self) -> usize {
        self.endpoint.into()
    }

    /// Whether the session stands.
    #[must_use]
    pub fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established { .. })
    }
}

/// A time from 0 to `most_ms`, as far into it as `random` is into all of `u64`.
fn share_of(most_ms: u64, random: u64) -> u64 {
    ((u128::from(random) * (u128::from(most_ms) + 1)) >> 64) as u64
}
