//! Orders of events that sockets and schedulers seldom bring about, made on purpose.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use conn_reactor::{SendError, Sender, Token};
use idem_store::{Begin, Begun, Fingerprint, Options};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::command::{self, Answer, Request};
use super::device::Session;
use super::directory::{Admission, Knock};
use super::drain::Order;
use super::outcome::{Memo, Outcome, store_key};
use super::shard::{ShardMessage, Stray};
use super::table::{Delivery, NotSent, OpenClaim, Reply};
use super::{Config, Gateway, Shared, settle};
use crate::proto::{
    Beat, BootId, CommandId, DeviceId, Forms, FromDevice, GoAwayReason, Hello, ResultStatus,
    SessionToken, ToDevice, decode_to_device, encode_from_device, encode_preface,
};

const BOOT: BootId = BootId([1; 16]);
const PRINT: Fingerprint = Fingerprint([2; 32]);

struct Rig {
    runtime: Runtime,
    gateway: Gateway,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap(), Options::new(), |_| {})
    }

    /// A gateway over a store with these options and a configuration that `change` makes.
    fn open(dir: tempfile::TempDir, store: Options, change: impl FnOnce(&mut Config)) -> Self {
        let free = (Ipv4Addr::LOCALHOST, 0).into();
        let mut config = Config {
            listen: free,
            http: free,
            data: dir.path().into(),
            shards: 1,
            ..Config::default()
        };
        change(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let gateway = runtime
            .block_on(Gateway::start_over(config, store))
            .unwrap();
        Self {
            runtime,
            gateway,
            dir,
        }
    }

    /// Drains the gateway and leaves its directory.
    fn drain(self) -> tempfile::TempDir {
        self.runtime.block_on(self.gateway.drain()).unwrap();
        self.dir
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.gateway.shared
    }

    /// Sends a command, whose caller waits for a minute.
    fn submit(&self, key: &str) -> JoinHandle<Answer> {
        self.submit_for(key, 60_000)
    }

    fn submit_for(&self, key: &str, timeout_ms: u64) -> JoinHandle<Answer> {
        let shared = Arc::clone(self.shared());
        let request = Request {
            device: shared.directory.get("a").unwrap(),
            key: store_key("a", key),
            fingerprint: PRINT,
            payload: b"{}".as_slice().into(),
            timeout_ms,
        };
        self.runtime
            .spawn(async move { command::submit(&shared, request, None).await })
    }

    /// What an HTTP caller is told.
    fn post(&self, key: &str) -> String {
        let mut stream = TcpStream::connect(self.gateway.http_addr()).unwrap();
        write!(
            stream,
            "POST /v1/devices/a/commands HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Idempotency-Key: {key}\r\nContent-Length: 2\r\n\r\n{{}}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn answer(&self, task: JoinHandle<Answer>) -> Answer {
        self.runtime.block_on(task).unwrap()
    }

    /// A claim that an earlier task left behind, and its command.
    fn left_open(&self, key: &str) -> (CommandId, OpenClaim) {
        let shared = self.shared();
        let id = CommandId(shared.random_id());
        let memo = Memo {
            id,
            boot: Some(BOOT),
        }
        .encode();
        let key = store_key("a", key);
        let begin = Begin::new(&key, PRINT, 60_000, shared.unix_ms()).declare(&memo);
        let Begun::Fresh(permit) = shared.store.begin(&begin).wait().unwrap() else {
            panic!("the key is new")
        };
        drop(permit);
        let claim = OpenClaim {
            key,
            fingerprint: PRINT,
        };
        shared.table.recall(id, "a", claim.clone());
        (id, claim)
    }

    fn epoch(&self) -> u64 {
        self.shared()
            .directory
            .get("a")
            .unwrap()
            .session()
            .unwrap()
            .epoch
    }
}

/// Device `a`, byte by byte.
struct RawDevice {
    stream: TcpStream,
    bytes: Vec<u8>,
    token: SessionToken,
}

impl RawDevice {
    fn connect(rig: &Rig, resume: Option<SessionToken>) -> Self {
        Self::connect_as(rig, "a", resume)
    }

    fn connect_as(rig: &Rig, id: &str, resume: Option<SessionToken>) -> Self {
        let stream = TcpStream::connect(rig.gateway.device_addr()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .unwrap();
        let mut this = Self {
            stream,
            bytes: Vec::new(),
            token: SessionToken::default(),
        };
        let mut out = Vec::new();
        encode_preface(&mut out);
        let device = DeviceId::parse(id.as_bytes()).unwrap();
        let hello = Hello {
            device,
            boot: BOOT,
            interval_ms: 60_000,
            resume,
            forms: Forms::FRAMED,
        };
        encode_from_device(&FromDevice::Hello(hello), &mut out);
        this.stream.write_all(&out).unwrap();
        this.token = this.hear(|message| match message {
            ToDevice::Welcome(welcome) => Some(welcome.session),
            _ => None,
        });
        this
    }

    fn say(&mut self, message: &FromDevice<'_>) {
        let mut out = Vec::new();
        encode_from_device(message, &mut out);
        self.stream.write_all(&out).unwrap();
    }

    fn result(&mut self, id: CommandId, body: &[u8]) {
        self.say(&FromDevice::Result {
            id,
            status: ResultStatus::Json,
            body,
        });
    }

    /// The next message has to be one that `expected` knows.
    fn hear<T>(&mut self, expected: impl Fn(&ToDevice<'_>) -> Option<T>) -> T {
        loop {
            if let Some((consumed, message)) = decode_to_device(&self.bytes).unwrap() {
                let heard = expected(&message).unwrap_or_else(|| panic!("heard {message:?}"));
                self.bytes.drain(..consumed);
                return heard;
            }
            let mut more = [0; 4096];
            let count = self.stream.read(&mut more).unwrap();
            assert!(count > 0, "the gateway closed");
            self.bytes.extend_from_slice(&more[..count]);
        }
    }

    fn command(&mut self) -> CommandId {
        self.hear(|message| match message {
            ToDevice::Command { id, .. } => Some(*id),
            _ => None,
        })
    }

    fn acknowledged(&mut self) -> CommandId {
        self.hear(|message| match message {
            ToDevice::ResultAck { id } => Some(*id),
            _ => None,
        })
    }
}

fn json(body: &[u8]) -> Outcome {
    Outcome::Json(body.to_vec())
}

#[test]
fn a_late_refusal_of_an_older_session_does_not_free_a_key_that_is_being_executed() {
    let rig = Rig::new();
    let mut first = RawDevice::connect(&rig, None);
    let (table, device) = (
        &rig.shared().table,
        rig.shared().directory.get("a").unwrap(),
    );
    let task = rig.submit("key");
    let id = first.command();
    let first_epoch = rig.epoch();
    let mut second = RawDevice::connect(&rig, Some(first.token));
    assert_eq!(second.command(), id, "the same device gets it again");
    // What the device said on its first connection is read only now.
    table.deliver(id, &device, first_epoch, ResultStatus::Refused, b"");
    second.result(id, b"1");
    assert!(matches!(rig.answer(task), Answer::Done(outcome) if outcome == json(b"1")));
    assert_eq!(second.acknowledged(), id);
}

#[test]
fn a_refusal_frees_the_key_once_it_is_the_last_word() {
    let rig = Rig::new();
    let mut device = RawDevice::connect(&rig, None);
    let task = rig.submit("key");
    let id = device.command();
    device.say(&FromDevice::Result {
        id,
        status: ResultStatus::Refused,
        body: b"",
    });
    assert!(matches!(rig.answer(task), Answer::QueueFull));
    let task = rig.submit("key");
    let again = device.command();
    assert_ne!(again, id, "a freed key is a new command");
    device.result(again, b"2");
    assert!(matches!(rig.answer(task), Answer::Done(outcome) if outcome == json(b"2")));
}

#[test]
fn a_refusal_does_not_free_a_key_that_an_earlier_task_may_have_sent() {
    let rig = Rig::new();
    let mut device = RawDevice::connect(&rig, None);
    let (id, _) = rig.left_open("key");
    let task = rig.submit("key");
    assert_eq!(device.command(), id);
    device.say(&FromDevice::Result {
        id,
        status: ResultStatus::Refused,
        body: b"",
    });
    device.result(id, b"3");
    assert!(matches!(rig.answer(task), Answer::Done(outcome) if outcome == json(b"3")));
}

#[test]
fn a_refused_retry_of_an_open_key_does_not_outlast_its_caller() {
    let rig = Rig::new();
    let mut device = RawDevice::connect(&rig, None);
    let (id, _) = rig.left_open("key");
    let task = rig.submit_for("key", 500);
    assert_eq!(device.command(), id);
    device.say(&FromDevice::Result {
        id,
        status: ResultStatus::Refused,
        body: b"",
    });
    assert!(matches!(rig.answer(task), Answer::TimedOutSent));
    // Not for as long as a result may take, which is an hour.
    while rig.shared().commands_running() > 0 {
        std::thread::yield_now();
    }
    device.result(id, b"3");
    assert_eq!(device.acknowledged(), id);
    let again = rig.answer(rig.submit("key"));
    assert!(matches!(again, Answer::Replayed(outcome) if outcome == json(b"3")));
}

#[test]
fn a_task_whose_claim_passed_to_another_says_that_it_is_in_progress() {
    let rig = Rig::new();
    let mut device = RawDevice::connect(&rig, None);
    let task = rig.submit("key");
    let id = device.command();
    let shared = rig.shared();
    // By the clock of somebody else, its lease is over.
    let (key, tomorrow_ms) = (store_key("a", "key"), shared.unix_ms() + 24 * 3_600_000);
    let begin = Begin::new(&key, PRINT, 60_000, tomorrow_ms);
    let Begun::InDoubt(permit) = shared.store.begin(&begin).wait().unwrap() else {
        panic!("the lease is over")
    };
    device.result(id, b"7");
    assert!(matches!(rig.answer(task), Answer::InProgress));
    drop(permit);
    device.result(id, b"7");
    assert_eq!(device.acknowledged(), id);
    let again = rig.answer(rig.submit("key"));
    assert!(matches!(again, Answer::Replayed(outcome) if outcome == json(b"7")));
}

#[test]
fn a_stray_result_that_meets_a_retry_answers_it() {
    let rig = Rig::new();
    // Known and offline: nobody sends the command again.
    rig.shared().directory.remember("a");
    let device = rig.shared().directory.get("a").unwrap();
    let (id, claim) = rig.left_open("key");
    let table = &rig.shared().table;
    let delivery = table.deliver(id, &device, 1, ResultStatus::Json, b"4");
    assert_eq!(delivery, Delivery::Settle(claim.clone()));
    let task = rig.submit("key");
    while !table.is_awaited(id) {
        std::thread::yield_now();
    }
    let result = Reply::Result {
        epoch: 1,
        status: ResultStatus::Json,
        body: b"4".to_vec(),
    };
    let stray = Stray {
        device,
        id,
        result,
        claim,
    };
    rig.runtime
        .block_on(settle::settle(Arc::clone(rig.shared()), stray));
    assert!(matches!(rig.answer(task), Answer::Done(outcome) if outcome == json(b"4")));
    let again = rig.answer(rig.submit("key"));
    assert!(matches!(again, Answer::Replayed(outcome) if outcome == json(b"4")));
    assert_eq!(rig.shared().table.len(), 0);
}

#[test]
fn a_retry_that_finds_the_devices_queue_full_knocks_again() {
    let rig = Rig::new();
    let mut device = RawDevice::connect(&rig, None);
    let (id, _) = rig.left_open("key");
    let task = rig.submit("key");
    assert_eq!(device.command(), id);
    rig.shared()
        .table
        .not_sent(id, rig.epoch(), NotSent::QueueFull);
    assert_eq!(device.command(), id);
    device.result(id, b"5");
    assert!(matches!(rig.answer(task), Answer::Done(outcome) if outcome == json(b"5")));
}

#[test]
fn a_repeated_result_of_an_ended_command_is_acknowledged() {
    let rig = Rig::new();
    let mut device = RawDevice::connect(&rig, None);
    device.result(CommandId([9; 16]), b"6");
    assert_eq!(device.acknowledged(), CommandId([9; 16]));
}

/// Its session went to another connection, and the word of that was lost in a full mailbox.
#[test]
fn a_connection_that_was_not_told_of_its_successor_finds_out() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir, Options::new(), |config| {
        let limits = &mut config.devices;
        (limits.interval_ms_max, limits.interval_ms, limits.grace_ms) = (2_000, 2_000, 0);
    });
    let mut device = RawDevice::connect(&rig, None);
    let knock = Knock {
        id: "a",
        shard: 0,
        token: Token::from_u64(u64::MAX),
        boot: BOOT,
        resume: Some(device.token),
        now_ms: 0,
        interval_ms: 2_000,
        displace: None,
    };
    let directory = &rig.shared().directory;
    let admitted = directory.admit(&knock, |_| ());
    assert!(matches!(admitted, Admission::Accepted { .. }));
    let epoch = rig.epoch();
    let reason = device.hear(|message| match message {
        ToDevice::GoAway(goaway) => Some(goaway.reason),
        _ => None,
    });
    assert_eq!(reason, GoAwayReason::Replaced);
    assert_eq!(rig.epoch(), epoch, "the successor's session is not touched");
    assert_eq!((directory.online(), directory.gone()), (1, 0));
}

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

#[test]
fn tcp_watches_device_connections_as_configured() {
    let mut config = Config::default();
    let options = super::reactor_options(&config);
    let keepalive = conn_reactor::Keepalive {
        idle_s: 60,
        interval_s: 10,
        count: 3,
    };
    assert_eq!(options.keepalive, Some(keepalive));
    assert_eq!(options.user_timeout_ms, Some(90_000));
    config.devices.keepalive_count = 4;
    config.devices.user_timeout_ms = 0;
    let options = super::reactor_options(&config);
    assert_eq!(options.keepalive.map(|it| it.count), Some(4));
    assert_eq!(options.user_timeout_ms, None);
}
