//! Fingerprints: what does not matter does not, what matters does.

use idem_store::{Fingerprint, Omit};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn of(text: &str) -> Fingerprint {
    Fingerprint::of_json(text.as_bytes()).unwrap()
}

#[test]
fn order_and_spelling_do_not_matter_values_do() {
    let one = of(r#"{"n":100,"s":"A","id":9007199254740993}"#);
    assert_eq!(
        one,
        of("{ \"id\" : 9007199254740993, \"s\":\"\\u0041\", \"n\":1e2 }")
    );
    assert_ne!(one, of(r#"{"n":100,"s":"A","id":9007199254740992}"#));
    let value = json!({ "id": 9_007_199_254_740_993_u64, "n": 100.0, "s": "A" });
    assert_eq!(one, Fingerprint::of_value(&value).unwrap());
    let error = Fingerprint::of_json(b"{\n  1}").unwrap_err();
    assert_eq!(error.line(), Some(2));
}

#[test]
fn fields_are_left_out_at_any_place() {
    let cases: &[(&[&str], &str, &str)] = &[
        (&["/a"], r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2,"c":3}"#),
        (&["/b"], r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1,"c":3}"#),
        (&["/c"], r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1,"b":2}"#),
        (&["/a", "/b"], r#"{"a":{"x":[1,"}"]},"b":2}"#, "{}"),
        (
            &["/a/x"],
            r#"{"a":{"x":1,"y":"\"x\\"},"x":1}"#,
            r#"{"a":{"y":"\"x\\"},"x":1}"#,
        ),
        (&["/a/x", "/a"], r#"{"a":{"x":1}}"#, "{}"),
        (
            &["/l/1", "/l/0/t"],
            r#"{"l":[{"t":1,"u":2},3,4]}"#,
            r#"{"l":[{"u":2},4]}"#,
        ),
        (
            &["/l/01", "/l/-", "/l/x"],
            r#"{"l":[1,2]}"#,
            r#"{"l":[1,2]}"#,
        ),
        (&["/0"], r#"{"0":1,"00":2}"#, r#"{"00":2}"#),
        (&["/0"], "[1,2]", "[2]"),
        (
            &["/a~1b/~0", "/~01"],
            r#"{"a/b":{"~":1,"z":0},"~1":2}"#,
            r#"{"a/b":{"z":0}}"#,
        ),
        (&["/"], r#"{"":1,"a":2}"#, r#"{"a":2}"#),
        (&["/ü\n"], r#"{"ü\n":1,"a":2}"#, r#"{"a":2}"#),
        (&["/absent/x"], r#"{"a":2}"#, r#"{"a":2}"#),
        (&["/a"], "17", "17"),
        (&["/a"], "\"a\"", "\"a\""),
        (&[], r#"{"a":2}"#, r#"{"a":2}"#),
    ];
    for (pointers, text, rest) in cases {
        let omit = Omit::new(*pointers).unwrap();
        let found = omit.of_json(text.as_bytes()).unwrap();
        assert_eq!(found, of(rest), "{pointers:?} of {text}");
    }
}

#[test]
fn what_is_no_pointer_is_refused() {
    for wrong in ["", "a", "a/b", "/~", "/~2", "/a~"] {
        let error = Omit::new([wrong]).unwrap_err();
        assert!(error.to_string().contains("pointer"), "{wrong}: {error}");
    }
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[\"\\\\{}\\[\\],:ab]{0,5}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[ab/~\"]{0,2}", inner, 0..4)
                .prop_map(|members| Value::from(Map::from_iter(members))),
        ]
    })
}

/// The pointers of all values below the document.
fn pointers(value: &Value, prefix: &str, all: &mut Vec<String>) {
    let mut below = |name: String, value: &Value| {
        let name = name.replace('~', "~0").replace('/', "~1");
        let pointer = format!("{prefix}/{name}");
        pointers(value, &pointer, all);
        all.push(pointer);
    };
    match value {
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, item)| below(index.to_string(), item));
        }
        Value::Object(members) => members
            .iter()
            .for_each(|(name, value)| below(name.clone(), value)),
        _ => {}
    }
}

proptest! {
    /// Against removal from a tree.
    #[test]
    fn leaving_out_is_removing(document in document(), pick: prop::sample::Index) {
        let mut all = Vec::new();
        pointers(&document, "", &mut all);
        prop_assume!(!all.is_empty());
        let pointer = &all[pick.index(all.len())];
        let mut without = document.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match without.pointer_mut(parent).unwrap() {
            Value::Array(items) => drop(items.remove(name.parse().unwrap())),
            Value::Object(members) => {
                members.remove(&name.replace("~1", "/").replace("~0", "~"));
            }
            _ => unreachable!("it has a member"),
        }
        let omit = Omit::new([pointer]).unwrap();
        let text = serde_json::to_vec_pretty(&document).unwrap();
        let expected = Fingerprint::of_value(&without).unwrap();
        prop_assert_eq!(omit.of_json(&text).unwrap(), expected);
        prop_assert_eq!(omit.of_value(&document).unwrap(), expected);
    }
}
