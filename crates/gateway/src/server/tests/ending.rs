//! The goodbye reaches every device.

use super::*;

/// A shard that stands still inside a message until this is dropped.
struct Held(#[expect(dead_code, reason = "dropping it is the signal")] mpsc::Sender<()>);

impl Held {
    fn hold(shard: &Sender<ShardMessage>) -> Self {
        struct Stopper(mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>);
        impl Wake for Stopper {
            // Runs on the shard's thread, which answers a question.
            fn wake(self: Arc<Self>) {
                self.0.send(()).unwrap();
                self.1.lock().recv().unwrap_err();
            }
        }
        let (entered, has_entered) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let (question, mut answer) = oneshot::channel();
        let waker = Waker::from(Arc::new(Stopper(entered, Mutex::new(released))));
        let polled = Pin::new(&mut answer).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        assert!(shard.try_send(ShardMessage::Report(question)).is_ok());
        has_entered.recv().unwrap();
        Self(release)
    }
}

/// Words for a session that there never was.
fn to_nobody() -> ShardMessage {
    let session = Session {
        epoch: 0,
        token: Token::from_u64(u64::MAX),
        boot: BOOT,
    };
    ShardMessage::Replaced { session }
}

/// A gateway whose mailboxes have little room, and devices.
fn small_mailbox(mailbox_max: usize) -> (Rig, Vec<RawDevice>) {
    let rig = Rig::open(tempfile::tempdir().unwrap(), Options::new(), |config| {
        config.commands.mailbox_max = mailbox_max;
    });
    let connect = |n| RawDevice::connect_as(&rig, &format!("d{n}"), None);
    let devices = (0..8).map(connect).collect();
    (rig, devices)
}

/// Each device hears why, and then the end of the stream and not a reset.
fn hear_goodbye(devices: &mut [RawDevice]) {
    for device in devices {
        let goodbye = |message: &ToDevice<'_>| match message {
            ToDevice::GoAway(goaway) => Some(Some(goaway.reason)),
            ToDevice::BeatAck(_) => Some(None),
            _ => None,
        };
        let reason = std::iter::repeat_with(|| device.hear(goodbye)).find_map(|heard| heard);
        assert_eq!(reason, Some(GoAwayReason::Draining));
        assert_eq!(device.stream.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_mailbox_that_stays_full_does_not_swallow_the_goodbye() {
    let (rig, mut devices) = small_mailbox(4);
    let shared = Arc::clone(rig.shared());
    let mailbox = &shared.mailboxes()[0];
    let held = Held::hold(mailbox);
    while mailbox.try_send(to_nobody()).is_ok() {}
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| rig.drain());
        while shared.overflow.of(0) != Order::Stop {
            std::thread::yield_now();
        }
        drop(held);
        hear_goodbye(&mut devices);
        drop(drained.join().unwrap());
    });
}

#[test]
fn a_full_mailbox_does_not_swallow_the_goodbye() {
    let (rig, mut devices) = small_mailbox(1);
    let mailbox = rig.shared().mailboxes()[0].clone();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !matches!(mailbox.try_send(to_nobody()), Err(SendError::Stopped(_))) {}
            });
        }
        let drained = scope.spawn(|| rig.drain());
        hear_goodbye(&mut devices);
        drop(drained.join().unwrap());
    });
}

#[test]
fn a_device_that_talks_on_hears_the_goodbye() {
    let rig = Rig::new();
    let mut devices = [RawDevice::connect(&rig, None)];
    let stream = devices[0].stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut beat = Vec::new();
            encode_from_device(&FromDevice::Beat(Beat::default()), &mut beat);
            while (&stream).write_all(&beat).is_ok() {}
        });
        let drained = scope.spawn(|| rig.drain());
        hear_goodbye(&mut devices);
        drop(drained.join().unwrap());
    });
}
