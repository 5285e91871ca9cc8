//! Values made of arbitrary bytes: what the serializer writes is canonical, decodes to the same value, and does not
//! depend on the order of the entries.
#![no_main]

use std::collections::{BTreeMap, HashMap};

use canon_ser::{cbor, json};
use libfuzzer_sys::fuzz_target;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

type Input = (Vec<(String, Vec<(i16, String)>)>, Vec<u64>);

struct Entries<'a, K, V>(&'a [(K, V)]);

impl<K: Serialize, V: Serialize> Serialize for Entries<'_, K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.0
            .iter()
            .try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

fuzz_target!(|input: Input| {
    let (entries, floats) = input;
    let floats: Vec<f64> = floats.into_iter().map(f64::from_bits).collect();
    let value: Vec<_> = entries
        .iter()
        .map(|(key, inner)| (key, Entries(inner)))
        .collect();
    let sorted: BTreeMap<&str, BTreeMap<i16, &str>> = entries
        .iter()
        .map(|(key, inner)| {
            (
                key.as_str(),
                inner.iter().map(|(k, v)| (*k, v.as_str())).collect(),
            )
        })
        .collect();
    let is_unique = sorted.len() == entries.len()
        && entries
            .iter()
            .all(|(key, inner)| sorted[key.as_str()].len() == inner.len());

    let text = json::to_vec(&(Entries(&value), ()));
    assert_eq!(text.is_ok(), is_unique);
    if let Ok(text) = text {
        json::check(&text).expect("what to_vec writes is canonical");
        assert_eq!(json::to_vec(&(&sorted, ())).expect("the same value"), text);
        let bytes = cbor::to_vec(&Entries(&value)).expect("the same value");
        let back: HashMap<String, HashMap<i16, String>> =
            cbor::from_slice(&bytes).expect("it can be read back");
        assert_eq!(cbor::to_vec(&back).expect("the same value"), bytes);
    }

    let bytes = cbor::to_vec(&floats).expect("every float has a form");
    let back: Vec<f64> = cbor::from_slice(&bytes).expect("it can be read back");
    for (one, other) in floats.iter().zip(&back) {
        assert!(one.to_bits() == other.to_bits() || (one.is_nan() && other.is_nan()));
    }
    if let Ok(text) = json::to_vec(&floats) {
        assert_eq!(json::canonicalize(&text).expect("JSON"), text);
        let mut parsed = text[1..text.len() - 1]
            .split(|&byte| byte == b',')
            .filter(|literal| !literal.is_empty());
        for float in &floats {
            let literal = parsed.next().expect("as many numbers as floats");
            let value: f64 = std::str::from_utf8(literal)
                .expect("ASCII")
                .parse()
                .expect("a number");
            assert_eq!(value, *float);
        }
    }
});
