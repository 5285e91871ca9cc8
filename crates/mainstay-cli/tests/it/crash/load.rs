//! The callers of the crash test: each takes a key and asks with it until it hears a definite answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::devices::Effects;
use crate::support::http::{Client, Response};
use crate::support::random::Random;

/// A key that has no definite answer after this time, with all devices online for the last of it,
/// hangs.
pub(super) const HANGS_AFTER: Duration = Duration::from_secs(90);

/// One in so many keys is asked with by two callers at once.
const TWINS: u64 = 16;
/// One in so many requests is given up by its client long before its answer.
const HASTY: u64 = 20;
/// One in so many commands is executed by its device, which then loses the answer.
const DROPS: u64 = 64;

/// A command, and the many ways to spell it.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) device: String,
    pub(super) key: String,
    number: u64,
    late_ms: u64,
    /// A steady device executes it and drops the answer.
    pub(super) drops: bool,
    /// Two callers ask for it at once.
    twins: bool,
}

impl Order {
    /// Spellings of one value: the order of keys, how numbers are written, spaces.
    fn spelled(&self, how: u64) -> String {
        let Self {
            key,
            number,
            late_ms,
            drops,
            ..
        } = self;
        match how % 4 {
            0 => format!(
                r#"{{"key":"{key}","number":{number}00,"late_ms":{late_ms},"drops":{drops}}}"#
            ),
            1 => format!(
                r#"{{"late_ms":{late_ms},"drops":{drops},"number":{number}e2,"key":"{key}"}}"#
            ),
            2 => format!(
                r#" {{ "number" : {number}00.0, "key" : "{key}", "late_ms" : {late_ms}, "drops" : {drops} }} "#
            ),
            _ => format!(
                r#"{{"drops":{drops},"key":"\u{:04x}{}","late_ms":{late_ms},"number":{number}00}}"#,
                u32::from(key.as_bytes()[0]),
                &key[1..]
            ),
        }
    }
}

/// What a key came to.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) order: Order,
    pub(super) end: End,
}

#[derive(Clone, Debug)]
pub(super) enum End {
    /// 200 and this body.
    Answered(Vec<u8>),
    /// 409 in-doubt and this body.
    InDoubt(Vec<u8>),
    /// Nothing definite until the test gave up; the last that was heard.
    Hangs(String),
}

/// All callers and what they heard.
pub(super) struct Load {
    gateway: SocketAddr,
    devices: Vec<String>,
    effects: Arc<Effects>,
    pub(super) records: Mutex<Vec<Record>>,
    /// What contradicts the contract.
    pub(super) violations: Mutex<Vec<String>>,
    /// Answers by status and code.
    pub(super) heard: Mutex<BTreeMap<String, u64>>,
    pub(super) replayed: AtomicU64,
    stopping: AtomicBool,
    given_up: AtomicBool,
    next_key: AtomicU64,
}

impl Load {
    pub(super) fn new(gateway: SocketAddr, devices: Vec<String>, effects: Arc<Effects>) -> Self {
        Self {
            gateway,
            devices,
            effects,
            records: Mutex::default(),
            violations: Mutex::default(),
            heard: Mutex::default(),
            replayed: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            next_key: AtomicU64::new(1),
        }
    }

    /// Callers finish the keys that they have and take no new ones.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Callers forget the keys that they have.
    pub(super) fn give_up(&self) {
        self.stop();
        self.given_up.store(true, Relaxed);
    }

    /// One caller's life.
    pub(super) fn call(&self, mut random: Random) {
        let mut client = Client::new(self.gateway);
        while !self.stopping.load(Relaxed) {
            let order = self.new_order(&mut random);
            let end = if order.twins {
                self.ask_twice(&mut client, &order, &mut random)
            } else {
                self.ask(&mut client, &order, &mut random)
            };
            self.records.lock().unwrap().push(Record { order, end });
            thread::sleep(Duration::from_millis(random.within(0..100)));
        }
    }

    fn new_order(&self, random: &mut Random) -> Order {
        let number = self.next_key.fetch_add(1, Relaxed);
        let device = random.pick(&self.devices).clone();
        let late_ms = if random.one_in(4) {
            random.within(0..200)
        } else {
            0
        };
        let drops = device.starts_with("steady") && random.one_in(DROPS);
        let twins = random.one_in(TWINS);
        Order {
            device,
            key: format!("key-{number}"),
            number,
            late_ms,
            drops,
            twins,
        }
    }

