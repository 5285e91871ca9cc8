//! What the records of a log come to: applied from its beginning, or from an index on.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::embedded::book::{Book, Claim, Entry, HashKey, Location, SHARDS, shard_of};
use crate::embedded::format::{FLAG_DECLARED, Kind, Record, SegmentHeader};
use crate::embedded::index_snapshot::{Doubt, Header, Index};
use crate::embedded::read::{read_claim, read_stored};
use crate::embedded::scan::Visited;
use crate::embedded::shared::Segment;
use crate::error::{Error, Kind as ErrorKind};
use crate::stored::Stored;

pub(crate) type Segments = BTreeMap<u32, Segment>;

/// The keys as the records that were applied so far leave them.
pub(crate) struct View {
    pub(crate) book: Book,
    index: Option<Resumed>,
}

/// An index that the view began with.
struct Resumed {
    header: Header,
    covered: Vec<Location>,
    /// Sequences of the last records before its start and before its end.
    before_start: Option<u64>,
    before_end: Option<u64>,
    /// The highest segment that a claim lies in and that is not there.
    missing: Option<u32>,
}

impl View {
    pub(crate) fn new(hash_key: HashKey) -> Self {
        Self {
            book: Book::new(hash_key),
            index: None,
        }
    }

    /// Begins with an index; its claims are read from the log, of which segments below `head` are
    /// not part.
    pub(crate) fn resume(index: Index, segments: &Segments, head: u32) -> Result<Self, Doubt> {
        let mut view = Self {
            book: index.book,
            index: None,
        };
        let mut missing = None;
        for Entry { hash, location } in index.claims {
            match segments.get(&location.segment) {
                Some(segment) => {
                    let claim = read_claim(&*segment.file, location, |key| view.book.hash(key));
                    let claim = claim.ok().flatten().filter(|claim| claim.hash == hash);
                    let claim = claim.ok_or("a claim is not where it should be")?;
                    view.book.insert_claim(claim);
                }
                None if location.segment < head => {}
                None => missing = missing.max(Some(location.segment)),
            }
        }
        view.index = Some(Resumed {
            header: index.header,
            covered: index.covered,
            before_start: None,
            before_end: None,
            missing,
        });
        Ok(view)
    }

    /// Takes a record of the log into account, unless the index has.
    pub(crate) fn apply(&mut self, visited: &Visited<'_>, segment: u32, segments: &Segments) {
        let record = &visited.record;
        let location = Location {
            segment,
            offset: visited.offset,
        };
        let hash = self.book.hash(record.key);
        if let Some(index) = &mut self.index {
            if index.has(location, visited.sequence, hash, record) {
                return;
            }
            self.book.counting = location >= index.header.end;
        }
        match record.kind {
            Kind::Claim => {
                self.forget(hash, record.key, segments);
                self.book
                    .insert_claim(claim_of(record, hash, location, visited.len));
            }
            Kind::Outcome => {
                self.forget(hash, record.key, segments);
                self.book
                    .insert_place(hash, location, visited.len, record.time_ms);
            }
            Kind::Release | Kind::Forget => self.forget(hash, record.key, segments),
            Kind::Opened => self.end_leases(),
            Kind::Head | Kind::Closed | Kind::Hole => {}
        }
    }

    fn forget(&mut self, hash: u64, key: &[u8], segments: &Segments) {
        self.book.remove_claim(hash, key);
        if let Some((place, stored)) = self.find(hash, key, segments) {
            let (bytes, until_ms) = (stored.record_bytes, stored.retain_until_ms);
            self.book.remove_place(hash, place, bytes, until_ms);
        }
    }

    /// As [`find`](Self::find); an error when the key may be at a place that cannot be read.
    pub(crate) fn find_surely(
        &self,
        hash: u64,
        key: &[u8],
        segments: &Segments,
    ) -> Result<Option<Stored>, Error> {
        let mut unread = None;
        for place in self.book.places(hash) {
            let Some(segment) = segments.get(&place.segment) else {
                continue;
            };
            match read_stored(&*segment.file, place, key) {
                Ok(Some(stored)) => return Ok(Some(stored)),
                Ok(None) => {}
                Err(_) if is_used_anew(segment, place.segment) => {
                    unread = Some(Error::new(ErrorKind::Outdated(place.segment)));
                }
                Err(error) => unread = Some(error),
            }
        }
        unread.map_or(Ok(None), Err)
    }

    /// The outcome of a key, compared in the log.
    pub(crate) fn find(
        &self,
        hash: u64,
        key: &[u8],
        segments: &Segments,
    ) -> Option<(Location, Stored)> {
        self.book.places(hash).find_map(|place| {
            let segment = segments.get(&place.segment)?;
            // A record that was valid a moment ago and cannot be read now is reported by whoever
            // needs it next.
            let stored = read_stored(&*segment.file, place, key).ok()??;
            Some((place, stored))
        })
    }

