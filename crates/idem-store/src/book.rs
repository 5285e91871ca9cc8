//! What is known of every key: claims in full, outcomes as a hash and a place in the log.
//!
//! Pure: it is told what happened, by the callers of a live store and by the log on recovery.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashTable;

use crate::completion::Event;

/// A place in the log. Places compare in log order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Location {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

/// A key that is claimed and has no outcome.
pub(crate) struct Claim {
    pub(crate) hash: u64,
    pub(crate) key: Arc<[u8]>,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) token: u64,
    pub(crate) lease_until_ms: u64,
    pub(crate) at_ms: u64,
    pub(crate) memo: Arc<[u8]>,
    /// The effect may have happened.
    pub(crate) declared: bool,
    /// Somebody has the permit; a declared claim that nobody holds is in doubt.
    pub(crate) held: bool,
    pub(crate) location: Location,
    pub(crate) bytes: u32,
    pub(crate) waiters: Vec<Waiter>,
}

/// Somebody who waits for a holder to end, at most until a deadline.
pub(crate) struct Waiter {
    /// The deadline, with a number that makes it unique.
    pub(crate) until: (Instant, u64),
    pub(crate) event: Arc<Event>,
}

/// An outcome in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    hash: u64,
    location: Location,
}

// The index is most of the store's memory: 16 bytes and a control byte, so that a table that has
// just grown (7/16 full) still takes less than 40 bytes a key.
const _: () = assert!(size_of::<Entry>() == 16);

/// The index is split so that growing moves a 256th of it at a time.
const SHARDS: usize = 256;
/// Width of an expiry bucket: 2^20 ms, about 17 minutes.
const EXPIRY_SHIFT: u32 = 20;

pub(crate) struct Book {
    hasher: RandomState,
    claims: HashTable<Claim>,
    in_doubt: usize,
    shards: Vec<HashTable<Entry>>,
    stored: usize,
    /// Bytes of the records that recovery would need: claims, and outcomes not known to be expired.
    live_bytes: u64,
    /// Bytes of outcomes by the end of their retention, in buckets not yet swept.
    expiring: BTreeMap<u64, u64>,
    swept_below: u64,
}

