//! Which devices there are, and where each one is connected: the one thing that shards and HTTP
//! tasks share.
//!
//! A [`Device`] is made at its first HELLO and lives until it is evicted. Its [`Route`] says which
//! connection speaks for it; every new session gets a higher epoch, so a late word of an older
//! session changes nothing. What a beat brings goes into the device's [`Pulse`], which only its own shard
//! writes.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use conn_reactor::Token;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::pulse::Pulse;
use crate::proto::{BootId, SessionToken};

const BUCKETS: usize = 64;

/// Every known device.
pub(crate) struct Directory {
    buckets: Vec<RwLock<BTreeSet<ById>>>,
    hasher: RandomState,
    known_max: usize,
    known: AtomicUsize,
    counts: Counts,
    epochs: AtomicU64,
    /// Devices that are not online, longest first; the key is the turn in which each one left.
    resting: Mutex<BTreeMap<u64, Arc<Device>>>,
}

/// How many devices are in which state.
#[derive(Default)]
struct Counts {
    online: AtomicUsize,
    gone: AtomicUsize,
}

/// One known device.
pub(crate) struct Device {
    id: Box<str>,
    /// What its beats said.
    pub(crate) pulse: Pulse,
    route: Mutex<Route>,
}

/// Whether a device is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presence {
    /// Connected and beating.
    Online,
    /// Its connection closed.
    Offline,
    /// Its deadline passed.
    Gone,
}

impl Presence {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Gone => "gone",
        }
    }
}

struct Route {
    presence: Presence,
    session: Session,
    /// The key in [`Directory::resting`] while the device is not online.
    resting: u64,
    commands: u32,
    /// Evicted: the directory does not hold this value any more.
    forgotten: bool,
    /// Wakes the commands of this device when a session starts or ends; made by the first command.
    changed: Option<Arc<Notify>>,
}

/// One session of a device: the connection that speaks for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) epoch: u64,
    pub(crate) shard: usize,
    pub(crate) token: Token,
    pub(crate) boot: BootId,
    pub(crate) secret: SessionToken,
}

/// What a HELLO leads to.
pub(crate) enum Admission {
    /// The session is this one; an older one that it replaced has to be told.
    Accepted {
        device: Arc<Device>,
        epoch: u64,
        replaced: Option<Session>,
        first_time: bool,
    },
    /// Another connection speaks for the device: probe it.
    InUse { holder: Session },
    /// No room for another device, or this one is being evicted: come back later.
    Full,
}

/// Who knocks: the fields of a HELLO that decide.
pub(crate) struct Knock<'a> {
    pub(crate) id: &'a str,
    pub(crate) shard: usize,
    pub(crate) token: Token,
    pub(crate) boot: BootId,
    pub(crate) resume: Option<SessionToken>,
    pub(crate) secret: SessionToken,
    /// The epoch of a holder that failed its probe and may be pushed aside.
    pub(crate) displace: Option<u64>,
}

/// One running or waiting command's place in its device's queue; given back on drop.
pub(crate) struct CommandSlot {
    device: Arc<Device>,
    changed: Arc<Notify>,
}

