//! JSON to CBOR and back is canonical JSON, and texts of one canonical form have one CBOR; CBOR to JSON writes canonical JSON.
#![no_main]

use canon_ser::cbor;
use canon_ser::json::{self, Integers};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let canonical = json::canonicalize(input);
    let bytes = cbor::from_json(input);
    assert_eq!(canonical.is_ok(), bytes.is_ok());
    if let (Ok(canonical), Ok(bytes)) = (canonical, bytes) {
        cbor::check(&bytes).expect("what from_json writes is deterministic");
        assert_eq!(cbor::from_json(&canonical).expect("JSON"), bytes);
        let back = cbor::to_json(&bytes, Integers::Error).expect("what came from JSON is JSON");
        assert_eq!(back, canonical);
    }
    if let Ok(bytes) = cbor::from_json_with(input, Integers::Exact) {
        cbor::check(&bytes).expect("what from_json writes is deterministic");
        let canonical = json::canonicalize_with(input, Integers::Exact).expect("it is JSON");
        assert_eq!(
            cbor::from_json_with(&canonical, Integers::Exact).expect("JSON"),
            bytes
        );
        assert_eq!(
            cbor::to_json(&bytes, Integers::Exact).expect("it came from JSON"),
            canonical
        );
    }
    for policy in [Integers::Round, Integers::String] {
        let canonical = json::canonicalize_with(input, policy);
        let bytes = cbor::from_json_with(input, policy);
        assert_eq!(canonical.is_ok(), bytes.is_ok());
        if let (Ok(canonical), Ok(bytes)) = (canonical, bytes) {
            let again = cbor::from_json_with(&canonical, policy).expect("JSON");
            assert_eq!(again, bytes);
            assert_eq!(cbor::to_json(&bytes, policy).expect("JSON"), canonical);
        }
    }
    if let Ok(text) = cbor::to_json(input, Integers::Error) {
        json::check(&text).expect("what to_json writes is canonical");
        cbor::from_json(&text).expect("canonical JSON has a CBOR form");
    }
});
