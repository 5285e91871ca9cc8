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

/// A mounted tmpfs of 4 MiB, unmounted at the end.
struct Small(std::path::PathBuf);

impl Small {
    /// None where we may not mount.
    fn mount(dir: &std::path::Path) -> Option<Self> {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]);
        let mounted = mount.arg(dir).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir.into()));
        }
        eprintln!("not run: a tmpfs cannot be mounted here");
        None
    }

    fn filler(&self) -> std::path::PathBuf {
        self.0.join("filler")
    }

    /// Takes all the space there is.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        for bytes in [64 << 10, 4 << 10] {
            while file.write_all(&vec![1; bytes]).is_ok() {}
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let mut umount = std::process::Command::new("umount");
        // It stays mounted until the machine restarts otherwise.
        let _ = umount.arg("-l").arg(&self.0).status();
    }
}

#[test]
fn an_outcome_that_meets_a_full_disk_is_told_as_such_and_stored_when_there_is_room() {
    const COMMANDS: usize = 40;
    const SEGMENT: u32 = 256 << 10;
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(dir.path()) else {
        return;
    };
    let options = Options::new()
        .segment_bytes_max(SEGMENT)
        .batch_bytes_max(SEGMENT / 2)
        .outcome_bytes_max(48 << 10)
        .disk_full_wait_ms(20);
    let rig = Rig::open(dir, options, |_| {});
    let mut device = RawDevice::connect(&rig, None);
    let submitted: Vec<_> = (0..COMMANDS)
        .map(|key| rig.submit(&key.to_string()))
        .collect();
    let ids: Vec<_> = submitted.iter().map(|_| device.command()).collect();
    small.fill();
    let body = format!("\"{}\"", "x".repeat(32 << 10));
    for id in ids {
        device.result(id, body.as_bytes());
    }
    let mut told = 0;
    for answer in submitted {
        match rig.answer(answer) {
            Answer::Done(outcome) => assert_eq!(outcome, json(body.as_bytes())),
            Answer::EndNotStored => told += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(told > 0, "the disk was full");
    std::fs::remove_file(small.filler()).unwrap();
    for key in 0..COMMANDS {
        let replayed = || match rig.answer(rig.submit(&key.to_string())) {
            Answer::Replayed(outcome) => Some(outcome),
            Answer::EndNotStored | Answer::StoreFull | Answer::InProgress => None,
            other => panic!("{other:?}"),
        };
        let outcome = std::iter::repeat_with(replayed).find_map(|replayed| replayed);
        assert_eq!(outcome, Some(json(body.as_bytes())));
    }
    drop(rig.drain());
}
