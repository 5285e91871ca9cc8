//! Values of every kind through a buffer of a few bytes.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::cell::Cell;

use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

use super::{Take, write};
use crate::Profile;
use crate::error::{Code, Fail};
use crate::json::Options;

/// Collects what comes, and counts how often it starts.
struct Collect<const FORGETS: bool> {
    bytes: Vec<u8>,
    starts: usize,
}

impl<const FORGETS: bool> Collect<FORGETS> {
    fn of(profile: Profile, value: &impl Serialize) -> Self {
        let mut to = Collect {
            bytes: Vec::new(),
            starts: 1,
        };
        profile.drain(value, &mut to).expect("it has a form");
        to
    }
}

impl<const FORGETS: bool> Take for Collect<FORGETS> {
    const FORGETS: bool = FORGETS;

    fn take(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn start_again(&mut self) {
        assert!(FORGETS || self.bytes.is_empty(), "nothing went before");
        self.bytes.clear();
        self.starts += 1;
    }
}

/// What serde announces of the length of a container.
#[derive(Clone, Copy, Debug)]
enum Says {
    Truth,
    Nothing,
    Less,
}

#[derive(Debug)]
enum Any {
    Number(u32),
    Text(String),
    Array(Says, Vec<Any>),
    Map(Says, Vec<(String, Any)>),
    /// In CBOR also keys that are no text.
    Keys(Vec<(u32, Any)>),
    Pairs(Vec<(Any, Any)>),
}

impl Says {
    fn len(self, len: usize) -> Option<usize> {
        match self {
            Says::Truth => Some(len),
            Says::Nothing => None,
            Says::Less => Some(len / 2),
        }
    }
}

impl Serialize for Any {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Any::Number(number) => number.serialize(serializer),
            Any::Text(text) => text.serialize(serializer),
            Any::Array(says, elements) => {
                let mut array = serializer.serialize_seq(says.len(elements.len()))?;
                elements
                    .iter()
                    .try_for_each(|element| array.serialize_element(element))?;
                array.end()
            }
            Any::Map(says, entries) => {
                let mut map = serializer.serialize_map(says.len(entries.len()))?;
                entries
                    .iter()
                    .try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
            Any::Keys(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (key, value)))
            }
            Any::Pairs(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (key, value)))
            }
        }
    }
}

/// Arbitrary values, the same in every run.
struct Make {
    state: u64,
    json: bool,
}

impl Make {
    fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % bound
    }

    fn text(&mut self) -> String {
        let prefix = ["", "a shared prefix: ", "\u{1}\"", "\u{ffff}", "\u{10000}"];
        let prefix = prefix[self.below(5) as usize];
        format!("{prefix}{}", self.below(5000))
    }

    fn says(&mut self) -> Says {
        [Says::Truth, Says::Truth, Says::Nothing, Says::Less][self.below(4) as usize]
    }

    fn any(&mut self, depth: u32) -> Any {
        let len = self.below(7) * u64::from(depth > 0);
        match self.below(if depth == 0 { 2 } else { 9 }) {
            0 => Any::Number(self.below(70_000) as u32),
            1 => Any::Text(self.text()),
            2 | 3 => {
                let says = self.says();
                Any::Array(says, (0..len).map(|_| self.any(depth - 1)).collect())
            }
            4 => {
                let keys: BTreeMap<u32, ()> =
                    (0..len).map(|_| (self.below(70_000) as u32, ())).collect();
                let mut keys: Vec<u32> = keys.into_keys().collect();
                let by = self.below(8) as usize % keys.len().max(1);
                keys.rotate_left(by);
                Any::Keys(
                    keys.into_iter()
                        .map(|key| (key, self.any(depth - 1)))
                        .collect(),
                )
            }
            5 if !self.json => Any::Pairs(vec![
                (
                    Any::Array(Says::Nothing, vec![self.any(1), self.any(1)]),
                    self.any(1),
                ),
                (Any::Text("one".into()), self.any(depth - 1)),
                (Any::Number(self.below(300) as u32), self.any(1)),
            ]),
            _ => {
                let keys: BTreeMap<String, ()> = (0..len).map(|_| (self.text(), ())).collect();
                let mut keys: Vec<String> = keys.into_keys().collect();
                let by = self.below(3) as usize % keys.len().max(1);
                keys.rotate_left(by);
                let says = self.says();
                let entries = keys.into_iter().map(|key| (key, self.any(depth - 1)));
                Any::Map(says, entries.collect())
            }
        }
    }
}

#[test]
fn what_leaves_early_is_what_a_vector_would_hold() {
    let (mut twice, mut large) = (0, 0);
    for seed in 1..1500 {
        for profile in [
            Profile::JcsV1,
            Profile::CborCoreDetV1,
            Profile::CborLengthFirstV1,
        ] {
            let json = profile.is_json();
            let value = Make {
                state: seed * 0x9e37_79b9,
                json,
            }
            .any(5);
            let Ok(expected) = profile.to_vec(&value) else {
                // Two keys happen to be equal.
                let mut to = Collect::<true> {
                    bytes: Vec::new(),
                    starts: 1,
                };
                assert!(profile.drain(&value, &mut to).is_err(), "{value:?}");
                continue;
            };
            let digested = Collect::<true>::of(profile, &value);
            assert_eq!(digested.bytes, expected, "{profile} of {value:?}");
            let written = Collect::<false>::of(profile, &value);
            assert_eq!(written.bytes, expected, "{profile} of {value:?}");
            twice += usize::from(digested.starts == 2);
            large += usize::from(written.starts == 2);
        }
    }
    assert!(twice > 1000 && large > twice + 50, "{twice} of {large}");
}

#[test]
fn values_in_order_are_serialized_once() {
    let map: BTreeMap<String, Vec<u32>> =
        (0..50).map(|n| (format!("{n:04}"), vec![n; 9])).collect();
    for &profile in Profile::ALL {
        let to = Collect::<true>::of(profile, &map);
        assert_eq!(
            (to.starts, to.bytes),
            (1, profile.to_vec(&map).expect("fine"))
        );
    }
}

/// Another order each time.
struct Fickle(Cell<u32>);

impl Serialize for Fickle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let times = self.0.get();
        self.0.set(times + 1);
        let long = "a value that is longer than a chunk";
        let keys = if times == 0 { ["a", "b"] } else { ["b", "a"] };
        serializer.collect_map(keys.map(|key| (key, [long; 2])))
    }
}

#[test]
fn a_value_that_changes_between_the_two_times_is_refused() {
    let mut to = Collect::<false> {
        bytes: Vec::new(),
        starts: 1,
    };
    let (fail, _) = write(&Fickle(Cell::new(0)), Options::new(), &mut to).unwrap_err();
    assert!(matches!(fail, Fail::At(Code::Unstable, _)), "{fail}");
}
