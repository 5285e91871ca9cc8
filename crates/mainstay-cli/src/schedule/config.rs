//! The configuration file of `mainstay schedule`. Errors name the line and the key, and quote no value: it may be a
//! secret.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use scheduler::{Cron, Schedule};
use serde::de::{Deserialize, Deserializer, Error as _};
use toml::Spanned;

use crate::jobs::{
    At, Complaint, Defaults, Json, Parsed, Rules, Time, When, check_each, name_of, said, with_rules,
};

/// A job of the file, with the defaults applied.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct JobConfig {
    pub(super) name: String,
    pub(super) schedule: Schedule,
    pub(super) action: Action,
    pub(super) rules: Rules,
    pub(super) shard: u32,
}

/// What a job does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Run(Vec<String>),
    Http(Box<HttpCall>),
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpCall {
    #[serde(default)]
    pub(super) method: Parsed<Method>,
    pub(super) url: Parsed<Url>,
    #[serde(default)]
    pub(super) headers: Headers,
    pub(super) body: Option<Json>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    job: Vec<Spanned<RawJob>>,
}

with_rules!(RawJob {
    name: Option<String>,
    cron: Option<Parsed<Cron>>,
    every: Option<Time>,
    at: Option<At>,
    after: Option<Time>,
    run: Option<Vec<String>>,
    http: Option<Box<HttpCall>>,
    shard: u32,
});

/// Reads the file.
pub(super) fn read(path: &Path, has_store: bool) -> Result<Vec<JobConfig>, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    parse(&text, has_store).map_err(|error| format!("{name}, {error}"))
}

fn parse(text: &str, has_store: bool) -> Result<Vec<JobConfig>, String> {
    let file: File = toml::from_str(text).map_err(|error| said(text, &error))?;
    let defaults = file.defaults.rules(&Rules::default());
    let check = |raw| check(raw, &defaults, has_store);
    check_each(text, file.job, check, |job| (job.name.clone(), job.shard))
}

fn check(raw: RawJob, defaults: &Rules, has_store: bool) -> Result<JobConfig, Complaint> {
    let rules = raw.rules(defaults);
    let name = name_of(raw.name)?;
    let has_after = raw.after.is_some();
    let when = When {
        cron: raw.cron,
        every: raw.every,
        at: raw.at,
        after: raw.after,
        one: "a job has one of `cron`, `every`, `at` and `after`",
    };
    let schedule = when.schedule(&rules)?;
    let action = match (raw.run, raw.http) {
        (Some(run), None) if run.iter().any(|argument| argument.contains('\0')) => {
            return Err(("run", "no program can be told a NUL character".into()));
        }
        (Some(run), None) if run.first().is_some_and(|program| !program.is_empty()) => {
            Action::Run(run)
        }
        (Some(_), None) => return Err(("run", "name a program: [\"sh\", \"-c\", \"...\"]".into())),
        (None, Some(http)) => Action::Http(http),
        _ => return Err(("run", "a job has one of `run` and `http`".into())),
    };
    if rules.once == Some(true) {
        if has_after {
            let what = "a job with `after` cannot run once across replicas: give it an `at`";
            return Err(("once", what.into()));
        }
        if !has_store {
            return Err(("once", "to run once a job needs --store".into()));
        }
    }
    Ok(JobConfig {
        name,
        schedule,
        action,
        rules,
        shard: raw.shard,
    })
}

/// What a firing's tries are told apart and put together by, and how long a body is, is not the file's to say.
const OWN_HEADERS: [&str; 4] = [
    "idempotency-key",
    "traceparent",
    "content-length",
    "transfer-encoding",
];

/// Headers of a call, in place of its own where they have the same name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Headers(pub(super) HeaderMap);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in BTreeMap::<String, String>::deserialize(from)? {
            let complain = |what| D::Error::custom(format!("`{name}`: {what}"));
            let parsed = HeaderName::from_bytes(name.as_bytes());
            let parsed = parsed.map_err(|_| complain("not the name of an HTTP header"))?;
            let value = HeaderValue::from_str(&value);
            let value = value.map_err(|_| complain("not the value of an HTTP header"))?;
            if OWN_HEADERS.contains(&parsed.as_str()) {
                return Err(complain("the call carries its own"));
            }
            if headers.insert(parsed, value).is_some() {
                return Err(complain("it stands there twice"));
            }
        }
        Ok(Self(headers))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Method(pub(super) hyper::Method);

