//! Every profile on arbitrary bytes: canonical bytes are their own canonical form, `check` and `from_slice` accept exactly
//! them, and what a reader makes of them is written as the same bytes again.
#![no_main]

use std::collections::BTreeMap;

use canon_ser::Profile;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, PartialEq, Serialize)]
enum Shape {
    Unit,
    One(f64),
    Two(i8, String),
    Named { x: i64, y: Option<bool> },
}

#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Rich {
    b: Option<Box<Rich>>,
    a: Vec<Shape>,
    ints: BTreeMap<i32, u64>,
    wide: Option<i128>,
    flags: BTreeMap<bool, char>,
    zz: BTreeMap<String, Vec<String>>,
    t: (u8, i16, f32),
}

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, bytes) = input;
    let profile = Profile::ALL[usize::from(choice) % Profile::ALL.len()];
    let Ok(canonical) = profile.canonicalize(bytes) else {
        assert!(
            profile.check(bytes).is_err(),
            "refused, but called canonical"
        );
        return;
    };
    assert_eq!(profile.check(bytes).is_ok(), canonical == bytes);
    assert_eq!(
        profile.from_slice::<IgnoredAny>(bytes).is_ok(),
        canonical == bytes
    );
    profile
        .check(&canonical)
        .expect("canonical bytes are canonical");
    profile
        .from_slice::<IgnoredAny>(&canonical)
        .expect("anything can be ignored");
    assert_eq!(
        profile
            .canonicalize(&canonical)
            .expect("canonical bytes are well-formed"),
        canonical
    );
    // No two keys become one: what is read is written as the same bytes again.
    if let Ok(map) = profile.from_slice::<BTreeMap<i64, u32>>(&canonical) {
        assert_eq!(profile.to_vec(&map).expect("small numbers"), canonical);
    }
    if let Ok(map) = profile.from_slice::<BTreeMap<String, Vec<String>>>(&canonical) {
        assert_eq!(profile.to_vec(&map).expect("text"), canonical);
    }
    if let Ok(rich) = profile.from_slice::<Rich>(&canonical)
        && let Ok(again) = profile.to_vec(&rich)
    {
        profile.check(&again).expect("what is written is canonical");
        // Compared as bytes: NaN is not equal to itself.
        let back: Rich = profile
            .from_slice(&again)
            .expect("what is written can be read");
        assert_eq!(profile.to_vec(&back).expect("the same value"), again);
    }
});
