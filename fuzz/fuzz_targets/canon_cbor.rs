//! Arbitrary bytes as CBOR: canonical bytes are their own canonical form, and `check` accepts exactly them.
#![no_main]

use canon_ser::cbor;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(canonical) = cbor::canonicalize(bytes) else {
        assert!(cbor::check(bytes).is_err(), "refused, but called canonical");
        return;
    };
    assert_eq!(cbor::check(bytes).is_ok(), canonical == bytes);
    assert!(cbor::check(&canonical).is_ok());
    let again = cbor::canonicalize(&canonical).expect("canonical CBOR is CBOR");
    assert_eq!(again, canonical);
});
