//! The outcomes that are asked for again and again, in memory.
//!
//! Keyed by their place in the log: the index says where the outcome of a key lies, and only then
//! is it looked for here. So nothing here outlives a key that was forgotten, replaced or moved (its
//! place is not asked for any more, and no place is used twice), and what is not durable yet is
//! found to be pending before. Retention is checked by whoever asks, against the outcome's own end.

use std::hash::{BuildHasherDefault, Hasher};

use quick_cache::Weighter;
use quick_cache::unsync::Cache as Places;

use crate::embedded::book::Location;
use crate::stored::Stored;

/// Bytes that an outcome takes beside its own and its key's: the slot, the table, the allocation.
const OVERHEAD: u64 = 192;

/// At most so many bytes of outcomes, by S3-FIFO: what is asked for once does not push out what is
/// asked for often.
pub(crate) struct Cache {
    places: Option<Places<u64, Cached, Weight, BuildHasherDefault<PlaceHasher>>>,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

struct Cached {
    /// The key, then the outcome.
    bytes: Box<[u8]>,
    key_bytes: usize,
    fingerprint: [u8; 32],
    token: u64,
    retain_until_ms: u64,
    record_bytes: u32,
    failed: bool,
}

/// What there is at a place.
pub(crate) enum Hit {
    Outcome(Stored),
    /// The outcome of another key with the same hash.
    OtherKey,
}

impl Cache {
    /// With `bytes_max` 0 nothing is kept.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let expected = (bytes_max / (2 * OVERHEAD)) as usize;
        let make = || {
            Places::with(
                expected,
                bytes_max,
                Weight,
                BuildHasherDefault::default(),
                Default::default(),
            )
        };
        Self {
            places: (bytes_max > 0).then(make),
            hits: 0,
            misses: 0,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.places.as_ref().map_or(0, Places::weight)
    }

    /// What lies at `place`, compared with `key`.
    pub(crate) fn get(&mut self, place: Location, key: &[u8]) -> Option<Hit> {
        let cached = self.places.as_ref().and_then(|all| all.get(&number(place)));
        let Some(cached) = cached else {
            self.misses += 1;
            return None;
        };
        self.hits += 1;
        let (cached_key, outcome) = cached.bytes.split_at(cached.key_bytes);
        if cached_key != key {
            return Some(Hit::OtherKey);
        }
        Some(Hit::Outcome(Stored {
            outcome: outcome.to_vec(),
            fingerprint: cached.fingerprint,
            failed: cached.failed,
            token: cached.token,
            retain_until_ms: cached.retain_until_ms,
            record_bytes: cached.record_bytes,
        }))
    }

    /// Keeps the outcome of `key` that was read at `place`.
    pub(crate) fn insert(&mut self, place: Location, key: &[u8], stored: &Stored) {
        let Some(places) = &mut self.places else {
            return;
        };
        let cached = Cached {
            bytes: [key, &stored.outcome].concat().into(),
            key_bytes: key.len(),
            fingerprint: stored.fingerprint,
            token: stored.token,
            retain_until_ms: stored.retain_until_ms,
            record_bytes: stored.record_bytes,
            failed: stored.failed,
        };
        places.insert(number(place), cached);
    }

    /// Gives the memory back of an outcome that nobody can ask for any more.
    pub(crate) fn remove(&mut self, place: Location) {
        if let Some(places) = &mut self.places {
            places.remove(&number(place));
        }
    }
}

fn number(place: Location) -> u64 {
    u64::from(place.segment) << 32 | u64::from(place.offset)
}

#[derive(Clone)]
struct Weight;

impl Weighter<u64, Cached> for Weight {
    fn weight(&self, _place: &u64, cached: &Cached) -> u64 {
        cached.bytes.len() as u64 + OVERHEAD
    }
}

/// Spreads places over a table; nobody outside chooses them.
#[derive(Default)]
struct PlaceHasher(u64);

impl Hasher for PlaceHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio's bits: the product's halves together depend on all bits of the place.
        let product = u128::from(self.0 ^ number) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u32) -> Location {
        Location {
            segment: 1 + number / 1_000,
            offset: number % 1_000 * 8,
        }
    }

    fn stored(outcome: Vec<u8>) -> Stored {
        Stored {
            outcome,
            fingerprint: [3; 32],
            failed: true,
            token: 4,
            retain_until_ms: 5,
            record_bytes: 6,
        }
    }

    #[test]
    fn it_keeps_within_its_budget_and_keeps_what_is_asked_for_often() {
        let mut cache = Cache::new(64 << 10);
        for number in 0..10_000 {
            for often in 0..4 {
                if cache.get(place(often), b"key").is_none() {
                    cache.insert(place(often), b"key", &stored(vec![often as u8; 100]));
                }
            }
            let number = 10 + number;
            cache.insert(place(number), b"once", &stored(vec![0; 100]));
            assert!(cache.bytes() <= 64 << 10);
        }
        assert!(cache.hits > 39_000, "{}", cache.hits);
        assert!(cache.bytes() > 32 << 10);
    }

    #[test]
    fn what_it_gives_back_is_what_was_put_in_and_only_for_its_key() {
        let mut cache = Cache::new(1 << 20);
        let original = stored(b"outcome".to_vec());
        cache.insert(place(1), b"key", &original);
        let Some(Hit::Outcome(found)) = cache.get(place(1), b"key") else {
            panic!("it is there");
        };
        assert_eq!(found, original);
        assert!(matches!(cache.get(place(1), b"kex"), Some(Hit::OtherKey)));
        assert!(cache.get(place(2), b"key").is_none());
        cache.remove(place(1));
        assert!(cache.get(place(1), b"key").is_none());
        assert_eq!((cache.bytes(), cache.hits, cache.misses), (0, 2, 2));
    }

    #[test]
    fn without_a_budget_nothing_is_kept() {
        let mut cache = Cache::new(0);
        cache.insert(place(1), b"key", &stored(Vec::new()));
        assert!(cache.get(place(1), b"key").is_none());
        assert_eq!(cache.bytes(), 0);
    }
}
