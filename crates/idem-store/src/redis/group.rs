//! Operations that go to the server as one script: those of one kind on keys of one shard.

use std::collections::HashMap;

use crate::redis::script::Verb;
use crate::redis::url::{Layout, Shard};
use crate::remote::Op;

/// Most operations in one script, which nothing interrupts: under a millisecond.
const OPS_MAX: usize = 128;
/// Most bytes of memos and outcomes in one script, for the same reason.
const BYTES_MAX: usize = 256 << 10;

pub(crate) struct Group<'a> {
    pub(crate) verb: Verb,
    pub(crate) shard: &'a Shard,
    pub(crate) ops: Vec<&'a Op>,
}

/// Groups in the order in which they are to be done, and for each operation the group that it is in,
/// where it follows the ones before it. Operations on one key are done in their order. `alone`: each
/// is a group of its own.
pub(crate) fn group<'a>(
    ops: impl ExactSizeIterator<Item = &'a Op>,
    layout: &'a Layout,
    alone: bool,
) -> (Vec<Group<'a>>, Vec<usize>) {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut bytes = Vec::new();
    let mut places = Vec::with_capacity(ops.len());
    // One alone meets no other: what follows costs it more than all the rest does.
    let alone = alone || ops.len() == 1;
    // The group that takes more of a kind on a shard, and the last group with a key.
    let mut open = HashMap::new();
    let mut last = HashMap::new();
    for op in ops {
        let (verb, key) = Verb::of(op).expect("operations without a key are done elsewhere");
        let shard = layout.shard(key);
        if alone {
            places.push(groups.len());
            groups.push(Group {
                verb,
                shard,
                ops: vec![op],
            });
            continue;
        }
        let earliest = last.get(key).copied().unwrap_or(0);
        let fits = |&at: &usize| {
            let has_room = groups[at].ops.len() < OPS_MAX && bytes[at] < BYTES_MAX;
            has_room && at >= earliest
        };
        let place = open.get(&(verb, shard.number)).copied().filter(fits);
        let place = place.unwrap_or_else(|| {
            groups.push(Group {
                verb,
                shard,
                ops: Vec::new(),
            });
            bytes.push(0);
            open.insert((verb, shard.number), groups.len() - 1);
            groups.len() - 1
        });
        groups[place].ops.push(op);
        bytes[place] += op.payload_bytes();
        last.insert(key, place);
        places.push(place);
    }
    (groups, places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::Found;

    fn get(key: &[u8]) -> Op {
        Op::Get { key: key.into() }
    }

    fn forget(key: &[u8]) -> Op {
        Op::Forget {
            key: key.into(),
            found: Found::default(),
        }
    }

    fn places(layout: &Layout, ops: &[Op]) -> Vec<usize> {
        group(ops.iter(), layout, false).1
    }

    #[test]
    fn operations_on_one_key_are_done_in_their_order() {
        let layout = Layout::new("s", 1);
        let ops = [
            get(b"a"),
            forget(b"b"),
            get(b"c"),
            // Not before the forget of the same key.
            get(b"b"),
            get(b"d"),
            forget(b"a"),
            forget(b"b"),
        ];
        assert_eq!(places(&layout, &ops), [0, 1, 0, 2, 2, 1, 3]);
    }

    #[test]
    fn a_group_has_one_shard_and_a_length() {
        let layout = Layout::new("s", 1);
        let ops: Vec<_> = (0..OPS_MAX as u32 + 1)
            .map(|n| get(&n.to_be_bytes()))
            .collect();
        let found = places(&layout, &ops);
        assert_eq!((found[OPS_MAX - 1], found[OPS_MAX]), (0, 1));
        let large = |key: u8| Op::Complete {
            key: [key].into(),
            token: 1,
            failed: false,
            retain_ms: 1,
            outcome: vec![0; BYTES_MAX / 2].into(),
        };
        assert_eq!(places(&layout, &[0, 1, 2].map(large)), [0, 0, 1]);

        let spread = Layout::new("s", 64);
        let (groups, places) = group(ops.iter(), &spread, false);
        for (op, place) in ops.iter().zip(places) {
            let (_, key) = Verb::of(op).expect("a get has a key");
            assert_eq!(groups[place].shard.number, spread.shard(key).number);
        }
        let (alone, _) = group(ops.iter(), &layout, true);
        assert!(alone.len() == ops.len() && alone.iter().all(|group| group.ops.len() == 1));
    }
}
