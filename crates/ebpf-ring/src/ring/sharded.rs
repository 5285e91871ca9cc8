use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::reader::{Record, RingReader};
use super::set::RingSet;
use crate::counters::{CounterSource, Counters};
use crate::cpus;
use crate::error::RingError;
use crate::groups::CpuGroups;
use crate::map::BpfMap;
use crate::spec::{MapFlags, MapKind, MapSpec};
use crate::stats::RingStats;
use crate::sys;
use crate::wait::{Closer, Wait};
use crate::walk::Drained;

/// `enum bpf_map_type`.
const ARRAY_OF_MAPS: u32 = 12;
const HASH_OF_MAPS: u32 = 13;

/// One ring for each group of CPUs, behind an `ARRAY_OF_MAPS` or `HASH_OF_MAPS` with a CPU's number as
/// the key: programs on CPUs of different groups do not meet at one lock.
///
/// The program's half is `mr_reserve_here` and `mr_output_here` of `mainstay_ring.h`. The rings are
/// drained in turn, as a [`RingSet`]'s are. Records of one CPU are in order; between groups there is
/// none.
///
/// ```no_run
/// use ebpf_ring::{CpuGroups, GroupBy, RingError, ShardedRings, Wait};
///
/// # fn follow(rings: std::os::fd::OwnedFd) -> Result<(), RingError> {
/// let groups = CpuGroups::read(GroupBy::Cache, 8)?;
/// let mut rings = ShardedRings::create(rings, groups, 1 << 20)?;
/// while rings.wait(Wait::forever())? {
///     rings.drain(10_000, |ring, record| println!("{ring}: {} bytes", record.bytes().len()))?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct ShardedRings {
    map: BpfMap,
    groups: CpuGroups,
    rings: RingSet,
    counters: Option<Box<dyn CounterSource>>,
}

impl ShardedRings {
    /// Makes a ring of `ring_bytes` for each group and puts it into `map` at each of the group's
    /// CPUs; what was there is replaced. The rings stay there when this is dropped.
    ///
    /// When the map has no room for all of them, it stays as it was. Only when the kernel itself has
    /// no memory left to replace a ring (a hash made with `BPF_F_NO_PREALLOC`), those replaced just
    /// before stay so, without a reader: create them again.
    ///
    /// # Errors
    ///
    /// [`is_wrong_map`](RingError::is_wrong_map) when `map` is neither array nor hash of maps, or
    /// `ring_bytes` is no size of a ring; [`is_permission_denied`](RingError::is_permission_denied)
    /// without CAP_BPF; also when a CPU's number is beyond the map, or its inner maps are not rings.
    pub fn create(
        map: impl Into<OwnedFd>,
        groups: CpuGroups,
        ring_bytes: u32,
    ) -> Result<Self, RingError> {
        let map = of_maps(map)?;
        let spec = MapSpec {
            kind: MapKind::RingBuf,
            key_size: 0,
            value_size: 0,
            max_entries: ring_bytes,
            flags: MapFlags::NONE,
        };
        spec.check()
            .map_err(|e| RingError::wrong_map(e.to_string()))?;
        let make = |_| {
            let ring = sys::map_create(spec.kind.number(), [0, 0, ring_bytes, 0]);
            RingReader::from_fd(ring.map_err(|e| RingError::io("making the ring of a group", e))?)
        };
        // All of them, before the first takes the place of one that somebody may still read.
        let rings: Vec<_> = groups.iter().map(make).collect::<Result<_, _>>()?;
        put(&map, &groups, &rings)?;
        Self::new(map, groups, rings)
    }

    /// Takes over the rings that are in `map`, where their last consumer stopped.
    ///
    /// # Errors
    ///
    /// [`is_wrong_map`](RingError::is_wrong_map) when `map` is neither array nor hash of maps, or
    /// there is no ring in it; [`is_permission_denied`](RingError::is_permission_denied) without
    /// CAP_SYS_ADMIN, with which maps are opened by id.
    pub fn open(map: impl Into<OwnedFd>) -> Result<Self, RingError> {
        let map = of_maps(map)?;
        let cpus = cpus::possible().map_err(|e| RingError::io("listing the CPUs", e))?;
        let mut by_id: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for cpu in cpus {
            let id = map.lookup(cpu);
            let id = id.map_err(|e| RingError::io("looking up the ring of a CPU", e))?;
            if let Some(id) = id.and_then(|id| id.first_chunk().copied()) {
                by_id.entry(u32::from_ne_bytes(id)).or_default().push(cpu);
            }
        }
        if by_id.is_empty() {
            return Err(RingError::wrong_map("no CPU has a ring in it"));
        }
        let rings = by_id
            .keys()
            .map(|id| RingReader::from_fd(BpfMap::by_id(*id)?));
        let rings = rings.collect::<Result<_, _>>()?;
        let groups = CpuGroups::new(by_id.into_values().collect())?;
        Self::new(map, groups, rings)
    }

    fn new(map: BpfMap, groups: CpuGroups, rings: Vec<RingReader>) -> Result<Self, RingError> {
        Ok(Self {
            map,
            groups,
            rings: RingSet::new(rings)?,
            counters: None,
        })
    }