impl Book {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            claims: HashTable::new(),
            in_doubt: 0,
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            stored: 0,
            live_bytes: 0,
            expiring: BTreeMap::new(),
            swept_below: 0,
        }
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    pub(crate) fn keys(&self) -> usize {
        self.stored + self.claims.len()
    }

    pub(crate) fn stored(&self) -> usize {
        self.stored
    }

    pub(crate) fn in_doubt(&self) -> usize {
        self.in_doubt
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.claims.len() - self.in_doubt
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(crate) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter()
    }

    pub(crate) fn claim(&self, hash: u64, key: &[u8]) -> Option<&Claim> {
        self.claims.find(hash, |claim| *claim.key == *key)
    }

    /// Changes a claim in place; what it counts for is kept right.
    pub(crate) fn update<R>(
        &mut self,
        hash: u64,
        key: &[u8],
        change: impl FnOnce(&mut Claim) -> R,
    ) -> Option<R> {
        let claim = self.claims.find_mut(hash, |claim| *claim.key == *key)?;
        let (held, bytes) = (claim.held, claim.bytes);
        let result = change(claim);
        self.in_doubt = self.in_doubt + usize::from(!claim.held) - usize::from(!held);
        self.live_bytes = self.live_bytes + u64::from(claim.bytes) - u64::from(bytes);
        Some(result)
    }

    pub(crate) fn insert_claim(&mut self, claim: Claim) {
        self.live_bytes += u64::from(claim.bytes);
        self.in_doubt += usize::from(!claim.held);
        self.claims
            .insert_unique(claim.hash, claim, |claim| claim.hash);
    }

    pub(crate) fn remove_claim(&mut self, hash: u64, key: &[u8]) -> Option<Claim> {
        let entry = self
            .claims
            .find_entry(hash, |claim| *claim.key == *key)
            .ok()?;
        let (claim, _) = entry.remove();
        self.live_bytes -= u64::from(claim.bytes);
        self.in_doubt -= usize::from(!claim.held);
        Some(claim)
    }

    /// Drops the claims that `keep` does not want.
    pub(crate) fn retain_claims(&mut self, mut keep: impl FnMut(&mut Claim) -> bool) {
        self.claims.retain(&mut keep);
        self.in_doubt = self.claims.iter().filter(|claim| !claim.held).count();
        let outcomes: u64 = self.expiring.values().sum();
        let claims: u64 = self.claims.iter().map(|claim| u64::from(claim.bytes)).sum();
        self.live_bytes = outcomes + claims;
    }

    /// Where outcomes with this hash lie: at most one is the key's, the caller compares.
    pub(crate) fn places(&self, hash: u64) -> impl Iterator<Item = Location> {
        self.shard(hash)
            .iter_hash(hash)
            .filter(move |entry| entry.hash == hash)
            .map(|entry| entry.location)
    }

    pub(crate) fn has_place(&self, hash: u64, location: Location) -> bool {
        self.places(hash).any(|place| place == location)
    }

    pub(crate) fn insert_place(
        &mut self,
        hash: u64,
        location: Location,
        bytes: u32,
        retain_until_ms: u64,
    ) {
        let entry = Entry { hash, location };
        self.shard_mut(hash)
            .insert_unique(hash, entry, |entry| entry.hash);
        self.stored += 1;
        let bucket = retain_until_ms >> EXPIRY_SHIFT;
        if bucket >= self.swept_below {
            self.live_bytes += u64::from(bytes);
            *self.expiring.entry(bucket).or_default() += u64::from(bytes);
        }
    }

    /// Forgets an outcome; whether it was known.
    pub(crate) fn remove_place(
        &mut self,
        hash: u64,
        location: Location,
        bytes: u32,
        retain_until_ms: u64,
    ) -> bool {
        let found = self
            .shard_mut(hash)
            .find_entry(hash, |entry| entry.location == location);
        let Ok(entry) = found else { return false };
        entry.remove();
        self.stored -= 1;
        let bucket = retain_until_ms >> EXPIRY_SHIFT;
        if let Some(left) = self.expiring.get_mut(&bucket) {
            // Less may be left than this record took: when the clock went back, a swept bucket can
            // have been started anew.
            let taken = u64::from(bytes).min(*left);
            *left -= taken;
            self.live_bytes -= taken;
            if *left == 0 {
                self.expiring.remove(&bucket);
            }
        }
        true
    }

    /// An outcome was copied within the log.
    pub(crate) fn move_place(&mut self, hash: u64, from: Location, to: Location) -> bool {
        let found = self
            .shard_mut(hash)
            .find_mut(hash, |entry| entry.location == from);
        found.map(|entry| entry.location = to).is_some()
    }

    /// Drops every outcome that lies below `segment`; how many.
    pub(crate) fn retain_from(&mut self, segment: u32) -> usize {
        let mut dropped = 0;
        for shard in &mut self.shards {
            let before = shard.len();
            shard.retain(|entry| entry.location.segment >= segment);
            dropped += before - shard.len();
        }
        self.stored -= dropped;
        dropped
    }

    /// Stops counting outcomes as live whose retention has ended by `now_ms`.
    pub(crate) fn sweep(&mut self, now_ms: u64) {
        let below = now_ms >> EXPIRY_SHIFT;
        while let Some(bucket) = self.expiring.first_entry() {
            if *bucket.key() >= below {
                break;
            }
            self.live_bytes -= bucket.remove();
        }
        // Not the highest ever seen: a clock that was ahead once must not end retention early.
        self.swept_below = below;
    }

    fn shard(&self, hash: u64) -> &HashTable<Entry> {
        // hashbrown takes its tag from the top bits and its bucket from the low ones.
        &self.shards[(hash >> 40) as usize % SHARDS]
    }

    fn shard_mut(&mut self, hash: u64) -> &mut HashTable<Entry> {
        &mut self.shards[(hash >> 40) as usize % SHARDS]
    }
}
