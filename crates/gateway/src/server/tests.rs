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

mod commands;
mod ending;
mod stores;

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
