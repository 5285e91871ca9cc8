//! Messages from other threads.

use std::sync::Arc;
use std::sync::Mutex;

use conn_reactor::Options;

use crate::rig::{Behaviour, Rig, post};

#[test]
fn each_message_of_many_threads_is_delivered_once_and_in_its_senders_order() {
    const THREADS: usize = 8;
    const EACH: usize = 5_000;
    let options = Options {
        shards: 1,
        mailbox_max: 64,
        message_batch: 10,
        ..Options::default()
    };
    let mut rig = Rig::start(Behaviour::Sink, options);
    let delivered = Arc::new(Mutex::new(vec![Vec::new(); THREADS]));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (sender, delivered) = (rig.senders[0].clone(), Arc::clone(&delivered));
            scope.spawn(move || {
                for number in 0..EACH {
                    let delivered = Arc::clone(&delivered);
                    let job = move |_: &mut _, _: &mut _| {
                        delivered.lock().unwrap()[thread].push(number);
                    };
                    post(&sender, Box::new(job));
                }
            });
        }
    });
    let delivered_in_all = rig.on_shard(|_, io| io.stats().messages);
    assert_eq!(delivered_in_all as usize, THREADS * EACH + 1);
    rig.stop();
    for numbers in delivered.lock().unwrap().iter() {
        assert!(numbers.iter().copied().eq(0..EACH));
    }
}

#[test]
fn a_sleeping_shard_wakes_for_each_of_many_single_messages() {
    let rig = Rig::start(
        Behaviour::Sink,
        Options {
            shards: 1,
            ..Options::default()
        },
    );
    for round in 0..2_000u64 {
        assert_eq!(rig.on_shard(move |_, _| round), round);
    }
}
