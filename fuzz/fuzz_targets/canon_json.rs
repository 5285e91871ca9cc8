//! Arbitrary text as JSON: canonical bytes are their own canonical form, and `check` accepts exactly them.
#![no_main]

use canon_ser::json::{self, Integers, KeyOrder, Options};
use libfuzzer_sys::fuzz_target;

const INTEGERS: [Integers; 4] = [
    Integers::Error,
    Integers::Round,
    Integers::String,
    Integers::Exact,
];
const ORDERS: [KeyOrder; 2] = [KeyOrder::Utf16, KeyOrder::Utf8];

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, text) = (usize::from(input.0), input.1);
    let options = Options::new()
        .integers(INTEGERS[choice % 4])
        .order(ORDERS[choice / 4 % 2]);
    let Ok(canonical) = json::canonicalize_with(text, options) else {
        assert!(
            json::check_with(text, options).is_err(),
            "refused, but called canonical"
        );
        return;
    };
    assert_eq!(json::check_with(text, options).is_ok(), canonical == text);
    assert!(json::check_with(&canonical, options).is_ok());
    let again = json::canonicalize_with(&canonical, options).expect("canonical JSON is JSON");
    assert_eq!(again, canonical);
});
