//! A store that takes nothing.

use super::*;

/// A store that takes no new key.
fn full() -> Options {
    Options::new().keys_max(0)
}

/// A store whose next batch has room for nothing.
fn busy() -> Options {
    Options::new().batch_bytes_max(0)
}

#[test]
fn a_store_that_takes_nothing_says_so_and_nothing_is_sent() {
    for (store, code, retry_after_s) in [(full(), "store-full", 5), (busy(), "store-busy", 1)] {
        let rig = Rig::open(tempfile::tempdir().unwrap(), store, |_| {});
        let mut device = RawDevice::connect(&rig, None);
        let answer = rig.post("key");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        for part in [
            format!("\"code\":\"{code}\""),
            format!("retry-after: {retry_after_s}\r\n"),
        ] {
            assert!(answer.contains(&part), "{answer}");
        }
        let mut ends = rig.shared().counters.command_ends();
        let counted = ends.any(|(_, name, count)| name == code && count == 1);
        drop(ends);
        assert!(counted, "{code} is counted");
        assert_eq!(rig.shared().table.len(), 0);
        // The next thing that the device hears is the goodbye.
        drop(rig.drain());
        device.hear(|message| matches!(message, ToDevice::GoAway(_)).then_some(()));
    }
}

#[test]
fn a_store_that_takes_nothing_does_not_say_of_an_open_key_that_nothing_was_sent() {
    let rig = Rig::new();
    rig.shared().directory.remember("a");
    rig.left_open("key");
    let rig = Rig::open(rig.drain(), busy(), |_| {});
    assert!(matches!(rig.answer(rig.submit("key")), Answer::Open));
    assert!(matches!(rig.answer(rig.submit("new")), Answer::StoreBusy));
}