impl Directory {
    pub(crate) fn new(known_max: usize) -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            known_max: known_max.max(1),
            known: AtomicUsize::new(0),
            counts: Counts::default(),
            epochs: AtomicU64::new(0),
            resting: Mutex::default(),
        }
    }

    fn bucket(&self, id: &str) -> &RwLock<BTreeSet<ById>> {
        let hash = self.hasher.hash_one(id);
        &self.buckets[usize::try_from(hash % BUCKETS as u64).expect("below BUCKETS")]
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Device>> {
        self.bucket(id)
            .read()
            .get(id)
            .map(|entry| Arc::clone(&entry.0))
    }

    /// Remembers a device from an earlier run as offline. Returns the id that was forgotten for it.
    pub(crate) fn remember(&self, id: &str) -> Option<Box<str>> {
        if self.get(id).is_some() {
            return None;
        }
        let forgotten = self.make_room().ok()?;
        let device = self.insert(id);
        self.rest(&device);
        forgotten
    }

    /// Makes the knocking connection the device's session, if nothing speaks against it.
    pub(crate) fn admit(&self, knock: &Knock<'_>, mut forget: impl FnMut(Box<str>)) -> Admission {
        loop {
            if let Some(admission) = self.try_admit(knock, &mut forget) {
                return admission;
            }
            // Another shard is about to take the forgotten device out.
            std::thread::yield_now();
        }
    }

    /// `None` when the device was forgotten in this very moment.
    fn try_admit(&self, knock: &Knock<'_>, forget: &mut impl FnMut(Box<str>)) -> Option<Admission> {
        let (device, first_time) = match self.get(knock.id) {
            Some(device) => (device, false),
            None => match self.make_room() {
                Ok(forgotten) => {
                    forgotten.into_iter().for_each(&mut *forget);
                    (self.insert(knock.id), true)
                }
                Err(NoRoom) => return Some(Admission::Full),
            },
        };
        let epoch = self.epochs.fetch_add(1, Relaxed) + 1;
        let mut route = device.route.lock();
        if route.forgotten {
            return None;
        }
        let mut replaced = None;
        if route.presence == Presence::Online {
            let holder = route.session;
            let resumes = knock.resume == Some(holder.secret);
            if !resumes && knock.displace != Some(holder.epoch) {
                return Some(Admission::InUse { holder });
            }
            replaced = Some(holder);
        } else {
            self.resting.lock().remove(&route.resting);
            self.count(route.presence, Presence::Online);
        }
        route.presence = Presence::Online;
        route.session = Session {
            epoch,
            shard: knock.shard,
            token: knock.token,
            boot: knock.boot,
            secret: knock.secret,
        };
        route.wake();
        drop(route);
        Some(Admission::Accepted {
            device,
            epoch,
            replaced,
            first_time,
        })
    }

    /// The session `epoch` of `device` ended. A later session is not touched.
    pub(crate) fn leave(&self, device: &Arc<Device>, epoch: u64, presence: Presence) {
        let mut route = device.route.lock();
        if route.presence != Presence::Online || route.session.epoch != epoch {
            return;
        }
        self.count(Presence::Online, presence);
        route.presence = presence;
        route.resting = self.epochs.fetch_add(1, Relaxed) + 1;
        self.resting
            .lock()
            .insert(route.resting, Arc::clone(device));
        route.wake();
    }

    /// Devices in the order of their ids, those behind `after`, at most `limit`.
    pub(crate) fn page(&self, after: &str, limit: usize) -> Vec<Arc<Device>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut page: Vec<Arc<Device>> = Vec::new();
        for bucket in &self.buckets {
            let bucket = bucket.read();
            let behind = bucket.range::<str, _>((Excluded(after), Unbounded));
            page.extend(behind.take(limit).map(|entry| Arc::clone(&entry.0)));
        }
        page.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        page.truncate(limit);
        page
    }

    /// Devices of the bucket whose ids start with `prefix`, in the order of their ids, those behind `after`, at most `limit`.
    pub(crate) fn matching(
        &self,
        bucket: usize,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<Arc<Device>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = after.map_or(Included(prefix), Excluded);
        let bucket = self.buckets[bucket].read();
        let devices = bucket.range::<str, _>((from, Unbounded)).map(|it| &it.0);
        let fitting = devices.take_while(|device| device.id.starts_with(prefix));
        fitting.take(limit).map(Arc::clone).collect()
    }

    /// How many [`matching`](Self::matching) knows.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Grows with each session that starts or ends.
    pub(crate) fn changes(&self) -> u64 {
        self.epochs.load(Relaxed)
    }

    pub(crate) fn known(&self) -> usize {
        self.known.load(Relaxed)
    }

    pub(crate) fn online(&self) -> usize {
        self.counts.online.load(Relaxed)
    }

    pub(crate) fn gone(&self) -> usize {
        self.counts.gone.load(Relaxed)
    }

    fn insert(&self, id: &str) -> Arc<Device> {
        let device = Arc::new(Device::new(id));
        let mut bucket = self.bucket(id).write();
        if let Some(there) = bucket.get(id) {
            return Arc::clone(&there.0);
        }
        bucket.insert(ById(Arc::clone(&device)));
        self.known.fetch_add(1, Relaxed);
        device
    }

    fn rest(&self, device: &Arc<Device>) {
        let turn = self.epochs.fetch_add(1, Relaxed) + 1;
        device.route.lock().resting = turn;
        self.resting.lock().insert(turn, Arc::clone(device));
    }

    /// Makes sure that one more device may be known, by forgetting the longest offline one.
    fn make_room(&self) -> Result<Option<Box<str>>, NoRoom> {
        if self.known() < self.known_max {
            return Ok(None);
        }
        let mut resting = self.resting.lock();
        let turn = resting
            .iter()
            .find(|(_, device)| device.try_forget())
            .map(|(turn, _)| *turn);
        let device = turn.and_then(|turn| resting.remove(&turn)).ok_or(NoRoom)?;
        drop(resting);
        if device.presence() == Presence::Gone {
            self.counts.gone.fetch_sub(1, Relaxed);
        }
        self.bucket(&device.id).write().remove(&*device.id);
        self.known.fetch_sub(1, Relaxed);
        Ok(Some(device.id.clone()))
    }

    fn count(&self, from: Presence, to: Presence) {
        let counter = |presence| match presence {
            Presence::Online => Some(&self.counts.online),
            Presence::Gone => Some(&self.counts.gone),
            Presence::Offline => None,
        };
        if let Some(counter) = counter(from) {
            counter.fetch_sub(1, Relaxed);
        }
        if let Some(counter) = counter(to) {
            counter.fetch_add(1, Relaxed);
        }
    }
}

