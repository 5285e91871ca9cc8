//! What is known of every key: claims in full, outcomes as a hash and a place in the log.
//!
//! Pure: it is told what happened, by the callers of a live store and by the log on recovery.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::completion::Event;
use crate::embedded::slab::Slab;

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
pub(crate) struct Entry {
    pub(crate) hash: u64,
    pub(crate) location: Location,
}

// The index is most of the store's memory: 16 bytes and a control byte, so that a table that has
// just grown (7/16 full) still takes less than 40 bytes a key.
const _: () = assert!(size_of::<Entry>() == 16);

/// The index is split so that growing moves a 256th of it at a time, and that it can be written to
/// the disk a part at a time.
pub(crate) const SHARDS: usize = 256;
/// Width of an expiry bucket: 2^20 ms, about 17 minutes.
pub(crate) const EXPIRY_SHIFT: u32 = 20;

/// The key of the hash of keys: secret, so that nobody can choose keys that collide, and the same
/// as long as the index on the disk is used.
pub(crate) type HashKey = [u8; 16];

pub(crate) struct Book {
    hash_key: HashKey,
    hasher: SipHasher13,
    shards: Vec<Shard>,
    claims: Slab<Claim>,
    claimed: usize,
    in_doubt: usize,
    stored: usize,
    /// Bytes of the records that recovery would need: claims, and outcomes not known to be expired.
    live_bytes: u64,
    /// Bytes of outcomes by the end of their retention. Buckets below `swept_below` do not count as
    /// live; they stay, because the clock that said so may have been wrong.
    expiring: BTreeMap<u64, u64>,
    swept_below: u64,
    /// Bytes swept since they were last asked for.
    swept_bytes: u64,
    /// How many claims and outcomes lie in each segment.
    held_by: BTreeMap<u32, u64>,
    /// Outcomes whose retention ended before this may be gone though the log still has them.
    expired_below_ms: u64,
    /// Off while records are applied that `expiring` has in it already.
    pub(crate) counting: bool,
}

/// The keys of one part of the hashes.
#[derive(Default)]
struct Shard {
    claims: HashTable<Claimed>,
    places: HashTable<Entry>,
}

/// Where a claim is in the slab. A claim is large and new: in the table it would be written to memory
/// that is in no cache, which costs more than everything else that a begin does. For the same reason
/// this is small.
struct Claimed {
    tag: u32,
    number: u32,
}

impl Claimed {
    fn is(&self, hash: u64, key: &[u8], claims: &Slab<Claim>) -> bool {
        self.tag == tag_of(hash) && *claims.get(self.number).key == *key
    }
}

/// The part of a hash that finds a claim within its shard.
fn tag_of(hash: u64) -> u32 {
    hash as u32
}

/// A tag as hashbrown wants it: its low bits choose the bucket, the top ones are compared.
fn spread(tag: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(tag)
}

/// The shard of a hash: hashbrown takes its tag from the top bits and its bucket from the low ones.
pub(crate) fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

impl Book {
    pub(crate) fn new(hash_key: HashKey) -> Self {
        Self {
            hash_key,
            hasher: SipHasher13::new_with_key(&hash_key),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            claims: Slab::default(),
            claimed: 0,
            in_doubt: 0,
            stored: 0,
            live_bytes: 0,
            expiring: BTreeMap::new(),
            swept_below: 0,
            swept_bytes: 0,
            held_by: BTreeMap::new(),
            expired_below_ms: 0,
            counting: true,
        }
    }

    pub(crate) fn hash_key(&self) -> HashKey {
        self.hash_key
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    pub(crate) fn keys(&self) -> usize {
        self.stored + self.claimed
    }

    pub(crate) fn stored(&self) -> usize {
        self.stored
    }

    pub(crate) fn in_doubt(&self) -> usize {
        self.in_doubt
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.claimed - self.in_doubt
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// The claims of all shards.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter()
    }

    /// The claims and outcomes of one shard.
    pub(crate) fn shard_claims(&self, number: usize) -> impl Iterator<Item = &Claim> {
        let claims = self.shards[number].claims.iter();
        claims.map(|claimed| self.claims.get(claimed.number))
    }

    pub(crate) fn shard_places(&self, number: usize) -> impl Iterator<Item = &Entry> {
        self.shards[number].places.iter()
    }

    /// Bytes of outcomes by the end of their retention, in buckets of 2^20 ms.
    pub(crate) fn expiring(&self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        self.expiring
            .iter()
            .map(|(bucket, bytes)| (*bucket, *bytes))
    }

    /// Memory of the tables of outcomes.
    pub(crate) fn index_bytes(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| shard.places.allocation_size()).sum()
    }

    pub(crate) fn expired_below_ms(&self) -> u64 {
        self.expired_below_ms
    }

    /// Takes up what an index on the disk says; only the places and claims are left to insert.
    pub(crate) fn resume(&mut self, expiring: BTreeMap<u64, u64>, expired_below_ms: u64) {
        self.live_bytes += expiring.values().sum::<u64>();
        self.expiring = expiring;
        self.expired_below_ms = expired_below_ms;
    }

