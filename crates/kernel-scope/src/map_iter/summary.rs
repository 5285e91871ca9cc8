use std::collections::{HashMap, HashSet};

use crate::error::ScopeError;
use crate::histogram::Histogram;
use crate::map_iter::event::{Event, MapKind};

/// What one process did to one map.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// The process, as the initial pid namespace numbers it. After its end the kernel may give the
    /// number to another one.
    pub pid: u32,
    /// When it began, by `CLOCK_MONOTONIC`, nanoseconds: with `pid` it is never given twice.
    pub start_ns: u64,
    /// The name of the thread that stepped first.
    pub comm: String,
    /// The map's id; 0 collects the failed calls that do not prove which map they meant.
    pub map_id: u32,
    /// The map's name.
    pub map_name: String,
    /// The map's type.
    pub map_type: MapKind,
    /// Walks begun: calls without a key, and calls outside of a walk with a key that is not in
    /// the map (a walk started with a made-up key).
    pub walks: u64,
    /// Walks that the kernel ended with "no more keys".
    pub completed: u64,
    /// Keys returned, all walks together; a key that was returned twice counts twice.
    pub keys: u64,
    /// Steps inside a walk whose key was no longer in the map: the kernel started again at the
    /// first key.
    pub restarts: u64,
    /// Calls that failed otherwise.
    pub failures: u64,
    /// Time inside the call, nanoseconds, one value a step.
    pub step_ns: Histogram,
    /// How many of `keys` fell into which of [`HEAT_BUCKETS`] buckets by their hash. A walk that
    /// goes through reads about as many of each; keys that come again and again, as in restarts,
    /// stand out. Empty before the first key.
    pub heat: Vec<u64>,
    /// Where walks began and restarted, and how often: numbers for
    /// [`MapIter::caller`](super::MapIter::caller). At most 16, the first ones.
    pub callers: Vec<(u32, u64)>,
    /// How often the program lost where.
    pub callers_lost: u64,
}

/// Buckets of [`Row::heat`].
pub const HEAT_BUCKETS: usize = 64;
const CALLERS_MAX: usize = 16;

/// Events summed up per process and map.
///
/// Bounded: beyond [`groups_max`](Self::with_groups_max) pairs, further pairs are counted in
/// [`ungrouped`](Self::ungrouped) and nothing else about them is kept. So is the state of the
/// walks under way, one for each thread and map, twice as many: when that is full it starts
/// again empty, and the next restart in a walk that was under way counts as a walk.
#[derive(Debug, Clone)]
pub struct Summary {
    groups_max: usize,
    /// By process, as pid and beginning, and map.
    rows: HashMap<(u32, u64, u32), Row>,
    /// Thread, beginning of its process, and map: those that are inside a walk.
    walking: HashSet<(u32, u64, u32)>,
    ungrouped: u64,
    events: u64,
}

impl Default for Summary {
    /// With room for 10,000 groups: some 10 MB if each has seen very different step times.
    fn default() -> Self {
        Self::with_groups_max(10_000)
    }
}

impl Summary {
    /// A summary of at most `groups_max` pairs of process and map.
    #[must_use]
    pub fn with_groups_max(groups_max: usize) -> Self {
        let (rows, walking) = (HashMap::new(), HashSet::new());
        Self {
            groups_max,
            rows,
            walking,
            ungrouped: 0,
            events: 0,
        }
    }

    /// Adds one record of the ring.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(), ScopeError> {
        self.record(&Event::from_bytes(bytes)?);
        Ok(())
    }

    /// Adds one event. Amortised O(1).
    pub fn record(&mut self, event: &Event) {
        self.events += 1;
        let began = self.follow_walk(event);
        let key = (event.pid, event.start_ns, event.map_id);
        if self.rows.len() >= self.groups_max && !self.rows.contains_key(&key) {
            self.ungrouped += 1;
            return;
        }
        let row = self.rows.entry(key).or_insert_with(|| Row::new(event));
        row.walks += u64::from(began);
        row.restarts += u64::from(!began && event.key_was_gone() && event.has_next());
        row.keys += u64::from(event.has_next());
        row.completed += u64::from(event.is_end());
        row.failures += u64::from(!event.has_next() && !event.is_end());
        row.step_ns.record(event.step_ns);
        row.add_heat(event);
        row.add_caller(event);
    }

    /// Whether the event begins a walk, given what its thread did to the map before.
    fn follow_walk(&mut self, event: &Event) -> bool {
        let key = (event.tid, event.start_ns, event.map_id);
        let inside = self.walking.contains(&key);
        let began = event.is_first() || event.key_was_gone() && !inside;
        if event.is_end() {
            self.walking.remove(&key);
        } else if event.has_next() && !inside {
            if self.walking.len() >= self.groups_max.saturating_mul(2) {
                self.walking.clear();
            }
            self.walking.insert(key);
        }
        began && (event.has_next() || event.is_end())
    }

    /// The rows, most keys first.
    #[must_use]
    pub fn rows(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.values().collect();
        rows.sort_by_key(|row| (std::cmp::Reverse(row.keys), row.pid, row.map_id));
        rows
    }

    /// Events recorded.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Events of pairs for which there was no room.
    #[must_use]
    pub fn ungrouped(&self) -> u64 {
        self.ungrouped
    }
}

impl Row {
    fn new(event: &Event) -> Self {
        Self {
            pid: event.pid,
            start_ns: event.start_ns,
            comm: event.comm(),
            map_id: event.map_id,
            map_name: event.map_name(),
            map_type: MapKind(event.map_type),
            walks: 0,
            completed: 0,
            keys: 0,
            restarts: 0,
            failures: 0,
            step_ns: Histogram::default(),
            heat: Vec::new(),
            callers: Vec::new(),
            callers_lost: 0,
        }
    }

    /// The fullest buckets of [`heat`](Self::heat), fullest first: bucket and keys.
    #[must_use]
    pub fn hottest(&self, buckets_max: usize) -> Vec<(usize, u64)> {
        let mut hot: Vec<_> = self.heat.iter().copied().enumerate().collect();
        hot.retain(|(_, keys)| *keys > 0);
        hot.sort_by_key(|(bucket, keys)| (std::cmp::Reverse(*keys), *bucket));
        hot.truncate(buckets_max);
        hot
    }

    fn add_heat(&mut self, event: &Event) {
        if event.next_hash == 0 {
            return;
        }
        if self.heat.is_empty() {
            self.heat.resize(HEAT_BUCKETS, 0);
        }
        let bucket = event.next_hash % HEAT_BUCKETS as u64;
        self.heat[usize::try_from(bucket).expect("below 64")] += 1;
    }

    fn add_caller(&mut self, event: &Event) {
        self.callers_lost += u64::from(event.caller_lost());
        let Some(caller) = event.caller() else { return };
        let known = self.callers.iter().position(|(known, _)| *known == caller);
        match known {
            Some(at) => self.callers[at].1 += 1,
            None if self.callers.len() < CALLERS_MAX => self.callers.push((caller, 1)),
            None => {}
        }
    }
}