impl Default for Method {
    fn default() -> Self {
        Self(hyper::Method::POST)
    }
}

impl FromStr for Method {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let method = hyper::Method::from_bytes(text.as_bytes());
        method
            .map(Self)
            .map_err(|_| "an HTTP method: \"GET\", \"POST\"")
    }
}

/// An address that the client of this command can call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Url(pub(super) hyper::Uri);

impl FromStr for Url {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: hyper::Uri = text
            .parse()
            .map_err(|_| "a URL: \"http://host:port/path\"")?;
        match (url.scheme_str(), url.host()) {
            // HTTP has no place for it: it would be sent as a part of the host's name.
            (Some("http"), Some(_))
                if url
                    .authority()
                    .is_some_and(|host| host.as_str().contains('@')) =>
            {
                Err("a URL without a user and password: send an `Authorization` header")
            }
            (Some("http"), Some(host)) if url.port_u16().is_none() && has_port(&url, host) => {
                Err("a URL whose port is a number up to 65535")
            }
            (Some("http"), Some(_)) => Ok(Self(url)),
            (Some("https"), _) => Err(
                "this command speaks no TLS: call it with run = [\"curl\", ...], or through a \
                 proxy on this machine",
            ),
            _ => Err("a URL: \"http://host:port/path\""),
        }
    }
}

/// Whether anything stands where the port does. What is no port number is none to `Uri`, and then it would be 80.
fn has_port(url: &hyper::Uri, host: &str) -> bool {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let port = authority.strip_prefix(host);
    port.is_some_and(|port| !matches!(port, "" | ":"))
}

#[cfg(test)]
mod tests {
    use scheduler::{Misfire, Overlap};

    use super::*;
    use crate::jobs::{History, MisfireRule, OverlapRule};

    const GOOD: &str = r#"
[defaults]
timezone = "Europe/Berlin"
history = 50
[[job]]
name = "reconcile"
cron = "*/5 * * * * *"
run = ["true"]
timeout = "10s"
misfire = "all:10"
overlap = "queue:3"
jitter = "200ms"
retry = { attempts = 5, base = "1s", cap = "30s" }
breaker = { failures = 3, open = "300s", half_open = "60s" }
once = true
in_doubt = "ask"
[[job]]
name = "late"
at = 2026-12-01T03:00:00Z
http = { method = "PUT", url = "http://127.0.0.1:1/x", body = { a = [1, 2] } }
"#;

    #[test]
    fn a_file_reads_with_its_defaults() {
        let jobs = parse(GOOD, true).unwrap();
        assert_eq!(jobs.len(), 2);
        assert_eq!(
            jobs[0].rules.misfire,
            Some(Parsed(MisfireRule(Misfire::All(10))))
        );
        assert_eq!(
            jobs[0].rules.overlap,
            Some(Parsed(OverlapRule(Overlap::Queue(3))))
        );
        assert_eq!(
            jobs[0].schedule.to_string(),
            "cron */5 * * * * * Europe/Berlin"
        );
        assert_eq!(jobs[1].schedule.to_string(), "at 2026-12-01T03:00:00.000Z");
        assert_eq!(jobs[1].rules.history, Some(History(50)));
    }

