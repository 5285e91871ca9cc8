//! The structures that take part, behind one trait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::poll_fn;
use std::hint::black_box;
use std::task::Poll;
use std::time::Duration;

use hierarchical_hash_wheel_timer::wheels::Skip;
use hierarchical_hash_wheel_timer::wheels::cancellable::{
    CancellableTimerEntry, QuadWheelWithOverflow as Cancellable,
};
use hierarchical_hash_wheel_timer::wheels::quad_wheel::{QuadWheelWithOverflow as Quad, no_prune};
use tokio_util::time::DelayQueue;

/// A set of timers with a `u64` each; ticks are milliseconds from 0.
pub(crate) trait Timers {
    /// What names a timer.
    type Key: Copy;
    /// Whether `cancel` does anything.
    const CANCELS: bool = true;
    /// An empty set at tick 0.
    fn new() -> Self;
    /// Adds a timer.
    fn insert(&mut self, deadline: u64, value: u64) -> Self::Key;
    /// Takes one out.
    fn cancel(&mut self, key: Self::Key);
    /// Fires what is due at `now` and returns how many that were.
    fn advance(&mut self, now: u64) -> usize;
    /// The longest time that the caller is held by one call that cannot be made shorter, over the next `ticks`.
    fn longest_step(&mut self, now: u64, ticks: u64) -> Duration {
        let mut longest = Duration::ZERO;
        for tick in now + 1..=now + ticks {
            let started = crate::cpu_time();
            self.advance(tick);
            longest = longest.max(crate::cpu_time() - started);
        }
        longest
    }
}

pub(crate) struct Ours(timerwheel::Wheel<u64>);

impl Timers for Ours {
    type Key = timerwheel::Key;

    fn new() -> Self {
        Ours(timerwheel::Wheel::new(0))
    }

    fn insert(&mut self, deadline: u64, value: u64) -> timerwheel::Key {
        self.0.insert(deadline, value)
    }

    fn cancel(&mut self, key: timerwheel::Key) {
        black_box(self.0.cancel(key));
    }

    fn advance(&mut self, now: u64) -> usize {
        let mut fired = 0;
        loop {
            let advance = self.0.advance(now, 1_000, |_, value| {
                black_box(value);
            });
            fired += advance.fired;
            if !advance.more_due {
                return fired;
            }
        }
    }

    fn longest_step(&mut self, now: u64, ticks: u64) -> Duration {
        let mut longest = Duration::ZERO;
        loop {
            let started = crate::cpu_time();
            let more = bounded_step(&mut self.0, now + ticks);
            longest = longest.max(crate::cpu_time() - started);
            if !more {
                return longest;
            }
        }
    }
}

/// One step with a budget of 1,000; a function of its own so that callgrind can dump after each call.
#[inline(never)]
pub(crate) fn bounded_step(wheel: &mut timerwheel::Wheel<u64>, now: u64) -> bool {
    wheel
        .advance(now, 1_000, |_, value| {
            black_box(value);
        })
        .more_due
}

/// tokio-util's queue on a runtime whose clock stands still unless told.
pub(crate) struct Delay {
    queue: DelayQueue<u64>,
    /// Leaked, so that its context can be entered once for all calls: a few kilobytes a round.
    runtime: &'static tokio::runtime::Runtime,
    _inside: tokio::runtime::EnterGuard<'static>,
    start: tokio::time::Instant,
    now: u64,
}

impl Timers for Delay {
    type Key = KeyOfDelay;

    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let runtime: &'static tokio::runtime::Runtime = Box::leak(Box::new(runtime));
        let _inside = runtime.enter();
        Delay {
            queue: DelayQueue::new(),
            runtime,
            _inside,
            start: tokio::time::Instant::now(),
            now: 0,
        }
    }

    fn insert(&mut self, deadline: u64, value: u64) -> KeyOfDelay {
        let when = self.start + Duration::from_millis(deadline);
        KeyOfDelay(self.queue.insert_at(value, when))
    }

    fn cancel(&mut self, key: KeyOfDelay) {
        black_box(self.queue.remove(&key.0));
    }

    fn advance(&mut self, now: u64) -> usize {
        let by = Duration::from_millis(now - self.now);
        self.now = now;
        let queue = &mut self.queue;
        self.runtime.block_on(async {
            tokio::time::advance(by).await;
            let mut fired = 0;
            // Without this the runtime's fairness ends a turn after 128 timers.
            tokio::task::unconstrained(poll_fn(|context| {
                while let Poll::Ready(Some(expired)) = queue.poll_expired(context) {
                    black_box(expired.into_inner());
                    fired += 1;
                }
                Poll::Ready(fired)
            }))
            .await
        })
    }
}

#[derive(Clone, Copy)]
pub(crate) struct KeyOfDelay(tokio_util::time::delay_queue::Key);

#[derive(Debug)]
pub(crate) struct Entry {
    id: u64,
    value: u64,
}

impl CancellableTimerEntry for Entry {
    type Id = u64;