    /// Makes room in a shard for this many outcomes, and no more.
    pub(crate) fn reserve(&mut self, number: usize, outcomes: usize) {
        self.shards[number]
            .places
            .reserve(outcomes, |entry| entry.hash);
    }

    pub(crate) fn claim(&self, hash: u64, key: &[u8]) -> Option<&Claim> {
        self.claimed(hash, key)
            .map(|number| self.claims.get(number))
    }

    fn claimed(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let claims = &self.shards[shard_of(hash)].claims;
        let found = claims.find(spread(tag_of(hash)), |claimed| {
            claimed.is(hash, key, &self.claims)
        });
        found.map(|claimed| claimed.number)
    }

    /// Changes a claim in place; what it counts for is kept right.
    pub(crate) fn update<R>(
        &mut self,
        hash: u64,
        key: &[u8],
        change: impl FnOnce(&mut Claim) -> R,
    ) -> Option<R> {
        let number = self.claimed(hash, key)?;
        let claim = self.claims.get_mut(number);
        let (held, bytes, from) = (claim.held, claim.bytes, claim.location.segment);
        let result = change(claim);
        let to = claim.location.segment;
        self.in_doubt = self.in_doubt + usize::from(!claim.held) - usize::from(!held);
        self.live_bytes = self.live_bytes + u64::from(claim.bytes) - u64::from(bytes);
        self.moved(from, to);
        Some(result)
    }

    pub(crate) fn insert_claim(&mut self, claim: Claim) {
        self.live_bytes += u64::from(claim.bytes);
        self.in_doubt += usize::from(!claim.held);
        self.claimed += 1;
        self.came(claim.location.segment);
        let hash = claim.hash;
        let number = self.claims.insert(claim);
        let tag = tag_of(hash);
        self.shards[shard_of(hash)].claims.insert_unique(
            spread(tag),
            Claimed { tag, number },
            |claimed| spread(claimed.tag),
        );
    }

    pub(crate) fn remove_claim(&mut self, hash: u64, key: &[u8]) -> Option<Claim> {
        let table = &mut self.shards[shard_of(hash)].claims;
        let found = table.find_entry(spread(tag_of(hash)), |claimed| {
            claimed.is(hash, key, &self.claims)
        });
        let (Claimed { number, .. }, _) = found.ok()?.remove();
        let claim = self.claims.remove(number);
        self.claimed -= 1;
        self.live_bytes -= u64::from(claim.bytes);
        self.in_doubt -= usize::from(!claim.held);
        self.left(claim.location.segment);
        Some(claim)
    }

    /// Drops the claims that `keep` does not want.
    pub(crate) fn retain_claims(&mut self, mut keep: impl FnMut(&mut Claim) -> bool) {
        let (mut claimed, mut in_doubt, mut bytes) = (0, 0, 0);
        let mut gone = Vec::new();
        for shard in &mut self.shards {
            shard.claims.retain(|&mut Claimed { number, .. }| {
                let claim = self.claims.get_mut(number);
                let segment = claim.location.segment;
                let keep = keep(claim);
                if !keep {
                    gone.push(segment);
                    self.claims.remove(number);
                }
                keep
            });
        }
        for claim in self.claims.iter() {
            claimed += 1;
            in_doubt += usize::from(!claim.held);
            bytes += u64::from(claim.bytes);
        }
        gone.into_iter().for_each(|segment| self.left(segment));
        (self.claimed, self.in_doubt) = (claimed, in_doubt);
        let retained = self.expiring.range(self.swept_below..);
        self.live_bytes = retained.map(|(_, bytes)| bytes).sum::<u64>() + bytes;
    }

    /// Where outcomes with this hash lie: at most one is the key's, the caller compares.
    pub(crate) fn places(&self, hash: u64) -> impl Iterator<Item = Location> {
        self.shards[shard_of(hash)]
            .places
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
        self.insert_entry(Entry { hash, location });
        let bucket = retain_until_ms >> EXPIRY_SHIFT;
        if self.counting {
            *self.expiring.entry(bucket).or_default() += u64::from(bytes);
            if bucket >= self.swept_below {
                self.live_bytes += u64::from(bytes);
            }
        }
    }

    /// Inserts a place whose bytes are counted already.
    pub(crate) fn insert_entry(&mut self, entry: Entry) {
        self.shards[shard_of(entry.hash)]
            .places
            .insert_unique(entry.hash, entry, |entry| entry.hash);
        self.stored += 1;
        self.came(entry.location.segment);
    }

