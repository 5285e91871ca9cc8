//! Callers beside a shard's own loop, under loom. Time stands still, so a shard that sleeps until a later deadline
//! sleeps until it is called: a call that is lost ends the model as a deadlock or a caller that tries for ever.

use std::sync::Arc;
use std::vec::Vec;

use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::Config;
use super::shard::{Shard, Shared};
use super::slots::Ticket;
use super::sync::Ordering;

const HOUR_NS: u64 = 3_600_000_000_000;

struct Model {
    shared: Arc<Shared<usize>>,
    /// The sum of what fired.
    fired: Arc<AtomicUsize>,
}

/// Runs `callers` and a shard beside each other, with a bounded number of preemptions, and ends when the callers have.
fn model(preemptions: usize, timers_max: u32, commands_max: usize, callers: &'static [fn(&Model)]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        let config = Config {
            timers_max,
            commands_max,
            ..Config::default()
        };
        let model = Arc::new(Model {
            shared: Arc::new(Shared::new(&config).expect("no descriptors")),
            fired: Arc::new(AtomicUsize::new(0)),
        });
        let (shared, fired) = (model.shared.clone(), model.fired.clone());
        let shard = thread::spawn(move || {
            let fire = move |value| _ = fired.fetch_add(value, Ordering::SeqCst);
            Shard::new(&shared, &config, fire).run();
        });
        let others: Vec<_> = callers[1..]
            .iter()
            .map(|caller| {
                let model = model.clone();
                thread::spawn(move || caller(&model))
            })
            .collect();
        callers[0](&model);
        for other in others {
            other.join().expect("no panic");
        }
        model.shared.stop();
        shard.join().expect("no panic");
    });
}

impl Model {
    fn insert(&self, deadline_ns: u64, value: usize) -> Ticket {
        loop {
            match self.shared.insert(deadline_ns, deadline_ns, value) {
                Ok(ticket) => return ticket,
                Err(_) => thread::yield_now(),
            }
        }
    }

    fn wait_for(&self, sum: usize) {
        while self.fired.load(Ordering::SeqCst) != sum {
            thread::yield_now();
        }
    }
}

#[test]
fn a_full_shard_has_room_again_after_a_cancel() {
    model(
        2,
        1,
        2,
        &[|model| {
            let ticket = model.insert(HOUR_NS, 1);
            assert!(model.shared.cancel(ticket));
            model.insert(HOUR_NS, 1);
        }],
    );
}

#[test]
fn a_full_queue_has_room_again() {
    model(
        2,
        4,
        1,
        &[|model| {
            for n in 0..3 {
                model.insert(HOUR_NS + n, 1);
            }
        }],
    );
}

#[test]
fn two_callers_are_both_heard() {
    model(
        2,
        2,
        2,
        &[
            |model| {
                model.insert(0, 1);
                model.wait_for(3);
            },
            |model| _ = model.insert(0, 2),
        ],
    );
}

#[test]
fn a_timer_fires_or_is_cancelled() {
    model(
        2,
        1,
        1,
        &[|model| {
            let ticket = model.insert(0, 1);
            let cancelled = model.shared.cancel(ticket);
            model.insert(0, 2);
            model.wait_for(if cancelled { 2 } else { 3 });
        }],
    );
}

#[test]
fn two_cancel_at_once_and_there_is_room_again() {
    fn cancel_one(model: &Model) {
        let ticket = model.insert(HOUR_NS, 1);
        assert!(model.shared.cancel(ticket));
    }
    // One preemption: what they do takes too many steps for every second one.
    model(
        1,
        2,
        2,
        &[
            |model| {
                cancel_one(model);
                model.insert(HOUR_NS, 1);
            },
            cancel_one,
        ],
    );
}
