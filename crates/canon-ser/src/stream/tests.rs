//! The form that reads by pieces against the one that has everything in memory, with pieces so small that every token
//! meets a boundary.

use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use std::io::Cursor;

use proptest::prelude::*;

use crate::Profile;
use crate::json::{self, Integers, KeyOrder, Options};

/// JSON text with odd spellings, disorder and some duplicates.
fn texts() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        4 => "[a-d]{0,3}",
        2 => "[a-z]{1,12}",
        1 => Just("\\u0041".into()),
        1 => Just("\\n\u{e000}".into()),
        1 => Just("\u{1f600}é".into()),
    ];
    let leaf = prop_oneof![
        Just(String::from("null")),
        Just("true".into()),
        any::<i32>().prop_map(|number| format!("{number}")),
        any::<f64>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(|number| format!("{number:e}")),
        Just("0.5000".into()),
        "[a-zé\u{1f600}]{0,60}".prop_map(|text| format!("\"{text}\"")),
        Just("\"\\ud83d\\ude00\\/\\u000a\"".into()),
    ];
    leaf.prop_recursive(5, 120, 12, move |inner| {
        let members = prop::collection::vec((key.clone(), inner.clone()), 0..12);
        let sorted = any::<bool>();
        prop_oneof![
            prop::collection::vec(inner, 0..12).prop_map(|all| format!("[ {}]", all.join(","))),
            (members, sorted).prop_map(|(mut members, sorted)| {
                if sorted {
                    members.sort();
                    members.dedup_by(|a, b| a.0 == b.0);
                }
                let all: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("\"{key}\":{value}"))
                    .collect();
                format!("{{{}}}", all.join(" ,"))
            }),
        ]
    })
}

fn same(
    streamed: Result<Vec<u8>, crate::Error>,
    whole: Result<Vec<u8>, crate::Error>,
    text: &[u8],
) {
    match (streamed, whole) {
        (Ok(streamed), Ok(whole)) => assert_eq!(streamed, whole),
        (Err(streamed), Err(whole)) => {
            // Duplicates in large disordered objects come to light after everything else.
            if !whole.is_duplicate_key() {
                assert_eq!(streamed.reason(), whole.reason(), "{}", text.escape_ascii());
                let place = |error: &crate::Error| (error.offset(), error.line(), error.column());
                assert_eq!(place(&streamed), place(&whole), "{}", text.escape_ascii());
            }
        }
        (streamed, whole) => panic!("{streamed:?} against {whole:?} of {}", text.escape_ascii()),
    }
}

fn compare_json(text: &[u8], options: Options) {
    let mut out = Vec::new();
    let streamed = json::canonicalize_to(Cursor::new(text), &mut out, options);
    assert!(
        streamed.is_ok() || out.is_empty(),
        "nothing is written of a bad text"
    );
    same(
        streamed.map(|()| out),
        json::canonicalize_with(text, options),
        text,
    );
    let whole = json::check_with(text, options).map(|()| vec![]);
    let checked = json::check_from(Cursor::new(text), options).map(|()| vec![]);
    same(checked, whole, text);
    let whole = json::check_with(text, options).map(|()| vec![]);
    let checked = json::check_from(Trickle(text), options).map(|()| vec![]);
    same(checked, whole, text);
    let mut out = Vec::new();
    let once = json::canonicalize_once(Trickle(text), &mut out, options);
    same_once(
        once.map(|()| out),
        json::canonicalize_with(text, options),
        text,
    );
}

/// A pipe: it gives a few bytes at a time, and never goes back.
struct Trickle<'b>(&'b [u8]);

impl std::io::Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = buffer.len().min(3);
        self.0.read(&mut buffer[..len])
    }
}

impl std::io::Seek for Trickle<'_> {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        match to {
            std::io::SeekFrom::Current(0) => Ok(0),
            _ => Err(std::io::ErrorKind::Unsupported.into()),
        }
    }
}