    /// Two callers with one key hear the same.
    fn ask_twice(&self, client: &mut Client, order: &Order, random: &mut Random) -> End {
        let mut of_twin = Random::new(random.next());
        let (one, other) = thread::scope(|scope| {
            let twin =
                scope.spawn(|| self.ask(&mut Client::new(self.gateway), order, &mut of_twin));
            let one = self.ask(client, order, random);
            (one, twin.join().unwrap())
        });
        match (&one, &other) {
            (End::Answered(a), End::Answered(b)) | (End::InDoubt(a), End::InDoubt(b)) if a == b => {
            }
            (End::Hangs(_), _) | (_, End::Hangs(_)) => return other,
            _ => self.violation(order, &format!("twins heard {one:?} and {other:?}")),
        }
        one
    }

    /// Asks until the answer is definite.
    fn ask(&self, client: &mut Client, order: &Order, random: &mut Random) -> End {
        let started = Instant::now();
        let mut last = String::new();
        while started.elapsed() < HANGS_AFTER && !self.given_up.load(Relaxed) {
            let hasty = random
                .one_in(HASTY)
                .then(|| Duration::from_millis(random.within(1..40)));
            client.set_patience(hasty);
            let timeout_ms = random.within(30..1_500);
            let payload = order.spelled(random.next());
            match client.command(&order.device, &order.key, timeout_ms, &payload) {
                Ok(response) => {
                    if let Some(end) = self.judge(order, &response) {
                        return end;
                    }
                    last = format!("{} {}", response.status, response.text());
                }
                // Killed, not started yet, or this client lost its patience.
                Err(error) => last = error.to_string(),
            }
            thread::sleep(Duration::from_millis(random.within(2..25)));
        }
        End::Hangs(last)
    }

    /// What an answer says about its key; `None` says to ask again.
    fn judge(&self, order: &Order, response: &Response) -> Option<End> {
        let code = response.code();
        *self
            .heard
            .lock()
            .unwrap()
            .entry(format!("{} {code}", response.status))
            .or_default() += 1;
        self.replayed
            .fetch_add(response.is_replayed().into(), Relaxed);
        match (response.status, code.as_str()) {
            (200, _) => Some(End::Answered(response.body.clone())),
            (409, "in-doubt") => Some(End::InDoubt(response.body.clone())),
            (504, "timed-out-unsent") => {
                if !order.twins && self.effects_of(order) > 0 {
                    self.violation(order, "called unsent, but a device executed it");
                }
                None
            }
            (409, "in-progress")
            | (504, "timed-out-sent")
            | (404, "unknown-device")
            | (429, "queue-full")
            // A server of the store that answers late breaks no promise.
            | (503, "draining" | "not-here" | "store-unavailable") => None,
            _ => {
                self.violation(order, &format!("{} {}", response.status, response.text()));
                None
            }
        }
    }

    fn violation(&self, order: &Order, what: &str) {
        let Order { device, key, .. } = order;
        self.violations
            .lock()
            .unwrap()
            .push(format!("{device} {key}: {what}"));
    }

    /// Asks once more with a key that has its answer: it has to come again, byte by byte.
    pub(super) fn check_replay(&self, client: &mut Client, record: &Record, random: &mut Random) {
        let (status, body) = match &record.end {
            End::Answered(body) => (200, body),
            End::InDoubt(body) => (409, body),
            End::Hangs(_) => return,
        };
        let order = &record.order;
        let payload = order.spelled(random.next());
        match client.command(&order.device, &order.key, 1_000, &payload) {
            Ok(again) if (again.status, &again.body) != (status, body) || !again.is_replayed() => {
                let (was, is) = (String::from_utf8_lossy(body), again.text());
                self.violation(
                    order,
                    &format!("answered {was}, later {} {is}", again.status),
                );
            }
            Ok(_) => {
                self.replayed.fetch_add(1, Relaxed);
            }
            Err(error) => self.violation(order, &format!("no replay: {error}")),
        }
    }

    /// How often the devices executed `order`.
    pub(super) fn effects_of(&self, order: &Order) -> u32 {
        self.effects.of(&order.key)
    }
}
