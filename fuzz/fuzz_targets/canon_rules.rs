//! Rules and meaning: the normal form of a normal form is itself, comparison is symmetric, a patch leads to the version
//! that it was made of.
#![no_main]

use canon_ser::rules::{RuleBook, RuleSet};
use canon_ser::semantic;
use libfuzzer_sys::fuzz_target;

const RULES: &[u8] =
    br#"{"id":"r","version":"1.0.0","effective_from":"2026-01-01T00:00:00Z","rules":{"null_is_absent":true,"fields":{
    "a":{"time":"epoch_s","aliases":{"b":{"time":"epoch_ms"}}},
    "m":{"aliases":{"c":{"factor":"0.01"},"k":{"factor":"1000"}}},
    "l":{"null_is":"empty_object","aliases":{"n":{}}},
    "t":{"time":"rfc3339"}}}}"#;

fuzz_target!(|input: (bool, &[u8], &[u8])| {
    let (own_rules, left, right) = input;
    let rules = match RuleSet::from_json(right) {
        Ok(rules) if own_rules => rules,
        _ => RuleSet::from_json(RULES).expect("rules"),
    };
    if let Ok(normal) = semantic::normalize(left, &rules) {
        let again = semantic::normalize(&normal, &rules).expect("a normal form has one");
        assert_eq!(again, normal);
        assert!(semantic::equal_with(left, &normal, &rules).expect("both can be read"));
    }
    if let (Ok(equal), Ok(other)) = (semantic::equal(left, right), semantic::equal(right, left)) {
        assert_eq!(equal, other);
        let (one, two) = (
            semantic::diff(left, right).expect("both can be read"),
            semantic::diff(right, left).expect("both can be read"),
        );
        assert_eq!(one.is_none(), equal);
        let place = |found: &Option<semantic::Difference>| {
            found.as_ref().map(|found| found.pointer().to_owned())
        };
        assert_eq!(place(&one), place(&two));
        assert_eq!(
            one.as_ref().map(|found| (found.left(), found.right())),
            two.as_ref().map(|found| (found.right(), found.left()))
        );
    }
    if let (Ok(first), Ok(second)) = (RuleSet::from_json(left), RuleSet::from_json(right)) {
        let mut book = RuleBook::new();
        book.publish(first.clone()).expect("the first version");
        let mut patched = book.clone();
        if book.publish(second.clone()).is_ok() && book.sets().len() == 2 {
            let patch = book
                .patch_between(first.version(), second.version())
                .expect("both are there");
            patched.publish_patch(&patch).expect("it applies");
            assert_eq!(patched.sets()[1].canonical(), second.canonical());
            assert_eq!(
                RuleBook::from_json(&book.to_json()).expect("its own text"),
                book
            );
        }
    }
});