struct NoRoom;

impl Device {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            pulse: Pulse::default(),
            route: Mutex::new(Route {
                presence: Presence::Offline,
                session: Session {
                    epoch: 0,
                    shard: 0,
                    token: Token::from_u64(0),
                    boot: BootId::default(),
                    secret: SessionToken::default(),
                },
                resting: 0,
                commands: 0,
                forgotten: false,
                changed: None,
            }),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn presence(&self) -> Presence {
        self.route.lock().presence
    }

    /// The live session, if the device is online.
    pub(crate) fn session(&self) -> Option<Session> {
        let route = self.route.lock();
        (route.presence == Presence::Online).then_some(route.session)
    }

    /// Takes a place in the device's command queue; `None` when `max` are taken, or when the device
    /// was evicted since the caller looked it up.
    pub(crate) fn command_slot(self: &Arc<Self>, max: u32) -> Option<CommandSlot> {
        let mut route = self.route.lock();
        if route.commands >= max || route.forgotten {
            return None;
        }
        route.commands += 1;
        let changed = Arc::clone(route.changed.get_or_insert_default());
        Some(CommandSlot {
            device: Arc::clone(self),
            changed,
        })
    }

    pub(crate) fn commands(&self) -> u32 {
        self.route.lock().commands
    }

    fn try_forget(&self) -> bool {
        // Called under the lock of `resting`, which others take while they hold a route: no waiting.
        let Some(mut route) = self.route.try_lock() else {
            return false;
        };
        route.forgotten = route.commands == 0 && route.presence != Presence::Online;
        route.forgotten
    }
}

impl Route {
    fn wake(&self) {
        if let Some(changed) = &self.changed {
            changed.notify_waiters();
        }
    }
}

impl CommandSlot {
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Notified at each start and end of a session of the device.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }
}

impl Drop for CommandSlot {
    fn drop(&mut self) {
        let mut route = self.device.route.lock();
        route.commands -= 1;
        if route.commands == 0 {
            route.changed = None;
        }
    }
}

/// A device in the order of its id.
struct ById(Arc<Device>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ById {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.id.cmp(&other.0.id)
    }
}
