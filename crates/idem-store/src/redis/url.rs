//! The store's URL, and the names of its keys.

use std::hash::Hasher;
use std::time::Duration;

use crate::error::{Error, Kind};
use crate::options::{Durability, Options};

/// Shards of a store on a cluster: each lives in one slot, so this is how widely it can spread.
#[cfg(any(feature = "redis-cluster", test))]
const CLUSTER_SHARDS: u32 = 64;
const TIMEOUT_MS: u64 = 5_000;

/// What a URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) target: Target,
    pub(crate) name: String,
    /// Servers that may lose what they acknowledged are taken too.
    pub(crate) relaxed: bool,
    /// This many replicas have a write before it is answered.
    pub(crate) wait_replicas: u32,
    /// How long an operation is tried.
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A URL that the client library understands.
    Server(String),
    #[cfg(feature = "redis-sentinel")]
    Sentinel {
        nodes: Vec<String>,
        master: String,
        db: i64,
        username: Option<String>,
        password: Option<String>,
    },
    #[cfg(feature = "redis-cluster")]
    Cluster(Vec<String>),
}

impl Target {
    pub(crate) fn shards(&self) -> u32 {
        match self {
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(_) => CLUSTER_SHARDS,
            _ => 1,
        }
    }
}

impl Config {
    pub(crate) fn parse(url: &str, options: &Options) -> Result<Self, Error> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut config = Self {
            target: Target::Server(String::new()),
            name: "default".to_owned(),
            relaxed: options.durability != Durability::Sync,
            wait_replicas: 0,
            timeout: Duration::from_millis(TIMEOUT_MS),
        };
        let mut others = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "name" => config.name = name(value)?,
                "durability" => config.relaxed = durability(value)?,
                "wait_replicas" => config.wait_replicas = parse(key, value)?,
                "timeout_ms" => {
                    let timeout_ms: u32 = parse(key, value)?;
                    config.timeout = Duration::from_millis(u64::from(timeout_ms.max(1)));
                }
                "db" | "user" | "pass" | "protocol" => others.push(pair),
                // What is named here may be half of a password.
                _ if query.contains('@') => {
                    return fail(
                        "an @ stands behind the first ?: write ?, &, @ and / in a password as %3F, \
                         %26, %40 and %2F"
                            .to_owned(),
                    );
                }
                _ => return fail(format!("nothing is known of the parameter {key}")),
            }
        }
        config.target = target(base, &others)?;
        if config.wait_replicas > 0 && config.target.shards() > 1 {
            return fail("wait_replicas is not possible on a cluster".to_owned());
        }
        Ok(config)
    }
}

fn target(base: &str, others: &[&str]) -> Result<Target, Error> {
    let (scheme, rest) = base.split_once("://").unwrap_or((base, ""));
    let query = if others.is_empty() {
        String::new()
    } else {
        format!("?{}", others.join("&"))
    };
    match scheme {
        "redis" | "redis+unix" => Ok(Target::Server(format!("{base}{query}"))),
        #[cfg(feature = "redis-tls")]
        "rediss" => Ok(Target::Server(format!("{base}{query}"))),
        "redis+sentinel" | "redis+cluster" if !others.is_empty() => fail(format!(
            "db, user, pass and protocol have no place behind the ? of {scheme}://"
        )),
        #[cfg(feature = "redis-sentinel")]
        "redis+sentinel" => sentinel(rest),
        #[cfg(feature = "redis-cluster")]
        "redis+cluster" => Ok(Target::Cluster(nodes(rest))),
        _ => {
            let _ = rest;
            fail(crate::face::unknown(scheme))
        }
    }
}

/// `[user:password@]host:port,host:port`, each as a URL. The password is the data servers'.
#[cfg(any(feature = "redis-sentinel", feature = "redis-cluster"))]
fn nodes(rest: &str) -> Vec<String> {
    let (credentials, hosts) = match rest.rsplit_once('@') {
        Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
        None => (String::new(), rest),
    };
    let hosts = hosts.trim_end_matches('/').split(',');
    hosts
        .map(|host| format!("redis://{credentials}{host}"))
        .collect()
}

#[cfg(feature = "redis-sentinel")]
fn sentinel(rest: &str) -> Result<Target, Error> {
    let (credentials, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => (Some(credentials), rest),
        None => (None, rest),
    };
    let mut parts = rest.split('/');
    let hosts = parts.next().unwrap_or_default();
    let master = parts.next().unwrap_or_default();
    if master.is_empty() {
        return fail("redis+sentinel://host:port/MASTER needs the master's name".to_owned());
    }
    let (username, password) = match credentials {
        Some(credentials) => decoded(credentials)?,
        None => (None, None),
    };
    Ok(Target::Sentinel {
        nodes: nodes(hosts),
        master: master.to_owned(),
        db: match parts.next() {
            Some(db) => parse("db", db)?,
            None => 0,
        },
        username,
        password,
    })
}

/// User and password of `[user:]password`, as the client library reads them.
#[cfg(feature = "redis-sentinel")]
fn decoded(credentials: &str) -> Result<(Option<String>, Option<String>), Error> {
    use redis::IntoConnectionInfo;

    let colon = if credentials.contains(':') { "" } else { ":" };
    let url = format!("redis://{colon}{credentials}@localhost");
    let Ok(info) = url.into_connection_info() else {
        return fail("the user or the password cannot be read".to_owned());
    };
    let settings = info.redis_settings();
    let [user, password] =
        [settings.username(), settings.password()].map(|word| word.map(str::to_owned));
    Ok((user, password))
}