/// One reading tells the same, but for what shows too late, and has only the offset of an error.
fn same_once(
    once: Result<Vec<u8>, crate::Error>,
    whole: Result<Vec<u8>, crate::Error>,
    input: &[u8],
) {
    match (once, whole) {
        (Ok(once), Ok(whole)) => assert_eq!(once, whole),
        (Err(once), whole) if once.is_late_disorder() => {
            let canonical = whole.as_ref().is_ok_and(|whole| whole == input);
            assert!(!canonical, "in order: {}", input.escape_ascii());
        }
        // That a length is too large for the input is known at once only where its end is.
        (Err(once), Err(whole)) if !whole.is_duplicate_key() && !whole.is_end() => {
            assert_eq!(once.reason(), whole.reason(), "{}", input.escape_ascii());
            assert_eq!(once.offset(), whole.offset(), "{}", input.escape_ascii());
        }
        (Err(_), Err(_)) => {}
        (once, whole) => panic!("{once:?} against {whole:?} of {}", input.escape_ascii()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn json_by_pieces(text in texts(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        for options in [Options::new(), KeyOrder::Utf8.into(), Integers::String.into()] {
            compare_json(text.as_bytes(), options);
        }
        if let Ok(canonical) = json::canonicalize(text.as_bytes()) {
            compare_json(&canonical, Options::new());
            let mut damaged = canonical;
            let at = cut.index(damaged.len());
            compare_json(&damaged[..at], Options::new());
            damaged[at] = byte;
            compare_json(&damaged, Options::new());
        }
    }
}

#[test]
fn every_boundary_in_one_text() {
    let text = r#"{"a":[1,-2.5e-7,"x\ud83d\ude00y",true,null,{"c":[{"":{}},[]],"b":0}],"é":"\\\"","z":12345678901234567}"#;
    for spaces in 0..64 {
        compare_json(
            format!("{:spaces$}{text}", "").as_bytes(),
            Integers::Round.into(),
        );
        compare_json(
            format!("[{},{text}]", "1".repeat(spaces + 1)).as_bytes(),
            Integers::String.into(),
        );
    }
}

#[test]
fn large_disordered_objects_are_held_and_their_duplicates_found() {
    let members = |keys: &[u32]| {
        let all: Vec<_> = keys
            .iter()
            .map(|key| format!("\"k{key:03}\":[{key},{key}]"))
            .collect();
        format!("{{{}}}", all.join(","))
    };
    let ordered: Vec<u32> = (0..40).collect();
    let mut disordered = ordered.clone();
    disordered.swap(30, 31);
    let mut duplicate = disordered.clone();
    duplicate[38] = 2;
    for inner in [&ordered, &disordered, &duplicate] {
        for outer in ["a", "zz"] {
            let text = format!(
                "{{\"y\":{},\"{outer}\":{}}}",
                members(inner),
                members(&ordered)
            );
            compare_json(text.as_bytes(), Options::new());
            let text = format!("[{},{text},{text}]", members(&ordered));
            compare_json(text.as_bytes(), Options::new());
        }
    }
}

/// What is out of order before it is large is held also when the input is read once; what is so later is refused.
#[test]
fn one_reading_holds_what_is_out_of_order_at_once() {
    let once = |text: &str| {
        let mut out = Vec::new();
        json::canonicalize_once(text.as_bytes(), &mut out, Options::new()).map(|()| out)
    };
    let members = |keys: std::ops::Range<u32>| -> String {
        keys.map(|key| format!(",\"k{key:03}\":[{key}]")).collect()
    };
    let text = format!("[[1,2,3],{{\"z\":0{}}}]", members(0..90));
    let canonical = json::canonicalize(text.as_bytes()).unwrap();
    assert_eq!(once(&text).unwrap(), canonical);
    let text = format!("{{\"a\":0{},\"b\":0}}", members(0..90));
    assert!(once(&text).unwrap_err().is_late_disorder());
    assert!(json::canonicalize(text.as_bytes()).is_ok());
}

/// Fails the test when it is read beyond its end.
struct Cut<'b>(&'b [u8]);

impl std::io::Read for Cut<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        assert!(!self.0.is_empty(), "it is known already what is wrong");
        self.0.read(buffer)
    }
}

impl std::io::Seek for Cut<'_> {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        Trickle(&[]).seek(to)
    }
}

