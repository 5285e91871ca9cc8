//! Digests of canonical bytes.

use std::io::{self, Write};

use canon_ser::Profile;
use serde::Serialize;
use sha2::Digest as _;

use super::{FormArgs, Hash, Job, Policy, print, print_json};

enum Algorithm {
    Sha256(sha2::Sha256),
    Blake3(Box<blake3::Hasher>),
}

/// Takes canonical bytes and counts them.
pub(super) struct Hasher {
    algorithm: Algorithm,
    bytes: u64,
}

impl Hasher {
    /// With a tag, for a digest that is one under that profile and no other.
    pub(super) fn new(hash: Hash, tag: Option<Profile>) -> Hasher {
        let algorithm = match hash {
            Hash::Sha256 => Algorithm::Sha256(sha2::Sha256::new()),
            Hash::Blake3 => Algorithm::Blake3(Box::default()),
        };
        let mut hasher = Hasher {
            algorithm,
            bytes: 0,
        };
        if let Some(profile) = tag {
            // As docs/PROFILES.md of canon-ser has it.
            for tag in [&[0xff], profile.id().as_bytes(), &[0]] {
                hasher.update(tag);
            }
        }
        hasher
    }

    fn update(&mut self, bytes: &[u8]) {
        match &mut self.algorithm {
            Algorithm::Sha256(hasher) => hasher.update(bytes),
            Algorithm::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    fn hex(self) -> String {
        let digest: [u8; 32] = match self.algorithm {
            Algorithm::Sha256(hasher) => hasher.finalize().into(),
            Algorithm::Blake3(hasher) => hasher.finalize().into(),
        };
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `--digest --json` prints.
#[derive(Serialize)]
struct Digested<'a> {
    algorithm: Hash,
    bytes: u64,
    digest: &'a str,
    /// The policy for integers, unless the bytes are those of the profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    integers: Option<Policy>,
    profile: &'a str,
    /// Whether the profile's id was hashed in front of the bytes; absent if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tagged: bool,
}

pub(super) fn print_digest(
    job: &Job,
    algorithm: Hash,
    hasher: Hasher,
    args: &FormArgs,
) -> Result<(), String> {
    let bytes = hasher.bytes;
    let digest = hasher.hex();
    if !args.json {
        return print(format!("{digest}\n").as_bytes());
    }
    print_json(&Digested {
        algorithm,
        bytes,
        digest: &digest,
        integers: job.departure(),
        profile: job.profile.id(),
        tagged: args.tagged,
    })
}
