//! The forms that read by pieces do what those do that have everything in memory. (Under cargo-fuzz the pieces are tiny,
//! so that every token meets a boundary.)
#![no_main]

use std::io::Cursor;

use canon_ser::json::{Integers, KeyOrder, Options};
use canon_ser::{Error, cbor, json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, bytes) = input;
    if choice & 1 == 0 {
        let integers = [
            Integers::Error,
            Integers::Round,
            Integers::String,
            Integers::Exact,
        ];
        let orders = [KeyOrder::Utf16, KeyOrder::Utf8];
        let options = Options::new()
            .integers(integers[usize::from(choice / 2 % 4)])
            .order(orders[usize::from(choice / 8 % 2)])
            .depth_max(1 + usize::from(choice / 16) * 20);
        let mut out = Vec::new();
        let streamed = json::canonicalize_to(Cursor::new(bytes), &mut out, options);
        compare(streamed, out, json::canonicalize_with(bytes, options));
        let checked = json::check_from(Cursor::new(bytes), options);
        compare(
            checked,
            vec![],
            json::check_with(bytes, options).map(|()| vec![]),
        );
        let mut out = Vec::new();
        let once = json::canonicalize_once(bytes, &mut out, options);
        compare_once(once, out, bytes, json::canonicalize_with(bytes, options));
    } else {
        let options = cbor::Options::new().depth_max(1 + usize::from(choice / 16) * 20);
        let mut out = Vec::new();
        let streamed = cbor::canonicalize_to(Cursor::new(bytes), &mut out, options);
        compare(streamed, out, cbor::canonicalize_with(bytes, options));
        let checked = cbor::check_from(Cursor::new(bytes), options);
        compare(
            checked,
            vec![],
            cbor::check_with(bytes, options).map(|()| vec![]),
        );
        let mut out = Vec::new();
        let once = cbor::canonicalize_once(bytes, &mut out, options);
        compare_once(once, out, bytes, cbor::canonicalize_with(bytes, options));
    }
});

fn compare(streamed: Result<(), Error>, out: Vec<u8>, whole: Result<Vec<u8>, Error>) {
    match (streamed, whole) {
        (Ok(()), Ok(whole)) => assert_eq!(out, whole),
        (Err(streamed), Err(whole)) => {
            assert!(
                out.is_empty(),
                "nothing is written of what has no canonical form"
            );
            // Duplicates in large disordered objects come to light after everything else.
            if !whole.is_duplicate_key() {
                assert_eq!(streamed.reason(), whole.reason());
                assert_eq!(streamed.offset(), whole.offset());
                assert_eq!(
                    (streamed.line(), streamed.column()),
                    (whole.line(), whole.column())
                );
            }
        }
        (streamed, whole) => panic!("{streamed:?} against {whole:?}"),
    }
}

/// What shows too late for one reading was not canonical.
fn compare_once(
    once: Result<(), Error>,
    out: Vec<u8>,
    input: &[u8],
    whole: Result<Vec<u8>, Error>,
) {
    match (once, whole) {
        (Ok(()), Ok(whole)) => assert_eq!(out, whole),
        (Err(once), whole) if once.is_late_disorder() => {
            assert!(whole.is_err() || whole.is_ok_and(|whole| whole != input));
        }
        (Err(_), Err(_)) => {}
        (once, whole) => panic!("{once:?} against {whole:?}"),
    }
}
