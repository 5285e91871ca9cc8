//! The device side of the crash test: an effect log, and devices that answer promptly or late, are
//! stopped and started again, and keep or lose their memory.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gateway::device::{Answer, Command, Device, Fleet, FleetConfig, FleetReport, Reply};
use gateway::proto::CommandId;
use serde_json::Value;

use crate::support::random::Random;

/// Short enough for a device to repeat its results within seconds.
const BEAT_MS: u32 = 500;

/// Short enough for most devices to be back before the next kill.
const RECONNECT_CAP_MS: u32 = 600;

/// Every effect that any device had: the truth that the gateway's answers are compared with.
#[derive(Default)]
pub(super) struct Effects {
    of_key: Mutex<HashMap<String, u32>>,
    of_id: Mutex<HashMap<CommandId, u32>>,
    count: AtomicU64,
}

impl Effects {
    /// Has the effect. The answer tells two effects of one key apart.
    fn happen(&self, command: &Command, payload: &Value) -> Answer {
        let key = payload["key"].as_str().expect("payloads name their key");
        *self
            .of_key
            .lock()
            .unwrap()
            .entry(key.to_owned())
            .or_default() += 1;
        *self.of_id.lock().unwrap().entry(command.id).or_default() += 1;
        let number = self.count.fetch_add(1, Relaxed);
        let device = &command.device;
        Answer::json(format!(
            "{{\"device\":\"{device}\",\"key\":\"{key}\",\"effect\":{number}}}"
        ))
    }

    /// How often `key` was executed, under whatever command id.
    pub(super) fn of(&self, key: &str) -> u32 {
        self.of_key
            .lock()
            .unwrap()
            .get(key)
            .copied()
            .unwrap_or_default()
    }

    /// The largest number of executions of one command id.
    pub(super) fn most_of_one_id(&self) -> u32 {
        self.of_id
            .lock()
            .unwrap()
            .values()
            .copied()
            .max()
            .unwrap_or_default()
    }
}

/// What becomes of a device's memory when it is stopped and started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Memory {
    /// It is never stopped.
    Steady,
    /// It is in a file.
    Kept,
    /// It is lost.
    Lost,
}

impl Memory {
    /// By the device's name.
    pub(super) fn of(device: &str) -> Self {
        match device.split_once('-').map(|(prefix, _)| prefix) {
            Some("steady") => Self::Steady,
            Some("keeper") => Self::Kept,
            _ => Self::Lost,
        }
    }
}

/// All devices of a test.
pub(super) struct Devices {
    fleet: Fleet,
    stopping: Arc<AtomicBool>,
    churn: JoinHandle<u64>,
    late: JoinHandle<()>,
}

pub(super) struct Report {
    pub(super) fleet: FleetReport,
    pub(super) restarts: u64,
}

const STEADY: usize = 12;
const KEEPERS: usize = 4;
const FORGETFUL: usize = 4;

/// The devices' names.
pub(super) fn names() -> Vec<String> {
    let steady = (0..STEADY).map(|n| format!("steady-{n:05}"));
    let keepers = (0..KEEPERS).map(|n| format!("keeper-{n}"));
    let forgetful = (0..FORGETFUL).map(|n| format!("forgetful-{n}"));
    steady.chain(keepers).chain(forgetful).collect()
}

