//! Which devices there are, and where each one is connected: the one thing that shards and HTTP
//! tasks share.
//!
//! A [`Device`] is made at its first HELLO and lives until it is evicted. It says which connection speaks for it;
//! every new session gets a higher epoch, so a late word of an older session changes nothing.

use std::cmp::{Ordering, Reverse};
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use conn_reactor::Token;
use parking_lot::{Mutex, RwLock};

use super::device::{Device, Presence, Session};
use super::pulse::Pulse;
use super::secrets::Secrets;
use crate::proto::{BootId, SessionToken};

/// So many that the devices of one can lie in order in a vector: of a million, 16 KB are moved for a new one.
const BUCKETS: usize = 256;

/// Places of a bucket that take as much memory as a device does.
const DEVICE_PLACES: usize = 112 / size_of::<Arc<Device>>();

/// Every known device.
pub(crate) struct Directory {
    buckets: Vec<RwLock<Bucket>>,
    hasher: RandomState,
    known_max: usize,
    known: AtomicUsize,
    counts: Counts,
    secrets: Secrets,
    /// Sessions that began, and those that ended.
    turns: AtomicU64,
    /// Devices that are not online, longest first; the key is the turn in which each one left.
    resting: Mutex<BTreeMap<u64, Arc<Device>>>,
}

/// How many devices are in which state.
#[derive(Default)]
struct Counts {
    online: AtomicUsize,
    gone: AtomicUsize,
}