    fn id(&self) -> &u64 {
        &self.id
    }
}

/// hierarchical_hash_wheel_timer without cancel.
pub(crate) struct QuadWheel {
    wheel: Quad<u64>,
    now: u64,
}

impl Timers for QuadWheel {
    type Key = ();
    const CANCELS: bool = false;

    fn new() -> Self {
        QuadWheel {
            wheel: Quad::new(no_prune::<u64>),
            now: 0,
        }
    }

    fn insert(&mut self, deadline: u64, value: u64) {
        let delay = Duration::from_millis(deadline - self.now);
        self.wheel
            .insert_with_delay(value, delay)
            .expect("a deadline ahead");
    }

    fn cancel(&mut self, (): ()) {}

    fn advance(&mut self, now: u64) -> usize {
        let mut fired = 0;
        while self.now < now {
            match self.wheel.can_skip() {
                Skip::Empty => return self.end(now, fired),
                Skip::Millis(ticks) => {
                    let ticks = u64::from(ticks).min(now - self.now);
                    self.wheel.skip(ticks as u32);
                    self.now += ticks;
                }
                Skip::None => {
                    self.now += 1;
                    for value in self.wheel.tick() {
                        black_box(value);
                        fired += 1;
                    }
                }
            }
        }
        fired
    }
}

impl QuadWheel {
    /// An empty wheel starts anew: its clock means nothing.
    fn end(&mut self, now: u64, fired: usize) -> usize {
        self.now = now;
        fired
    }
}

/// hierarchical_hash_wheel_timer with cancel.
pub(crate) struct CancelWheel {
    wheel: Cancellable<Entry>,
    now: u64,
    id: u64,
}

impl Timers for CancelWheel {
    type Key = u64;

    fn new() -> Self {
        CancelWheel {
            wheel: Cancellable::new(),
            now: 0,
            id: 0,
        }
    }

    fn insert(&mut self, deadline: u64, value: u64) -> u64 {
        self.id += 1;
        let id = self.id;
        let delay = Duration::from_millis(deadline - self.now);
        self.wheel
            .insert_ref_with_delay(std::rc::Rc::new(Entry { id, value }), delay)
            .expect("a deadline ahead");
        id
    }

    fn cancel(&mut self, key: u64) {
        self.wheel.cancel(&key).expect("a timer that waits");
    }

    fn advance(&mut self, now: u64) -> usize {
        let mut fired = 0;
        while self.now < now {
            match self.wheel.can_skip() {
                Skip::Empty => {
                    self.now = now;
                    return fired;
                }
                Skip::Millis(ticks) => {
                    let ticks = u64::from(ticks).min(now - self.now);
                    self.wheel.skip(ticks as u32);
                    self.now += ticks;
                }
                Skip::None => {
                    self.now += 1;
                    for entry in self.wheel.tick() {
                        black_box(entry.value);
                        fired += 1;
                    }
                }
            }
        }
        fired
    }
}

/// A binary heap whose cancelled timers stay until they surface; their values are freed at once.
pub(crate) struct LazyHeap {
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    values: Vec<Option<u64>>,
    free: Vec<u32>,
}

impl Timers for LazyHeap {
    type Key = u32;

    fn new() -> Self {
        LazyHeap {
            heap: BinaryHeap::new(),
            values: Vec::new(),
            free: Vec::new(),
        }
    }

    fn insert(&mut self, deadline: u64, value: u64) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.values.push(None);
            self.values.len() as u32 - 1
        });
        self.values[index as usize] = Some(value);
        self.heap.push(Reverse((deadline, index)));
        index
    }

    fn cancel(&mut self, key: u32) {
        black_box(self.values[key as usize].take());
    }

    fn advance(&mut self, now: u64) -> usize {
        let mut fired = 0;
        while let Some(&Reverse((deadline, index))) = self.heap.peek() {
            if deadline > now {
                break;
            }
            self.heap.pop();
            // The index is free only now: until then the heap still names it.
            self.free.push(index);
            if let Some(value) = self.values[index as usize].take() {
                black_box(value);
                fired += 1;
            }
        }
        fired
    }
}

/// The standard library's sorted map.
pub(crate) struct SortedMap {
    map: BTreeMap<(u64, u64), u64>,
    id: u64,
}

impl Timers for SortedMap {
    type Key = (u64, u64);

    fn new() -> Self {
        SortedMap {
            map: BTreeMap::new(),
            id: 0,
        }
    }

    fn insert(&mut self, deadline: u64, value: u64) -> (u64, u64) {
        self.id += 1;
        self.map.insert((deadline, self.id), value);
        (deadline, self.id)
    }

    fn cancel(&mut self, key: (u64, u64)) {
        black_box(self.map.remove(&key));
    }

    fn advance(&mut self, now: u64) -> usize {
        let mut fired = 0;
        while let Some(entry) = self.map.first_entry() {
            if entry.key().0 > now {
                break;
            }
            black_box(entry.remove());
            fired += 1;
        }
        fired
    }
}
