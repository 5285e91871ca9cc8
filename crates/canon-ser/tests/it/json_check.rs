//! `check` accepts canonical text only.

use canon_ser::json;

#[test]
fn not_canonical_with_place_and_reason() {
    for (text, offset, reason) in [
        (" 1", 0, "whitespace"),
        ("1\n", 1, "whitespace"),
        ("[1, 2]", 3, "whitespace"),
        ("{\"a\" :1}", 4, "whitespace"),
        ("{\"a\":1 }", 6, "whitespace"),
        ("{\"b\":1,\"a\":2}", 7, "out of order"),
        ("{\"\u{ffff}\":1,\"\u{10000}\":2}", 9, "out of order"),
        ("{\"\\n\":1,\"\\t\":2}", 8, "out of order"),
        ("[1.0]", 1, "number"),
        ("[1,1e2]", 3, "number"),
        ("-0", 0, "number"),
        ("9007199254740993", 0, "no form under this policy"),
        ("0.1000000000000000055", 0, "number"),
        ("1E+21", 0, "number"),
        ("\"\\u0041\"", 1, "character"),
        ("\"a\\/\"", 2, "character"),
        ("\"\\u000a\"", 1, "character"),
        ("\"\\u001F\"", 1, "character"),
        ("\"\\u00e9\"", 1, "character"),
        ("\"\\ud83d\\ude00\"", 1, "character"),
    ] {
        let error = json::check(text.as_bytes()).expect_err(text);
        assert!(error.is_not_canonical(), "{text}: {error}");
        assert_eq!(error.offset(), Some(offset), "{text}");
        assert!(
            error.reason().starts_with("not canonical: ") && error.reason().contains(reason),
            "{error}"
        );
        assert_ne!(
            json::canonicalize(text.as_bytes()).unwrap_or_default(),
            text.as_bytes()
        );
    }
}

/// A policy that has a form for it names none that it has not.
#[test]
fn an_integer_has_another_form_only_where_a_policy_gives_it_one() {
    use canon_ser::json::Integers;
    for (policy, reason) in [
        (Integers::Error, "no form"),
        (Integers::Round, "another canonical spelling"),
        (Integers::String, "another canonical spelling"),
    ] {
        let error = json::check_with(b"[9007199254740993]", policy).unwrap_err();
        assert!(error.reason().contains(reason), "{error}");
    }
    json::check_with(b"[9007199254740993]", Integers::Exact).unwrap();
}

#[test]
fn bad_text_is_bad_not_merely_loose() {
    assert!(
        json::check(b"{\"a\":1,\"a\":2}")
            .unwrap_err()
            .is_duplicate_key()
    );
    assert!(json::check(b"[1,]").unwrap_err().is_syntax());
    assert!(json::check(b"\"\\ud800\"").unwrap_err().is_syntax());
    assert!(json::check(b"1e999").unwrap_err().is_number());
    assert!(json::check(b"[]x").unwrap_err().is_syntax());
}

#[test]
fn any_single_byte_change_is_noticed_or_is_canonical_itself() {
    let text =
        "{\"\\n\":[0.5,-12,1e+21,\"a\\\"é\"],\"a\":{\"\":null,\"b\":true},\"€\":[],\"😀\":{}}";
    json::check(text.as_bytes()).unwrap();
    for at in 0..text.len() {
        for byte in 0..=255 {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = byte;
            let accepted = json::check(&changed).is_ok();
            let is_fixpoint =
                json::canonicalize(&changed).is_ok_and(|canonical| canonical == changed);
            assert_eq!(
                accepted,
                is_fixpoint,
                "{:?}",
                String::from_utf8_lossy(&changed)
            );
        }
    }
}
