//! The configuration file of `mainstay schedule`. Errors name the line and the key, and quote no value: it may be a
//! secret.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use scheduler::{BreakerRules, Cron, FireTime, InDoubt, Misfire, Overlap, Retry, Schedule, Zone};
use serde::de::{Deserialize, Deserializer, Error as _};
use toml::Spanned;

use crate::units::parse_duration;

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
    Http(HttpCall),
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpCall {
    #[serde(default)]
    pub(super) method: Parsed<Method>,
    pub(super) url: Parsed<Url>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Option<serde_json::Value>,
}

/// What may stand in `[defaults]` and in a job.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
pub(super) struct Rules {
    pub(super) timezone: Option<Parsed<ZoneName>>,
    pub(super) timeout: Option<Time>,
    pub(super) misfire: Option<Parsed<MisfireRule>>,
    pub(super) misfire_after: Option<Time>,
    pub(super) overlap: Option<Parsed<OverlapRule>>,
    pub(super) jitter: Option<Time>,
    pub(super) retry: Option<RetryRules>,
    pub(super) breaker: Option<Breaker>,
    pub(super) once: Option<bool>,
    pub(super) in_doubt: Option<Parsed<InDoubtRule>>,
    pub(super) history: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryRules {
    attempts: u32,
    base: Option<Time>,
    cap: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Breaker {
    failures: Option<u32>,
    open: Option<Time>,
    half_open: Option<Time>,
    slow: Option<Time>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    job: Vec<Spanned<RawJob>>,
}

/// `flatten` would lose the places of errors, so the keys of [`Rules`] are told once more where they may stand.
macro_rules! with_rules {
    ($name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        #[derive(Default, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct $name {
            $($field: $kind,)*
            timezone: Option<Parsed<ZoneName>>,
            timeout: Option<Time>,
            misfire: Option<Parsed<MisfireRule>>,
            misfire_after: Option<Time>,
            overlap: Option<Parsed<OverlapRule>>,
            jitter: Option<Time>,
            retry: Option<RetryRules>,
            breaker: Option<Breaker>,
            once: Option<bool>,
            in_doubt: Option<Parsed<InDoubtRule>>,
            history: Option<usize>,
        }

        impl $name {
            /// With `defaults` where it says nothing.
            fn rules(&self, defaults: &Rules) -> Rules {
                let defaults = defaults.clone();
                Rules {
                    timezone: self.timezone.clone().or(defaults.timezone),
                    timeout: self.timeout.or(defaults.timeout),
                    misfire: self.misfire.or(defaults.misfire),
                    misfire_after: self.misfire_after.or(defaults.misfire_after),
                    overlap: self.overlap.or(defaults.overlap),
                    jitter: self.jitter.or(defaults.jitter),
                    retry: self.retry.or(defaults.retry),
                    breaker: self.breaker.or(defaults.breaker),
                    once: self.once.or(defaults.once),
                    in_doubt: self.in_doubt.or(defaults.in_doubt),
                    history: self.history.or(defaults.history),
                }
            }
        }
    };
}

with_rules!(Defaults {});
with_rules!(RawJob {
    name: Option<String>,
    cron: Option<Parsed<Cron>>,
    every: Option<Time>,
    at: Option<At>,
    after: Option<Time>,
    run: Option<Vec<String>>,
    http: Option<HttpCall>,
    shard: u32,
});

/// Reads the file.
pub(super) fn read(path: &Path, has_store: bool) -> Result<Vec<JobConfig>, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    parse(&text, has_store).map_err(|error| format!("{name}, {error}"))
}

fn parse(text: &str, has_store: bool) -> Result<Vec<JobConfig>, String> {
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        format!("{}: {}", place(text, at), error.message())
    })?;
    let defaults = file.defaults.rules(&Rules::default());
    let mut names = HashSet::new();
    let mut jobs = Vec::new();
    for raw in file.job {
        let at = raw.span().start;
        let table = at..file_end_of_table(text, at);
        let complain = |key: &str, what: &str| {
            let at = key_in(text, table.clone(), key).unwrap_or(at);
            format!("line {}, key `{key}`: {what}", line(text, at))
        };
        let job = check(raw.into_inner(), &defaults, has_store)
            .map_err(|(key, what)| complain(key, &what))?;
        if !names.insert((job.name.clone(), job.shard)) {
            return Err(complain(
                "name",
                "there is a job of this name (and shard) above",
            ));
        }
        jobs.push(job);
    }
    Ok(jobs)
}

