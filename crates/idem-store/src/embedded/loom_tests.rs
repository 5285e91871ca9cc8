//! The hand-off of a batch under loom: callers append, the flusher cuts, writes, syncs and wakes.
//! No interleaving loses a wake-up (loom reports the deadlock) or completes before the sync.

use std::future::Future as _;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;

use crate::embedded::memory::Memory;
use crate::embedded::shared::Shared;
use crate::{Begin, Begun, Completion, Fingerprint, Options, Store};

/// Runs `callers`, and the flusher's own loop beside them, through every interleaving with at most
/// two preemptions.
fn model(callers: &'static [fn(&Caller)]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 20_000;
    builder.check(move || beside_the_flusher(callers));
}

/// One thread that uses the store.
struct Caller {
    store: Store,
    disk: Memory,
    number: u8,
}

fn beside_the_flusher(callers: &[fn(&Caller)]) {
    let disk = Memory::default();
    let options = Options::new()
        .segment_bytes_max(64 << 10)
        .outcome_bytes_max(4 << 10)
        .batch_bytes_max(16 << 10);
    let store = Store::open_on(Arc::new(disk.clone()), options).expect("opens");
    // The spare segment is made ready before, it is not what is looked at.
    for _ in 0..4 {
        store.drive();
    }
    let shared = store.shared();
    let flusher = {
        let shared = Arc::clone(&shared);
        loom::thread::spawn(move || shared.run())
    };
    let mut numbered = (0..).zip(callers).map(|(number, &call)| {
        let caller = Caller {
            store: store.clone(),
            disk: disk.clone(),
            number,
        };
        (call, caller)
    });
    let (here, caller) = numbered.next().expect("a caller");
    let others: Vec<_> = numbered
        .map(|(call, caller)| loom::thread::spawn(move || call(&caller)))
        .collect();
    here(&caller);
    for other in others {
        other.join().expect("no panic");
    }
    stop(&shared);
    flusher.join().expect("no panic");
}

fn stop(shared: &Shared) {
    shared.lock().stopping = true;
    shared.work.notify_one();
}

impl Caller {
    fn begin(&self) -> Completion<Begun> {
        let key = self.key();
        self.store
            .begin(&Begin::new(&key, Fingerprint([1; 32]), 1_000, 5).declare(b"memo"))
    }

    fn key(&self) -> Vec<u8> {
        vec![b'k', b'e', b'y', b'0' + self.number]
    }

    fn check_durable(&self, begun: Begun) {
        assert!(matches!(begun, Begun::Fresh(_)), "{begun:?}");
        assert!(
            self.disk.has_synced(&self.key()),
            "completed before its sync"
        );
    }
}

fn blocks(caller: &Caller) {
    let begun = caller.begin().wait().expect("durable");
    caller.check_durable(begun);
}

fn polls(caller: &Caller) {
    let begun = block_on(caller.begin()).expect("durable");
    caller.check_durable(begun);
}

fn asks_for_a_flush(caller: &Caller) {
    let begun = caller.begin();
    caller.store.flush().wait().expect("durable");
    let begun = begun
        .try_now()
        .expect("a flush covers it")
        .expect("durable");
    caller.check_durable(begun);
}

#[test]
fn a_blocked_caller_is_woken_after_the_sync() {
    model(&[blocks]);
}

#[test]
fn a_polling_caller_is_woken_after_the_sync() {
    model(&[polls]);
}

#[test]
fn two_callers_share_batches_and_both_are_woken() {
    model(&[blocks, polls]);
}

#[test]
fn a_flush_is_answered() {
    model(&[asks_for_a_flush]);
}

/// The event alone, without a bound on preemptions.
#[test]
fn an_event_wakes_threads_and_tasks_however_they_meet() {
    loom::model(|| {
        let event = crate::completion::Event::new();
        let sleeper = {
            let completion = Completion::on_with(Arc::clone(&event), 1, |_| ());
            loom::thread::spawn(move || completion.wait().expect("done"))
        };
        let settler = {
            let event = Arc::clone(&event);
            loom::thread::spawn(move || event.done())
        };
        let mut completion = Completion::on_with(event, 2, |_| ());
        let mut noop = Context::from_waker(Waker::noop());
        // Replacing a waker by another must not lose the second one.
        let early = std::pin::Pin::new(&mut completion).poll(&mut noop);
        let second = match early {
            Poll::Ready(ready) => ready,
            Poll::Pending => block_on(completion),
        };
        assert_eq!(second.expect("done"), 2);
        assert_eq!(sleeper.join().expect("no panic"), 1);
        settler.join().expect("no panic");
    });
}