#[test]
fn what_is_wrong_is_told_before_more_is_read() {
    let error = json::check_from(Cut(br#"{"b":1,"a":2,"#), Options::new()).unwrap_err();
    assert!(error.is_not_canonical());
    assert_eq!((error.line(), error.column()), (Some(1), Some(8)));
    let cbor = crate::cbor::Options::new();
    let error = crate::cbor::check_from(Cut(b"\x83\x01\x18\x02"), cbor).unwrap_err();
    assert_eq!(error.offset(), Some(2));
    // More than there are of anything.
    let endless = b"\x82\x01\x9b\xff\xff\xff\xff\xff\xff\xff\xff";
    let error = crate::cbor::check_from(Cut(endless), cbor).unwrap_err();
    assert_eq!(error.offset(), Some(endless.len()));
    assert!(error.is_syntax() && error.reason().contains("than any input"));
    let error = json::canonicalize_once(Cut(b"[1,x"), Vec::new(), Options::new()).unwrap_err();
    assert_eq!(error.offset(), Some(3));
}

/// Comes in portions, and fails the test when it is read beyond the last.
struct Portions(Vec<&'static [u8]>);

impl std::io::Read for Portions {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        assert!(!self.0.is_empty(), "it is known already what is wrong");
        let portion = self.0.remove(0);
        buffer[..portion.len()].copy_from_slice(portion);
        Ok(portion.len())
    }
}

impl std::io::Seek for Portions {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        Trickle(&[]).seek(to)
    }
}

#[test]
fn a_token_in_portions_is_told_with_the_one_that_is_wrong() {
    for (portions, offset) in [
        (&[&b"[\"ab"[..], b"\x01"][..], 4),
        (&[b"[\"a", b"b", b"c", b"\\q\""], 5),
        (&[b"[tr", b"x"], 1),
        (&[b"[-", b"1", b"2", b"x"], 4),
        (&[b"{\"b\":0,\"", b"a", b"\""], 7),
    ] {
        let check = json::check_from(Portions(portions.to_vec()), Options::new());
        assert_eq!(check.unwrap_err().offset(), Some(offset));
    }
    let cbor = crate::cbor::Options::new();
    let portions = Portions(vec![b"\x82\x63a", b"b", b"\xff"]);
    let error = crate::cbor::check_from(portions, cbor).unwrap_err();
    assert_eq!(error.offset(), Some(4));
}

#[test]
fn failing_readers_and_writers_say_so() {
    let text = format!("[{}1]", "1,".repeat(100));
    let mut small = [0; 20];
    let error =
        json::canonicalize_to(Cursor::new(&text), &mut small[..], Options::new()).unwrap_err();
    assert!(error.is_io());
    struct Failing(Cursor<Vec<u8>>);
    impl std::io::Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.position() > 90 {
                return Err(std::io::Error::other("the disk is gone"));
            }
            let len = buffer.len().min(10);
            self.0.read(&mut buffer[..len])
        }
    }
    impl std::io::Seek for Failing {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
    let source = || Failing(Cursor::new(text.clone().into_bytes()));
    let mut out = Vec::new();
    assert!(
        json::canonicalize_to(source(), &mut out, Options::new())
            .unwrap_err()
            .is_io()
    );
    assert!(
        json::check_from(source(), Options::new())
            .unwrap_err()
            .is_io()
    );
    assert!(out.is_empty());
}

#[test]
fn reading_starts_where_the_source_stands() {
    let mut source = Cursor::new(format!("junk[{}1]", "1,".repeat(100)));
    source.set_position(4);
    let mut out = Vec::new();
    json::canonicalize_to(&mut source, &mut out, Options::new()).unwrap();
    assert_eq!(out, &source.get_ref().as_bytes()[4..]);
}