fn name(value: &str) -> Result<String, Error> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.is_empty() || value.len() > 64 || !value.chars().all(is_plain) {
        return fail("name is 1 to 64 letters, digits, dots, dashes and underscores".to_owned());
    }
    Ok(value.to_owned())
}

fn durability(value: &str) -> Result<bool, Error> {
    match value {
        "relaxed" => Ok(true),
        "strict" => Ok(false),
        _ => fail("durability is strict or relaxed".to_owned()),
    }
}

fn parse<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, Error> {
    value
        .parse()
        .or_else(|_| fail(format!("{key}={value} is not a number that fits")))
}

fn fail<T>(text: String) -> Result<T, Error> {
    Err(Error::new(Kind::Url(text)))
}

/// The names of the store's keys on the server.
pub(crate) struct Layout {
    pub(crate) meta: String,
    shards: Vec<Shard>,
}

/// The keys of one shard: they share a hash tag, so that one script may touch them all.
pub(crate) struct Shard {
    pub(crate) number: u32,
    value_prefix: Vec<u8>,
    pub(crate) declared: String,
    pub(crate) sequence: String,
}

impl Layout {
    pub(crate) fn new(name: &str, shards: u32) -> Self {
        let shard = |number| {
            let tag = if shards == 1 {
                format!("{{ms:{name}}}")
            } else {
                format!("{{ms:{name}:{number}}}")
            };
            Shard {
                number,
                value_prefix: format!("{tag}k:").into_bytes(),
                declared: format!("{tag}d"),
                sequence: format!("{tag}s"),
            }
        };
        Self {
            meta: format!("{{ms:{name}}}meta"),
            shards: (0..shards).map(shard).collect(),
        }
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    pub(crate) fn all(&self) -> &[Shard] {
        &self.shards
    }

    pub(crate) fn shard(&self, key: &[u8]) -> &Shard {
        if self.shards.len() == 1 {
            return &self.shards[0];
        }
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        hash.write(key);
        let mixed = hash.finish();
        &self.shards[(mixed ^ (mixed >> 32)) as usize % self.shards.len()]
    }
}

impl Shard {
    pub(crate) fn value(&self, key: &[u8]) -> Vec<u8> {
        [&self.value_prefix, key].concat()
    }
}

/// FNV-1a: where a key lies must never change.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Result<Config, Error> {
        Config::parse(url, &Options::new())
    }

    #[test]
    fn a_url_says_where_and_how() {
        let url = "redis+unix:///run/redis.sock?db=3&name=orders&wait_replicas=1&timeout_ms=250";
        let config = config(url).expect("fits");
        let server = "redis+unix:///run/redis.sock?db=3".to_owned();
        assert_eq!(config.target, Target::Server(server));
        assert_eq!(config.name, "orders");
        assert_eq!((config.wait_replicas, config.relaxed), (1, false));
        assert_eq!(config.timeout, Duration::from_millis(250));
    }

    #[test]
    fn what_a_url_may_not_say_is_named() {
        for (url, word) in [
            ("redis://localhost?durable=no", "durable"),
            ("redis://localhost?durability=maybe", "relaxed"),
            ("redis://localhost?name=a:b", "name"),
            ("redis://localhost?timeout_ms=soon", "timeout_ms"),
            ("redis://u:pa?hush@localhost", "%3F"),
            ("redis://u:pa?hush=x@localhost", "%3F"),
            #[cfg(feature = "redis-sentinel")]
            ("redis+sentinel://localhost:1/m?db=3", "db"),
            #[cfg(feature = "redis-cluster")]
            ("redis+cluster://localhost:1?user=u", "user"),
        ] {
            let error = config(url).expect_err("refused");
            assert!(error.is_options());
            assert!(error.to_string().contains(word), "{error}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }

    #[test]
    fn durability_is_relaxed_by_url_or_option() {
        let relaxed = |url, options| Config::parse(url, &options).expect("fits").relaxed;
        assert!(!relaxed("redis://localhost", Options::new()));
        assert!(relaxed(
            "redis://localhost?durability=relaxed",
            Options::new()
        ));
        let options = Options::new().durability(Durability::None);
        assert!(relaxed("redis://localhost", options.clone()));
        assert!(!relaxed("redis://localhost?durability=strict", options));
    }

    #[test]
    #[cfg(feature = "redis-sentinel")]
    fn credentials_of_a_sentinel_url_are_decoded() {
        let credentials = |url| match config(url).expect("fits").target {
            Target::Sentinel {
                username, password, ..
            } => (username, password),
            other => panic!("{other:?}"),
        };
        let word = |word: &str| Some(word.to_owned());
        assert_eq!(
            credentials("redis+sentinel://a%40b:c%3Fd@h:1/m"),
            (word("a@b"), word("c?d"))
        );
        assert_eq!(
            credentials("redis+sentinel://:cd@h:1/m"),
            (None, word("cd"))
        );
        assert_eq!(credentials("redis+sentinel://cd@h:1/m"), (None, word("cd")));
        assert_eq!(credentials("redis+sentinel://h:1/m"), (None, None));
    }

    #[test]
    fn keys_of_a_shard_share_its_hash_tag_whatever_they_contain() {
        let layout = Layout::new("s", CLUSTER_SHARDS);
        let shard = layout.shard(b"}{x");
        let tag = format!("{{ms:s:{}}}", shard.number);
        assert!(shard.value(b"}{x").starts_with(tag.as_bytes()));
        assert!(shard.declared.starts_with(&tag) && shard.sequence.starts_with(&tag));
        let used: std::collections::BTreeSet<_> = (0..2_000u32)
            .map(|key| layout.shard(&key.to_be_bytes()).number)
            .collect();
        assert_eq!(used.len() as u32, CLUSTER_SHARDS, "every shard is used");
    }
}