impl Devices {
    pub(super) fn start(
        gateway: SocketAddr,
        journals: &Path,
        effects: &Arc<Effects>,
        mut random: Random,
    ) -> Self {
        let (late, inbox) = mpsc::channel();
        let config = FleetConfig {
            prefix: "steady".into(),
            interval_ms: BEAT_MS,
            shards: 2,
            reconnect_cap_ms: RECONNECT_CAP_MS,
            ..FleetConfig::new(gateway, STEADY)
        };
        let for_fleet = Arc::clone(effects);
        let fleet = Fleet::start_with(config, move |command, reply| {
            let payload = read(&command);
            let answer = for_fleet.happen(&command, &payload);
            if payload["drops"] == true {
                // The effect happened; its answer is lost.
                return drop(reply);
            }
            match payload["late_ms"].as_u64() {
                Some(ms) if ms > 0 => {
                    let due = Instant::now() + Duration::from_millis(ms);
                    late.send((due, reply, answer))
                        .expect("the answering thread runs");
                }
                _ => reply.answer(answer),
            }
        })
        .unwrap();
        let mut restarting: Vec<Restarting> = names()
            .into_iter()
            .filter(|name| Memory::of(name) != Memory::Steady)
            .map(|name| Restarting::start(gateway, name, journals, Arc::clone(effects)))
            .collect();
        let stopping = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stopping);
        let churn = thread::spawn(move || {
            let mut restarts = 0;
            while !until.load(Relaxed) {
                thread::sleep(Duration::from_millis(random.within(20..200)));
                let which = random.within(0..restarting.len() as u64) as usize;
                restarting[which].restart();
                restarts += 1;
            }
            restarting.into_iter().for_each(Restarting::stop);
            restarts
        });
        let late = thread::spawn(move || answer_late(&inbox));
        Self {
            fleet,
            stopping,
            churn,
            late,
        }
    }

    /// Ends every device.
    pub(super) fn stop(self) -> Report {
        self.stopping.store(true, Relaxed);
        let restarts = self.churn.join().unwrap();
        let fleet = self.fleet.stop().unwrap();
        self.late.join().unwrap();
        Report { fleet, restarts }
    }
}

fn read(command: &Command) -> Value {
    serde_json::from_slice(&command.payload).expect("the gateway lets only JSON through")
}

/// Answers each command when its time has come.
fn answer_late(inbox: &mpsc::Receiver<(Instant, Reply, Answer)>) {
    let mut waiting = Vec::new();
    loop {
        match inbox.recv_timeout(Duration::from_millis(2)) {
            Ok(late) => waiting.push(late),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        for (_, reply, answer) in waiting.extract_if(.., |(due, ..)| *due <= now) {
            reply.answer(answer);
        }
    }
}

/// A device that is stopped and started again.
struct Restarting {
    gateway: SocketAddr,
    name: String,
    journal: Option<PathBuf>,
    effects: Arc<Effects>,
    device: Option<Device>,
}

impl Restarting {
    fn start(gateway: SocketAddr, name: String, journals: &Path, effects: Arc<Effects>) -> Self {
        let journal =
            (Memory::of(&name) == Memory::Kept).then(|| journals.join(format!("{name}.journal")));
        let mut this = Self {
            gateway,
            name,
            journal,
            effects,
            device: None,
        };
        this.restart();
        this
    }

    fn restart(&mut self) {
        if let Some(device) = self.device.take() {
            self.end(device);
        }
        let started = Instant::now();
        let device = loop {
            match self.start_once() {
                Ok(device) => break device,
                // Between fork and exec, a gateway that is being started holds a copy of the old
                // journal's descriptor, and with it the lock.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(started.elapsed() < Duration::from_secs(60), "{error}");
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{}: {error}", self.name),
            }
        };
        self.device = Some(device);
    }

    fn start_once(&self) -> io::Result<Device> {
        let mut builder = Device::builder(self.gateway, &self.name)
            .interval_ms(BEAT_MS)
            .reconnect_cap_ms(RECONNECT_CAP_MS);
        if let Some(journal) = &self.journal {
            builder = builder.journal(journal);
        }
        let effects = Arc::clone(&self.effects);
        builder.start(move |command| {
            let payload = read(command);
            let answer = effects.happen(command, &payload);
            thread::sleep(Duration::from_millis(
                payload["late_ms"].as_u64().unwrap_or(0) / 8,
            ));
            answer
        })
    }

    fn stop(mut self) {
        let device = self.device.take().expect("it runs between restarts");
        self.end(device);
    }

    fn end(&self, device: Device) {
        device
            .stop()
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }
}