/// CBOR of all kinds: long heads, chunks, indefinite lengths, containers as keys, tags.
fn items() -> impl Strategy<Value = Vec<u8>> {
    let head = |major: u8, argument: u64, width: usize| {
        let mut head = Vec::from([(major << 5) | (24 + width as u8)]);
        head.extend_from_slice(&argument.to_be_bytes()[8 - (1 << width)..]);
        if argument < 24 && width == 0 {
            head = vec![(major << 5) | argument as u8];
        }
        head
    };
    let string = move |major: u8, text: &[u8]| {
        let mut item = head(major, text.len() as u64, usize::from(text.len() > 255));
        item.extend_from_slice(text);
        item
    };
    let leaf = prop_oneof![
        (0..2_u8, any::<u16>(), 1..4_usize).prop_map(move |(major, number, width)| head(
            major,
            number.into(),
            width
        )),
        "[a-cé]{0,80}".prop_map(move |text| string(3, text.as_bytes())),
        prop::collection::vec(any::<u8>(), 0..80).prop_map(move |bytes| string(2, &bytes)),
        "[a-c]{0,9}".prop_map(move |text| {
            [
                &b"\x7f"[..],
                &string(3, text.as_bytes()),
                &string(3, b"xyz"),
                b"\xff",
            ]
            .concat()
        }),
        any::<f64>().prop_map(|number| [&b"\xfb"[..], &number.to_be_bytes()].concat()),
        Just(b"\xc2\x42\x01\x00".to_vec()),
        Just(b"\xf6".to_vec()),
    ];
    leaf.prop_recursive(4, 60, 8, move |inner| {
        let all = prop::collection::vec(inner.clone(), 0..10);
        (all, 0..6).prop_map(move |(mut all, kind)| {
            let len = all.len() as u64;
            match kind {
                0 => [head(4, len, 0), all.concat()].concat(),
                1 => [&b"\x9f"[..], &all.concat(), b"\xff"].concat(),
                2 if !all.is_empty() => [&b"\xd8\x20"[..], &all[0]].concat(),
                3 if len.is_multiple_of(2) => [&b"\xbf"[..], &all.concat(), b"\xff"].concat(),
                _ => {
                    let mut keys: Vec<_> = all.split_off(all.len() / 2);
                    if kind == 4 {
                        keys.sort();
                        keys.dedup();
                    }
                    let entries: Vec<_> = keys
                        .iter()
                        .zip(&all)
                        .flat_map(|(key, value)| [key.clone(), value.clone()])
                        .collect();
                    [head(5, entries.len() as u64 / 2, 0), entries.concat()].concat()
                }
            }
        })
    })
}

/// Under each profile of CBOR.
fn compare_cbor(bytes: &[u8]) {
    for profile in Profile::ALL.iter().filter(|profile| !profile.is_json()) {
        let mut out = Vec::new();
        let streamed = profile.canonicalize_to(Cursor::new(bytes), &mut out);
        assert!(
            streamed.is_ok() || out.is_empty(),
            "nothing is written of a bad input"
        );
        let whole = profile.canonicalize(bytes);
        if let Ok(canonical) = &whole {
            let checked = profile.check_from(Cursor::new(canonical));
            assert!(checked.is_ok(), "{profile}: {}", canonical.escape_ascii());
        }
        same(streamed.map(|()| out), whole, bytes);
        let checked = profile.check_from(Cursor::new(bytes)).map(|()| vec![]);
        same(checked, profile.check(bytes).map(|()| vec![]), bytes);
        let checked = profile.check_from(Trickle(bytes)).map(|()| vec![]);
        same_once(checked, profile.check(bytes).map(|()| vec![]), bytes);
        let mut out = Vec::new();
        let options = profile.cbor_options().expect("a profile of CBOR");
        let once = crate::cbor::canonicalize_once(Trickle(bytes), &mut out, options);
        same_once(once.map(|()| out), profile.canonicalize(bytes), bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn cbor_by_pieces(item in items(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        compare_cbor(&item);
        for profile in Profile::ALL.iter().filter(|profile| !profile.is_json()) {
            let Ok(canonical) = profile.canonicalize(&item) else {
                continue;
            };
            compare_cbor(&canonical);
            let mut damaged = canonical;
            let at = cut.index(damaged.len());
            compare_cbor(&damaged[..at]);
            damaged[at] = byte;
            compare_cbor(&damaged);
        }
    }
}

#[test]
fn large_keys_and_false_lengths() {
    let long = |first: u8| [&[0x98, 100][..], &[first; 100]].concat();
    compare_cbor(&[&[0xa2][..], &long(1), &[0], &long(2), &[0]].concat());
    compare_cbor(&[&[0xa2][..], &long(2), &[0], &long(1), &[0]].concat());
    compare_cbor(&[&[0xa2][..], &long(2), &[0], &long(2), &[0]].concat());
    let numbers = [1; 200];
    compare_cbor(&[&[0x98, 202][..], &numbers, &[0x5b, 0, 0, 0, 0, 0, 1, 0, 0]].concat());
    compare_cbor(&[&[0x98, 202][..], &numbers, &[0x9b, 0, 0, 0, 0, 0, 1, 0, 0]].concat());
    compare_cbor(&[&[0x98, 200][..], &numbers, &[1]].concat());
}