    /// No holder survives the opening of a store.
    fn end_leases(&mut self) {
        self.book.retain_claims(|claim| {
            claim.held = false;
            claim.declared
        });
    }

    /// The log has been read to its end and begins with segment `head`.
    pub(crate) fn finish(&mut self, head: u32) -> Result<(), Doubt> {
        self.book.counting = true;
        self.end_leases();
        self.book
            .retain_claims(|claim| claim.location.segment >= head);
        self.book.retain_from(head);
        let Some(index) = &self.index else {
            return Ok(());
        };
        if index.missing.is_some_and(|segment| segment >= head) {
            return Err("a claim is not where it should be".into());
        }
        let Header { start, end, .. } = index.header;
        let (first, next) = (index.header.start_sequence, index.header.end_sequence);
        let starts = index.before_start.is_none_or(|last| last + 1 == first);
        let ends = match index.before_end {
            Some(last) => start < end && last + 1 == next,
            None => start == end && first == next,
        };
        if !starts || !ends {
            return Err("it belongs to another end of the log".into());
        }
        Ok(())
    }

    /// The index that this view began with.
    pub(crate) fn index(&self) -> Option<&Header> {
        self.index.as_ref().map(|index| &index.header)
    }

    /// Where this view, which began with an index, and the one of the whole log disagree.
    pub(crate) fn difference(
        &self,
        whole: &Self,
        segments: &Segments,
    ) -> Option<(Location, &'static str)> {
        for number in 0..SHARDS {
            let (ours, theirs) = (self.sorted(number), whole.sorted(number));
            let too_many = missing_in(&theirs, &ours).next();
            if let Some(place) = too_many {
                return Some((place, "the index has what the log no longer has"));
            }
            for place in missing_in(&ours, &theirs) {
                if !self.may_lack(place, segments) {
                    return Some((place, "the index lacks what the log has"));
                }
            }
        }
        None
    }

    /// Hash, place and kind of everything in a shard.
    fn sorted(&self, number: usize) -> Vec<(u64, Location, bool)> {
        let places = self.book.shard_places(number);
        let claims = self.book.shard_claims(number);
        let mut all: Vec<_> = places
            .map(|entry| (entry.hash, entry.location, false))
            .chain(claims.map(|claim| (claim.hash, claim.location, true)))
            .collect();
        all.sort_unstable();
        all
    }

    /// Whether this is an outcome that had expired before the index was made.
    fn may_lack(&self, place: Location, segments: &Segments) -> bool {
        let Some(segment) = segments.get(&place.segment) else {
            return false;
        };
        let below_ms = self.book.expired_below_ms();
        crate::embedded::read::read_retention(&*segment.file, place)
            .is_ok_and(|until_ms| until_ms.is_some_and(|until_ms| until_ms < below_ms))
    }
}

impl Resumed {
    /// Whether the index has a record in it already.
    fn has(&mut self, location: Location, sequence: u64, hash: u64, record: &Record<'_>) -> bool {
        if location < self.header.start {
            self.before_start = Some(sequence);
            return true;
        }
        if location < self.header.end {
            self.before_end = Some(sequence);
        }
        let keyed = matches!(
            record.kind,
            Kind::Claim | Kind::Outcome | Kind::Release | Kind::Forget
        );
        keyed && location < self.covered[shard_of(hash)]
    }
}

/// Whether a file that was opened as `segment` is another one by now.
fn is_used_anew(file: &Segment, segment: u32) -> bool {
    let mut header = [0; 64];
    let got = file.file.read_at(&mut header, 0).unwrap_or(0);
    got == header.len() && SegmentHeader::decode(&header, segment).is_err()
}

/// What is in `all` and not in `some`; both are sorted.
fn missing_in<'a>(
    some: &'a [(u64, Location, bool)],
    all: &'a [(u64, Location, bool)],
) -> impl Iterator<Item = Location> {
    let lacks = |item: &&(u64, Location, bool)| some.binary_search(item).is_err();
    all.iter().filter(lacks).map(|item| item.1)
}

pub(crate) fn claim_of(record: &Record<'_>, hash: u64, location: Location, bytes: u32) -> Claim {
    Claim {
        hash,
        key: Arc::from(record.key),
        fingerprint: record.fingerprint,
        token: record.token,
        lease_until_ms: 0,
        at_ms: record.time_ms,
        memo: Arc::from(record.payload),
        declared: record.flags & FLAG_DECLARED != 0,
        held: true,
        location,
        bytes,
        waiters: Vec::new(),
    }
}
