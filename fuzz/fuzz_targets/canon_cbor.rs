//! Arbitrary bytes as CBOR: deterministic bytes are their own deterministic form, `check` and `from_slice` accept
//! exactly them, and another decoder reads the same value from both.
#![no_main]

use canon_ser::cbor;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

fuzz_target!(|bytes: &[u8]| {
    let Ok(canonical) = cbor::canonicalize(bytes) else {
        assert!(cbor::check(bytes).is_err(), "refused, but called canonical");
        return;
    };
    assert_eq!(cbor::check(bytes).is_ok(), canonical == bytes);
    cbor::check(&canonical).expect("canonical CBOR is canonical");
    cbor::from_slice::<IgnoredAny>(&canonical).expect("anything can be ignored");
    assert!(canonical == bytes || cbor::from_slice::<IgnoredAny>(bytes).is_err());
    let again = cbor::canonicalize(&canonical).expect("canonical CBOR is CBOR");
    assert_eq!(again, canonical);
});