    /// What is replaced in `GOOD`, by what, and what is said of it.
    const WRONG: &[(&str, &str, &str)] = &[
        (
            "*/5 * * * * *",
            "sesame",
            "line 7, key `cron`: not a cron expression",
        ),
        (
            "Europe/Berlin",
            "Europe/sesam",
            "line 3, key `timezone`: no such time zone",
        ),
        ("\"10s\"", "\"10\"", "line 9, key `timeout`: a time is"),
        ("\"10s\"", "10", "line 9, key `timeout`: invalid type"),
        ("all:10", "all:none", "line 10, key `misfire`: one of"),
        ("\"1s\"", "\"sesame\"", "line 13, key `base`: a time"),
        (
            "half_open",
            "halfopen",
            "line 14, key `halfopen`: unknown field",
        ),
        (
            "overlap",
            "overlaps",
            "line 11, key `overlaps`: unknown field",
        ),
        (
            "name = \"late\"",
            "name = \"reconcile\"",
            "line 18, key `name`: there is a job",
        ),
        (
            "name = \"late\"",
            "",
            "line 17, key `name`: a job needs a name",
        ),
        (
            "run = [\"true\"]",
            "run = []",
            "line 8, key `run`: name a program",
        ),
        (
            "run = [\"true\"]",
            "run = [\"sesame\\u0000\"]",
            "line 8, key `run`: no program can be told a NUL",
        ),
        (
            "name = \"late\"",
            "name = \"sesame\\u0007\"",
            "line 18, key `name`: a job needs a name of 1 to 128 bytes without control characters",
        ),
        (
            "run = [\"true\"]",
            "",
            "line 5, key `run`: a job has one of",
        ),
        (
            "cron = \"*",
            "every = \"1s\"\ncron = \"*",
            "line 8, key `cron`: a job has one of",
        ),
        (
            "cron = \"*/5 * * * * *\"",
            "after = \"1s\"",
            "line 15, key `once`: a job with",
        ),
        (
            "http://127",
            "https://127",
            "line 20, key `url`: this command speaks no TLS",
        ),
        (
            "[\"true\"]",
            "\"curl -H Bearer:sesame, expected a\"",
            "line 8, key `run`: invalid type: string, expected a sequence",
        ),
        (
            "127.0.0.1",
            "user:sesame@127.0.0.1",
            "line 20, key `url`: a URL without a user",
        ),
        (
            "127.0.0.1:1/",
            "127.0.0.1:65536/",
            "line 20, key `url`: a URL whose port",
        ),
        (
            "[\"true\"]",
            "[\"sesame\", 1]",
            "line 8, key `run`: invalid type: integer, expected a string",
        ),
        (
            "[\"true\"]",
            "[\n\"sesame=x\", 1]",
            "line 9: invalid type: integer, expected a string",
        ),
        (
            "at = 2026-12-01T03:00:00Z",
            "at = 5",
            "line 19, key `at`: a time is RFC 3339",
        ),
        (
            "*/5 * * * * *",
            ", * * * *",
            "line 7, key `cron`: not a cron expression",
        ),
        (
            "attempts = 5",
            "attempts = 4294967296",
            "line 13, key `attempts`: a number from 1 to 4294967295",
        ),
        (
            "attempts = 5",
            "attempts = 0",
            "line 13, key `attempts`: a number from 1 to 4294967295",
        ),
        (
            "failures = 3",
            "failures = -1",
            "line 14, key `failures`: a number from 1 to 4294967295",
        ),
        (
            "open = \"300s\"",
            "open = \"0s\"",
            "line 14, key `open`: a time longer",
        ),
        ("\"10s\"", "\"0s\"", "line 9, key `timeout`: a time longer"),
        (
            "history = 50",
            "history = 9223372036854775807",
            "line 4, key `history`: 0 to 10000",
        ),
        (
            "body = {",
            "headers = { a-b = \"sesame\\n\" }, body = {",
            "line 20, key `headers`: `a-b`: not the value of an HTTP header",
        ),
        (
            "body = {",
            "headers = { \"a b\" = \"c\" }, body = {",
            "line 20, key `headers`: `a b`: not the name of an HTTP header",
        ),
        (
            "body = {",
            "headers = { Idempotency-Key = \"sesame\" }, body = {",
            "line 20, key `headers`: `Idempotency-Key`: the call carries its own",
        ),
        (
            "200ms",
            "5001ms",
            "line 12, key `jitter`: longer than the 5s from one fire time to another",
        ),
        ("[[job]]", "[[job]", "line 5"),
    ];

    #[test]
    fn errors_name_the_line_and_the_key_and_not_the_value() {
        for (from, to, expected) in WRONG {
            let error = parse(&GOOD.replacen(from, to, 1), true).unwrap_err();
            assert!(error.starts_with(expected), "{from} -> {to}: {error}");
            assert!(!error.contains("sesame"), "{error}");
        }
        let error = parse(GOOD, false).unwrap_err();
        assert_eq!(
            error,
            "line 15, key `once`: to run once a job needs --store"
        );
    }
}
