//! Digests and profiles.

#![cfg(all(feature = "sha2", feature = "blake3"))]

use std::collections::HashMap;

use canon_ser::{Profile, digest};
use sha2::{Digest, Sha256, Sha512};

#[test]
fn a_digest_is_the_plain_hash_of_the_canonical_bytes() {
    let value = HashMap::from([("\u{ffff}", 1), ("\u{10000}", 2)]);
    let mut seen = Vec::new();
    for &profile in Profile::ALL {
        let bytes = profile.to_vec(&value).unwrap();
        profile.check(&bytes).unwrap();
        assert_eq!(profile.canonicalize(&bytes).unwrap(), bytes);
        assert_eq!(
            digest::sha256(profile, &value).unwrap(),
            <[u8; 32]>::from(Sha256::digest(&bytes))
        );
        assert_eq!(
            canon_ser::digest::<Sha512>(profile, &value).unwrap(),
            Sha512::digest(&bytes)
        );
        assert_eq!(
            digest::blake3(profile, &value).unwrap(),
            *blake3::hash(&bytes).as_bytes()
        );
        seen.push(bytes);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(
        seen.len(),
        Profile::ALL.len(),
        "three profiles, three forms"
    );
}

#[test]
fn golden_digests_never_change() {
    let text = br#"{"b":[1e2,"\u20ac"],"a":-0.0,"c":1.5e300}"#;
    let canonical = "{\"a\":0,\"b\":[100,\"€\"],\"c\":1.5e+300}";
    assert_eq!(
        Profile::JcsV1.canonicalize(text).unwrap(),
        canonical.as_bytes()
    );
    let hash = digest::sha256_text(text, canon_ser::json::Options::new()).unwrap();
    assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(canonical)));
    assert_eq!(
        digest::blake3_text(text, canon_ser::json::Options::new()).unwrap(),
        *blake3::hash(canonical.as_bytes()).as_bytes()
    );
}

#[test]
fn ids_are_frozen() {
    let ids: Vec<_> = Profile::ALL.iter().map(|profile| profile.id()).collect();
    assert_eq!(ids, ["jcs/1", "json-utf8/1", "cbor-core-det/1"]);
    for &profile in Profile::ALL {
        assert_eq!(profile.to_string().parse(), Ok(profile));
    }
    assert!(Profile::from_id("jcs").is_none());
    assert_eq!(
        "x".parse::<Profile>().unwrap_err().to_string(),
        "unknown profile; known are jcs/1 json-utf8/1 cbor-core-det/1"
    );
}
