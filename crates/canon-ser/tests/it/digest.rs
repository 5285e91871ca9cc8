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
    // Text keys and integers are the same in all profiles of CBOR.
    assert_eq!(seen.len(), 3);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The examples of docs/PROFILES.md, and hashes that `sha256sum` and `b3sum` print for those bytes.
#[test]
fn golden_bytes_never_change() {
    let text = br#"{"b":[1e2,"\u20ac"],"a":-0.0}"#;
    let jcs = Profile::JcsV1.canonicalize(text).unwrap();
    assert_eq!(hex(&jcs), "7b2261223a302c2262223a5b3130302c22e282ac225d7d");
    let cbor = canon_ser::cbor::from_json(text).unwrap();
    assert_eq!(hex(&cbor), "a2616100616282186463e282ac");
    let sha256 = digest::sha256_text(text, canon_ser::json::Options::new()).unwrap();
    assert_eq!(
        hex(&sha256),
        "6911e6d05fb0a85f8c383c273858b41bfd9789da1bcbb5ac8c99b8ff89e02ce2"
    );
    assert_eq!(sha256, digest::sha256_bytes(&jcs));
    let blake3 = digest::blake3_text(text, canon_ser::json::Options::new()).unwrap();
    assert_eq!(blake3, digest::blake3_bytes(&jcs));
    assert_eq!(
        hex(&blake3),
        "f1375a86734325239d3a25c3ad637dcb00a4bf3bf8aa71876490b8229e77cb31"
    );
}

#[test]
fn ids_are_frozen() {
    let ids: Vec<_> = Profile::ALL.iter().map(|profile| profile.id()).collect();
    assert_eq!(
        ids,
        [
            "jcs/1",
            "json-utf8/1",
            "cbor-core-det/1",
            "cbor-length-first/1",
            "dag-cbor/1"
        ]
    );
    for &profile in Profile::ALL {
        assert_eq!(profile.to_string().parse(), Ok(profile));
    }
    assert!(Profile::from_id("jcs").is_none());
    assert_eq!(
        "x".parse::<Profile>().unwrap_err().to_string(),
        "unknown profile; known are jcs/1 json-utf8/1 cbor-core-det/1 \
         cbor-length-first/1 dag-cbor/1"
    );
}

/// FF, the id, 00, then the canonical bytes.
#[test]
fn tagged_digests_name_the_profile() {
    let value = ("text", 1);
    let mut seen = Vec::new();
    for &profile in Profile::ALL {
        let mut bytes = vec![0xff];
        bytes.extend_from_slice(profile.id().as_bytes());
        bytes.push(0);
        bytes.extend(profile.to_vec(&value).unwrap());
        let expected: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!(digest::sha256_tagged(profile, &value).unwrap(), expected);
        assert_eq!(
            digest::tagged::<Sha512>(profile, &value).unwrap(),
            Sha512::digest(&bytes)
        );
        assert_eq!(
            digest::blake3_tagged(profile, &value).unwrap(),
            *blake3::hash(&bytes).as_bytes()
        );
        seen.push(expected);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), Profile::ALL.len());
}

/// Large values, in order and not, go through the hash in pieces, some of them twice.
#[test]
fn large_values_have_the_digest_of_their_bytes() {
    for step in [1_usize, 7, 4_999] {
        let map: Vec<(String, Vec<usize>)> = (0..5_000)
            .map(|n| (n * step) % 5_000)
            .map(|n| (format!("key {n:05}"), vec![n; 8]))
            .collect();
        let value = serde_json::json!({ "z": 1, "list": [Pairs(&map), "end"], "a": 2 });
        let direct = (Pairs(&map), [Pairs(&map)], "end");
        for &profile in Profile::ALL {
            let bytes = profile.to_vec(&direct).unwrap();
            assert_eq!(
                digest::sha256(profile, &direct).unwrap(),
                <[u8; 32]>::from(Sha256::digest(&bytes))
            );
            let mut written = Vec::new();
            profile.to_writer(&mut written, &direct).unwrap();
            assert_eq!(written, bytes);
            let bytes = profile.to_vec(&value).unwrap();
            assert_eq!(
                digest::blake3(profile, &value).unwrap(),
                *blake3::hash(&bytes).as_bytes()
            );
        }
    }
}

struct Pairs<'a>(&'a [(String, Vec<usize>)]);

impl serde::Serialize for Pairs<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}