    /// Joins the counters of `mainstay_ring.h`, which are of all rings together, to
    /// [`stats`](Self::stats).
    #[must_use]
    pub fn with_counters(mut self, counters: impl CounterSource + 'static) -> Self {
        self.counters = Some(Box::new(counters));
        self
    }

    /// The CPUs of each ring, by the ring's number.
    #[must_use]
    pub fn groups(&self) -> &CpuGroups {
        &self.groups
    }

    /// As [`RingSet::drain`].
    ///
    /// # Errors
    ///
    /// As [`RingSet::drain`].
    pub fn drain(
        &mut self,
        records_max: u64,
        each: impl FnMut(usize, Record<'_>),
    ) -> Result<Drained, RingError> {
        self.rings.drain(records_max, each)
    }

    /// As [`RingSet::wait`].
    ///
    /// # Errors
    ///
    /// As [`RingSet::wait`].
    pub fn wait(&mut self, wait: Wait) -> Result<bool, RingError> {
        self.rings.wait(wait)
    }

    /// What ends the waits, from any thread.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn closer(&mut self) -> Result<Closer, RingError> {
        self.rings.closer()
    }

    /// Where every record went so far, all rings together. O(records in the rings), and a read of
    /// the counter map.
    ///
    /// # Errors
    ///
    /// [`is_corrupt`](RingError::is_corrupt), or the counter map cannot be read.
    pub fn stats(&self) -> Result<RingStats, RingError> {
        let per_cpu = self.counters()?;
        let mut sum = RingStats {
            per_cpu,
            ..RingStats::default()
        };
        for ring in self.rings.rings() {
            sum.add(&ring.stats()?);
        }
        Ok(sum)
    }

    /// As [`stats`](Self::stats), of each ring by itself: its `per_cpu` is zero for CPUs of other
    /// groups. What CPUs without a ring lost is in none.
    ///
    /// # Errors
    ///
    /// As `stats`.
    pub fn stats_by_ring(&self) -> Result<Vec<RingStats>, RingError> {
        let all = self.counters()?;
        let cpus = cpus::possible().map_err(|e| RingError::io("listing the CPUs", e))?;
        let rings = self.rings.rings().iter().zip(self.groups.iter());
        let of_ring = |(ring, group): (&RingReader, &[u32])| {
            let of_group = |(counters, cpu): (&Counters, &u32)| match group.contains(cpu) {
                true => *counters,
                false => Counters::default(),
            };
            let per_cpu = all.as_ref();
            let per_cpu = per_cpu.map(|all| all.iter().zip(&cpus).map(of_group).collect());
            Ok(RingStats {
                per_cpu,
                ..ring.stats()?
            })
        };
        rings.map(of_ring).collect()
    }

    fn counters(&self) -> Result<Option<Vec<Counters>>, RingError> {
        let counters = self.counters.as_deref().map(CounterSource::per_cpu);
        let counters = counters.transpose();
        counters.map_err(|e| RingError::io("reading the counter map", e))
    }
}

/// Puts each ring at the CPUs of its group.
fn put(map: &BpfMap, groups: &CpuGroups, rings: &[RingReader]) -> Result<(), RingError> {
    let (mut added, mut replaced) = (Vec::new(), Vec::new());
    for (cpus, ring) in groups.iter().zip(rings) {
        for cpu in cpus {
            let is_there = map.lookup(*cpu).is_ok_and(|id| id.is_some());
            let of_its_kind = if is_there { &mut replaced } else { &mut added };
            of_its_kind.push((*cpu, ring));
        }
    }
    // Only what is added can want room. So nothing is replaced before all of that is in.
    for (at, (cpu, ring)) in added.iter().chain(&replaced).enumerate() {
        if let Err(error) = map.put(*cpu, ring.as_fd()) {
            // A program would fill a ring that has no reader.
            for (cpu, _) in &added[..at.min(added.len())] {
                let _ = map.take_away(*cpu);
            }
            let doing = format!("putting the ring of CPU {cpu} into the map");
            return Err(RingError::io(doing, error));
        }
    }
    Ok(())
}

fn of_maps(map: impl Into<OwnedFd>) -> Result<BpfMap, RingError> {
    let map = BpfMap::from_fd(map)?;
    let found = map.info()?;
    let is_of_maps = [ARRAY_OF_MAPS, HASH_OF_MAPS].contains(&found.map_type);
    if is_of_maps && found.key_size == 4 {
        return Ok(map);
    }
    Err(RingError::wrong_map(format!(
        "it is a map of type {} with keys of {} bytes, not an array ({ARRAY_OF_MAPS}) or hash ({HASH_OF_MAPS}) of maps \
         with keys of 4",
        found.map_type, found.key_size
    )))
}

/// As [`RingSet`]'s.
impl AsFd for ShardedRings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rings.as_fd()
    }
}

impl fmt::Debug for ShardedRings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedRings")
            .field("map", &self.map)
            .field("groups", &self.groups)
            .field("rings", &self.rings)
            .field("counters", &self.counters.is_some())
            .finish()
    }
}
