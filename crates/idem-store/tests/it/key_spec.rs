//! Keys of type, date and shard: different parts, different keys.

use idem_store::{KeySpec, utc_day};
use proptest::prelude::*;

fn spec(parts: &[String; 3]) -> KeySpec {
    let [kind, date, shard] = parts;
    KeySpec::new(kind).date(date).shard(shard)
}

fn key(parts: [&str; 3]) -> String {
    spec(&parts.map(str::to_owned)).key().unwrap()
}

#[test]
fn parts_that_look_alike_make_different_keys() {
    assert_eq!(key(["a:b", "", "c"]), "a%3Ab::c");
    assert_eq!(key(["a", "b", ":c"]), "a:b:%3Ac");
    assert_eq!(key(["a%3Ab", "", ""]), "a%253Ab::");
    assert_eq!(key(["", "", ""]), "::");
    assert_eq!(key(["{tag}", " ", "ü\n"]), "%7Btag%7D:%20:%C3%BC%0A");
}

#[test]
fn only_what_was_built_is_read() {
    let wrong = [
        "", "a", "a:b", "a:b:c:d", "a:b:%", "a:b:%4", "a:b:%3a", "a:b:%41", "a:b:{", "a: :c",
        "a:b:%FF", "a:b:ü",
    ];
    for key in wrong {
        let error = KeySpec::parse(key.as_bytes()).unwrap_err();
        assert!(error.is_malformed(), "{key}: {error}");
    }
}

#[test]
fn a_key_has_512_bytes_at_most() {
    let whole = KeySpec::new("t").date("d").shard("s".repeat(508));
    let key = whole.key().unwrap();
    assert_eq!(key.len(), 512);
    assert_eq!(KeySpec::parse(key.as_bytes()).unwrap(), whole);
    for long in ["s".repeat(509), "ü".repeat(85)] {
        let error = KeySpec::new("t").date("d").shard(long).key().unwrap_err();
        assert!(error.is_too_long(), "{error}");
    }
    let error = KeySpec::parse(format!("::{}", "s".repeat(511)).as_bytes()).unwrap_err();
    assert!(error.is_too_long(), "{error}");
}

#[test]
fn days_are_those_of_the_calendar() {
    const DAY_MS: u64 = 86_400_000;
    for (day, text) in [
        (0, "1970-01-01"),
        (58, "1970-02-28"),
        (59, "1970-03-01"),
        (11_016, "2000-02-29"),
        (11_017, "2000-03-01"),
        (19_722, "2023-12-31"),
        (19_723, "2024-01-01"),
        (19_782, "2024-02-29"),
        (47_540, "2100-02-28"),
        (47_541, "2100-03-01"),
    ] {
        assert_eq!(utc_day(day * DAY_MS), text);
        assert_eq!(utc_day(day * DAY_MS + DAY_MS - 1), text);
    }
}

/// Short texts of characters that matter, so that collisions would be met.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        "[:%3A5aB{} ]{0,4}",
        "\\PC{0,8}",
        any::<String>().prop_map(|text| text.chars().take(8).collect())
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn distinct_parts_make_distinct_keys(
        one in prop::array::uniform3(part()),
        two in prop::array::uniform3(part()),
    ) {
        let keys = [&one, &two].map(|parts| spec(parts).key().unwrap());
        prop_assert_eq!(one == two, keys[0] == keys[1]);
        let read = KeySpec::parse(keys[0].as_bytes()).unwrap();
        prop_assert_eq!(read.parts().map(str::to_owned), one);
        prop_assert!(keys[0].bytes().all(|byte| byte.is_ascii_graphic()));
    }

    #[test]
    fn whatever_is_read_is_built_the_same(key in "[a:%4123AB]{0,12}") {
        if let Ok(spec) = KeySpec::parse(key.as_bytes()) {
            prop_assert_eq!(spec.key().unwrap(), key);
        }
    }
}