type Complaint = (&'static str, String);

fn check(raw: RawJob, defaults: &Rules, has_store: bool) -> Result<JobConfig, Complaint> {
    let rules = raw.rules(defaults);
    let name = raw.name.clone().unwrap_or_default();
    if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
        return Err(("name", "a job needs a name of 1 to 128 bytes".into()));
    }
    let schedule = schedule_of(&raw, &rules)?;
    let action = match (raw.run, raw.http) {
        (Some(run), None) if run.first().is_some_and(|program| !program.is_empty()) => {
            Action::Run(run)
        }
        (Some(_), None) => return Err(("run", "name a program: [\"sh\", \"-c\", \"...\"]".into())),
        (None, Some(http)) => Action::Http(http),
        _ => return Err(("run", "a job has one of `run` and `http`".into())),
    };
    if rules.once == Some(true) {
        if raw.after.is_some() {
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

fn schedule_of(raw: &RawJob, rules: &Rules) -> Result<Schedule, Complaint> {
    let one = "a job has one of `cron`, `every`, `at` and `after`";
    match (&raw.cron, &raw.every, &raw.at, &raw.after) {
        (Some(cron), None, None, None) => {
            let zone = rules.timezone.clone();
            let zone = zone.map_or(Zone::UTC, |zone| zone.0.0);
            Ok(Schedule::cron(cron.0.clone(), zone))
        }
        (None, Some(every), None, None) => {
            Schedule::every(every.0).map_err(|error| ("every", error.to_string()))
        }
        (None, None, Some(at), None) => Ok(Schedule::at_ms(at.0)),
        (None, None, None, Some(after)) => Ok(Schedule::after(after.0)),
        (Some(_), ..) => Err(("cron", one.into())),
        (_, Some(_), ..) => Err(("every", one.into())),
        (.., Some(_), _) => Err(("at", one.into())),
        _ => Err(("name", one.into())),
    }
}

impl RetryRules {
    pub(super) fn retry(self) -> Retry {
        Retry {
            attempts: self.attempts,
            base: self.base.map_or(Duration::from_secs(1), |time| time.0),
            cap: self.cap.map_or(Duration::from_secs(30), |time| time.0),
        }
    }
}

impl Breaker {
    pub(super) fn rules(self) -> BreakerRules {
        let defaults = BreakerRules::default();
        BreakerRules {
            failures: self.failures.unwrap_or(defaults.failures),
            open: self.open.map_or(defaults.open, |time| time.0),
            half_open: self.half_open.map_or(defaults.half_open, |time| time.0),
            slow: self.slow.map(|time| time.0),
        }
    }
}

/// `line 7, key `cron``: the place of a value, and what it is the value of.
fn place(text: &str, at: usize) -> String {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let before = text[start..at].trim_end();
    let key = match before.strip_suffix('=') {
        Some(before) => {
            let before = before.trim_end();
            let from = before
                .rfind(|c: char| !is_bare(c))
                .map_or(0, |other| other + 1);
            &before[from..]
        }
        // It is about the key itself.
        None => text[at..].split(|c| !is_bare(c)).next().unwrap_or_default(),
    };
    match key {
        "" => format!("line {}", line(text, at)),
        key => format!("line {}, key `{key}`", line(text, at)),
    }
}

fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Where the next table begins.
fn file_end_of_table(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let body = rest.find('\n').map_or(rest.len(), |newline| newline + 1);
    rest[body..]
        .find("\n[")
        .map_or(text.len(), |next| at + body + next)
}

/// Where a key stands in its table.
fn key_in(text: &str, table: std::ops::Range<usize>, key: &str) -> Option<usize> {
    let mut at = table.start;
    for line in text[table].split_inclusive('\n') {
        let is_key = line
            .trim_start()
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with('='));
        if is_key {
            return Some(at);
        }
        at += line.len();
    }
    None
}

/// A time with its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Time(pub(super) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        parse_duration(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A point in time, as a string or as TOML's own.
#[derive(Clone, Copy, Debug, PartialEq)]
struct At(u64);

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Toml(toml::value::Datetime),
        }
        let text = match Written::deserialize(from)? {
            Written::Text(text) => text,
            Written::Toml(time) => time.to_string(),
        };
        let time = FireTime::parse(&text).map_err(D::Error::custom)?;
        Ok(Self(time.0))
    }
}

/// A string that means something.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Parsed<T>(pub(super) T);

impl<'de, T: FromStr<Err: std::fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ZoneName(pub(super) Zone);

impl FromStr for ZoneName {
    type Err = scheduler::UnknownZone;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Zone::named(text).map(Self)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MisfireRule(pub(super) Misfire);

impl FromStr for MisfireRule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match (text, number_after(text, "all:")) {
            ("skip", _) => Misfire::Skip,
            ("once", _) => Misfire::Once,
            (_, Some(count)) => Misfire::All(count),
            _ => return Err("one of \"skip\", \"once\" and \"all:10\""),
        }))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct OverlapRule(pub(super) Overlap);

impl FromStr for OverlapRule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match (text, number_after(text, "queue:")) {
            ("allow", _) => Overlap::Allow,
            ("skip", _) => Overlap::Skip,
            ("cancel-previous", _) => Overlap::CancelPrevious,
            (_, Some(count)) => Overlap::Queue(count),
            _ => return Err("one of \"allow\", \"skip\", \"queue:3\" and \"cancel-previous\""),
        }))
    }
}

fn number_after(text: &str, prefix: &str) -> Option<u32> {
    text.strip_prefix(prefix)?.parse().ok().filter(|n| *n > 0)
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct InDoubtRule(pub(super) InDoubt);

impl FromStr for InDoubtRule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text {
            "skip" => InDoubt::Skip,
            "rerun" => InDoubt::Rerun,
            "ask" => InDoubt::Ask,
            _ => return Err("one of \"skip\", \"rerun\" and \"ask\""),
        }))
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
            (Some("http"), Some(_)) => Ok(Self(url)),
            (Some("https"), _) => Err(
                "this command speaks no TLS: call it with run = [\"curl\", ...], or through a \
                 proxy on this machine",
            ),
            _ => Err("a URL: \"http://host:port/path\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(jobs[1].rules.history, Some(50));
    }

    #[test]
    fn errors_name_the_line_and_the_key_and_not_the_value() {
        for (from, to, expected) in [
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
            ("[[job]]", "[[job]", "line 5"),
        ] {
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