/// What a HELLO leads to.
pub(crate) enum Admission {
    /// The session is this one; an older one that it replaced has to be told.
    Accepted {
        device: Arc<Device>,
        epoch: u64,
        token: SessionToken,
        replaced: Option<Session>,
        first_time: bool,
        /// The session that it replaced was that of a suspect.
        was_suspect: bool,
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
    /// When, and how often the device will beat.
    pub(crate) now_ms: u64,
    pub(crate) interval_ms: u32,
    /// The epoch of a holder that failed its probe and may be pushed aside.
    pub(crate) displace: Option<u64>,
}

impl Directory {
    pub(crate) fn new(known_max: usize) -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            known_max: known_max.max(1),
            known: AtomicUsize::new(0),
            counts: Counts::default(),
            secrets: Secrets::random(),
            turns: AtomicU64::new(0),
            resting: Mutex::default(),
        }
    }

    fn bucket(&self, id: &str) -> &RwLock<Bucket> {
        let hash = self.hasher.hash_one(id);
        &self.buckets[usize::try_from(hash % BUCKETS as u64).expect("below BUCKETS")]
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Device>> {
        let bucket = self.bucket(id).read();
        bucket.place(id).ok().map(|at| Arc::clone(&bucket.0[at]))
    }

    /// Remembers a device from an earlier run as offline. Returns the id that was forgotten for it.
    pub(crate) fn remember(&self, id: &str) -> Option<Box<str>> {
        if self.get(id).is_some() {
            return None;
        }
        let forgotten = self.make_room().ok()?;
        let turn = self.turn();
        let device = self.insert(id, turn);
        self.resting.lock().insert(turn, device);
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
                    // It rests nowhere: this turn stays unused.
                    (self.insert(knock.id, 0), true)
                }
                Err(NoRoom) => return Some(Admission::Full),
            },
        };
        let epoch = Session::epoch(self.turn(), knock.shard);
        let mut route = device.route();
        if route.is_forgotten() {
            return None;
        }
        let replaced = route.session();
        if let Some(holder) = replaced {
            let resumes = knock.resume == Some(self.secrets.session_token(holder.epoch));
            if !resumes && knock.displace != Some(holder.epoch) {
                return Some(Admission::InUse { holder });
            }
        } else {
            if let Some(turn) = route.turn() {
                self.resting.lock().remove(&turn);
            }
            self.count(route.presence(), Presence::Online);
        }
        let pulse = Pulse::new(knock.now_ms, knock.interval_ms);
        let was_suspect = route.enter(epoch, knock.token, knock.boot, pulse);
        drop(route);
        Some(Admission::Accepted {
            device,
            epoch: epoch.get(),
            token: self.secrets.session_token(epoch.get()),
            replaced,
            first_time,
            was_suspect,
        })
    }

    /// The session of this connection ended. A later session is not touched. Returns whether the device was a suspect.
    pub(crate) fn leave(
        &self,
        device: &Arc<Device>,
        shard: usize,
        token: Token,
        is_gone: bool,
    ) -> bool {
        let mut route = device.route();
        if !route
            .session()
            .is_some_and(|session| session.is_of(shard, token))
        {
            return false;
        }
        let turn = self.turn();
        let was_suspect = route.leave(turn, is_gone);
        self.count(Presence::Online, route.presence());
        self.resting.lock().insert(turn, Arc::clone(device));
        was_suspect
    }

    /// Devices in the order of their ids, those behind `after`, at most `limit`.
    pub(crate) fn page(&self, after: &str, limit: usize) -> Vec<Arc<Device>> {
        let buckets: Vec<_> = self.buckets.iter().map(RwLock::read).collect();
        let rests = buckets.iter().map(|bucket| bucket.from(Excluded(after)));
        let mut rests: BinaryHeap<_> = rests.filter_map(Rest::of).map(Reverse).collect();
        let mut page = Vec::new();
        while page.len() < limit
            && let Some(mut first) = rests.peek_mut()
        {
            page.push(Arc::clone(first.0.first));
            match Rest::of(first.0.others) {
                Some(rest) => first.0 = rest,
                None => drop(PeekMut::pop(first)),
            }
        }
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
        let bucket = self.buckets[bucket].read();
        let devices = bucket.from(after.map_or(Included(prefix), Excluded)).iter();
        let fitting = devices.take_while(|device| device.id().starts_with(prefix));
        fitting.take(limit).map(Arc::clone).collect()
    }

    /// How many [`matching`](Self::matching) knows.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Grows with each session that starts or ends.
    pub(crate) fn changes(&self) -> u64 {
        self.turns.load(Relaxed)
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

    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Relaxed) + 1
    }

    /// A new device that left in this turn, or the one that there is meanwhile.
    fn insert(&self, id: &str, turn: u64) -> Arc<Device> {
        let device = Arc::new(Device::new(id, turn));
        let mut bucket = self.bucket(id).write();
        match bucket.place(id) {
            Ok(at) => Arc::clone(&bucket.0[at]),
            Err(at) => {
                bucket.insert(at, Arc::clone(&device));
                self.known.fetch_add(1, Relaxed);
                device
            }
        }
    }

    /// Makes sure that one more device may be known, by forgetting the longest offline one.
    fn make_room(&self) -> Result<Option<Box<str>>, NoRoom> {
        if self.known() < self.known_max {
            return Ok(None);
        }
        let mut resting = self.resting.lock();
        let turn = resting
            .iter()
            // Others take the lock of `resting` while they hold a route: no waiting for one here.
            .find(|(_, device)| device.try_route().is_some_and(|mut route| route.forget()))
            .map(|(turn, _)| *turn);
        let device = turn.and_then(|turn| resting.remove(&turn)).ok_or(NoRoom)?;
        drop(resting);
        if device.presence() == Presence::Gone {
            self.counts.gone.fetch_sub(1, Relaxed);
        }
        self.bucket(device.id()).write().remove(device.id());
        self.known.fetch_sub(1, Relaxed);
        Ok(Some(device.id().into()))
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

/// Devices in the order of their ids.
#[derive(Default)]
struct Bucket(Vec<Arc<Device>>);

impl Bucket {
    fn place(&self, id: &str) -> Result<usize, usize> {
        let id = id.as_bytes();
        self.0.binary_search_by(|device| device.id_bytes().cmp(id))
    }

    /// The devices from this id on.
    fn from(&self, id: Bound<&str>) -> &[Arc<Device>] {
        let at = match id {
            Included(id) => self.place(id).unwrap_or_else(|at| at),
            Excluded(id) => self.place(id).map_or_else(|at| at, |at| at + 1),
            Unbounded => 0,
        };
        &self.0[at..]
    }

    fn insert(&mut self, at: usize, device: Arc<Device>) {
        let len = self.0.len();
        if len == self.0.capacity() {
            // Not to the double: room that nobody uses counts at a million devices. What the vector leaves behind when it
            // moves is as large as a few devices, with the allocator's own word, and so is used for some.
            let places = (len / 8 / DEVICE_PLACES + 1) * DEVICE_PLACES;
            self.0
                .reserve_exact(if len == 0 { places - 1 } else { places });
        }
        self.0.insert(at, device);
    }

    fn remove(&mut self, id: &str) {
        if let Ok(at) = self.place(id) {
            self.0.remove(at);
        }
        if self.0.len() < self.0.capacity() / 2 {
            self.0.shrink_to_fit();
        }
    }
}

/// What is left of a bucket; it comes where its first device does.
struct Rest<'a> {
    first: &'a Arc<Device>,
    others: &'a [Arc<Device>],
}

impl<'a> Rest<'a> {
    fn of(devices: &'a [Arc<Device>]) -> Option<Self> {
        let (first, others) = devices.split_first()?;
        Some(Self { first, others })
    }
}

impl PartialEq for Rest<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rest<'_> {}

impl PartialOrd for Rest<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rest<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.first.id_bytes().cmp(other.first.id_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_through_all_devices_in_order() {
        let directory = Directory::new(usize::MAX);
        let mut ids: Vec<_> = (0..3_000).map(|n| format!("{:x}", n * 7_919)).collect();
        for id in &ids {
            directory.remember(id);
        }
        ids.sort();
        for limit in [1_000, 7] {
            let mut seen: Vec<String> = Vec::new();
            loop {
                let after = seen.last().map_or("", String::as_str);
                let page = directory.page(after, limit);
                seen.extend(page.iter().map(|device| device.id().to_owned()));
                if page.len() < limit {
                    break;
                }
            }
            assert_eq!(seen, ids);
        }
        let fitting = (0..directory.buckets())
            .map(|bucket| directory.matching(bucket, "1", None, usize::MAX).len());
        let wanted = ids.iter().filter(|id| id.starts_with('1')).count();
        assert_eq!(fitting.sum::<usize>(), wanted);
    }
}