    /// Forgets an outcome; whether it was known.
    pub(crate) fn remove_place(
        &mut self,
        hash: u64,
        location: Location,
        bytes: u32,
        retain_until_ms: u64,
    ) -> bool {
        let places = &mut self.shards[shard_of(hash)].places;
        let found = places.find_entry(hash, |entry| entry.location == location);
        let Ok(entry) = found else { return false };
        entry.remove();
        self.stored -= 1;
        self.left(location.segment);
        if !self.counting {
            return true;
        }
        let bucket = retain_until_ms >> EXPIRY_SHIFT;
        if let Some(left) = self.expiring.get_mut(&bucket) {
            // An index on the disk may tell of less.
            let taken = u64::from(bytes).min(*left);
            *left -= taken;
            if bucket >= self.swept_below {
                self.live_bytes -= taken;
            }
            if *left == 0 {
                self.expiring.remove(&bucket);
            }
        }
        true
    }

    /// Forgets an outcome past its retention of which the log will not tell that it is gone.
    pub(crate) fn expire_place(
        &mut self,
        hash: u64,
        location: Location,
        bytes: u32,
        retain_until_ms: u64,
    ) {
        self.remove_place(hash, location, bytes, retain_until_ms);
        self.expired_below_ms = self.expired_below_ms.max(retain_until_ms.saturating_add(1));
    }

    /// An outcome was copied within the log.
    pub(crate) fn move_place(&mut self, hash: u64, from: Location, to: Location) -> bool {
        let places = &mut self.shards[shard_of(hash)].places;
        let found = places.find_mut(hash, |entry| entry.location == from);
        let moved = found.map(|entry| entry.location = to).is_some();
        if moved {
            self.moved(from.segment, to.segment);
        }
        moved
    }

    /// How many claims and outcomes lie in a segment, those past their retention included until
    /// they are found.
    pub(crate) fn held_by(&self, segment: u32) -> u64 {
        self.held_by.get(&segment).copied().unwrap_or(0)
    }

    fn came(&mut self, segment: u32) {
        *self.held_by.entry(segment).or_default() += 1;
    }

    fn left(&mut self, segment: u32) {
        if let Some(count) = self.held_by.get_mut(&segment) {
            *count -= 1;
            if *count == 0 {
                self.held_by.remove(&segment);
            }
        }
    }

    fn moved(&mut self, from: u32, to: u32) {
        if from != to {
            self.came(to);
            self.left(from);
        }
    }

    /// Drops every outcome that lies below `segment`; how many.
    pub(crate) fn retain_from(&mut self, segment: u32) -> usize {
        let mut dropped = 0;
        for shard in &mut self.shards {
            let before = shard.places.len();
            shard
                .places
                .retain(|entry| entry.location.segment >= segment);
            dropped += before - shard.places.len();
        }
        self.held_by = self.held_by.split_off(&segment);
        self.stored -= dropped;
        dropped
    }

    /// Stops counting outcomes as live whose retention has ended by `now_ms`, and counts those again
    /// that an earlier clock said so of when it was ahead.
    pub(crate) fn sweep(&mut self, now_ms: u64) {
        let below = now_ms >> EXPIRY_SHIFT;
        let (from, to) = (self.swept_below.min(below), self.swept_below.max(below));
        let between = self.expiring.range(from..to);
        let bytes: u64 = between.map(|(_, bytes)| bytes).sum();
        if below > self.swept_below {
            self.live_bytes -= bytes;
            self.swept_bytes += bytes;
        } else {
            self.live_bytes += bytes;
        }
        self.swept_below = below;
    }

    /// Bytes of outcomes whose retention ended since this was last asked: the index still knows
    /// their keys.
    pub(crate) fn take_swept_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.swept_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_wrong_clock_swept_counts_again_when_the_clock_is_right() {
        let mut book = Book::new([7; 16]);
        let location = Location {
            segment: 1,
            offset: 8,
        };
        let until_ms = 10 << EXPIRY_SHIFT;
        book.insert_place(1, location, 100, until_ms);
        book.sweep(50 << EXPIRY_SHIFT);
        assert_eq!((book.live_bytes(), book.take_swept_bytes()), (0, 100));
        book.sweep(5 << EXPIRY_SHIFT);
        assert_eq!((book.live_bytes(), book.take_swept_bytes()), (100, 0));
        book.sweep(11 << EXPIRY_SHIFT);
        assert_eq!((book.live_bytes(), book.take_swept_bytes()), (0, 100));
        assert!(book.remove_place(1, location, 100, until_ms));
        book.sweep(0);
        assert_eq!((book.live_bytes(), book.expiring().len()), (0, 0));
    }

    /// At every size, also when all the tables have just grown.
    #[test]
    fn a_key_takes_at_most_40_bytes_of_index() {
        let mut book = Book::new([7; 16]);
        let mut worst: f64 = 0.0;
        for number in 0..300_000_u32 {
            let hash = book.hash(&number.to_le_bytes());
            let location = Location {
                segment: 1,
                offset: number,
            };
            book.insert_place(hash, location, 100, 5);
            if number > 50_000 && number % 1_000 == 0 {
                worst = worst.max(book.index_bytes() as f64 / book.stored() as f64);
            }
        }
        assert!((19.4..=40.0).contains(&worst), "{worst} bytes a key");
        assert!(worst > 30.0, "the worst size was not met: {worst}");
    }
}
