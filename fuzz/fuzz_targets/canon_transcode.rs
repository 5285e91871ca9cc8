//! JSON to CBOR and back keeps the meaning; CBOR to JSON writes canonical JSON.
#![no_main]

use canon_ser::json::{self, Integers};
use canon_ser::{cbor, semantic};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(bytes) = cbor::from_json(input) {
        cbor::check(&bytes).expect("what from_json writes is deterministic");
        let back =
            cbor::to_json(&bytes, Integers::Exact).expect("what came from JSON has a JSON form");
        assert!(semantic::equal(input, &back).expect("both are JSON"));
    }
    if let Ok(text) = cbor::to_json(input, Integers::Error) {
        json::check(&text).expect("what to_json writes is canonical");
        let bytes = cbor::from_json(&text).expect("canonical JSON has a CBOR form");
        assert!(
            semantic::equal(
                &text,
                &cbor::to_json(&bytes, Integers::Exact).expect("JSON")
            )
            .expect("JSON")
        );
    }
});
