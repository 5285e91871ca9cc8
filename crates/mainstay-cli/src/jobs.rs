//! What a `[[job]]` table says about when and by which rules, for `mainstay schedule` and for the jobs of `mainstay gateway`.
//! Errors name the line and the key, and quote no value: it may be a secret.

use std::collections::HashSet;
use std::str::FromStr;
use std::time::Duration;

use scheduler::{BreakerRules, Cron, FireTime, InDoubt, Misfire, Overlap, Retry, Schedule, Zone};
use serde::de::{Deserialize, Deserializer, Error as _};
use toml::Spanned;

use crate::units::parse_duration;

/// What may stand in `[defaults]` and in a job.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
pub(crate) struct Rules {
    pub(crate) timezone: Option<Parsed<ZoneName>>,
    pub(crate) timeout: Option<Lasting>,
    pub(crate) misfire: Option<Parsed<MisfireRule>>,
    pub(crate) misfire_after: Option<Time>,
    pub(crate) overlap: Option<Parsed<OverlapRule>>,
    pub(crate) jitter: Option<Time>,
    pub(crate) retry: Option<RetryRules>,
    pub(crate) breaker: Option<Breaker>,
    pub(crate) once: Option<bool>,
    pub(crate) in_doubt: Option<Parsed<InDoubtRule>>,
    pub(crate) history: Option<History>,
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryRules {
    attempts: Count,
    base: Option<Time>,
    cap: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Breaker {
    failures: Option<Count>,
    open: Option<Lasting>,
    half_open: Option<Lasting>,
    slow: Option<Lasting>,
}

/// `flatten` would lose the places of errors, so the keys of [`Rules`] are told once more where they may stand.
macro_rules! with_rules {
    ($name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        #[derive(Default, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $name {
            $($field: $kind,)*
            timezone: Option<$crate::jobs::Parsed<$crate::jobs::ZoneName>>,
            timeout: Option<$crate::jobs::Lasting>,
            misfire: Option<$crate::jobs::Parsed<$crate::jobs::MisfireRule>>,
            misfire_after: Option<$crate::jobs::Time>,
            overlap: Option<$crate::jobs::Parsed<$crate::jobs::OverlapRule>>,
            jitter: Option<$crate::jobs::Time>,
            retry: Option<$crate::jobs::RetryRules>,
            breaker: Option<$crate::jobs::Breaker>,
            once: Option<bool>,
            in_doubt: Option<$crate::jobs::Parsed<$crate::jobs::InDoubtRule>>,
            history: Option<$crate::jobs::History>,
        }

        impl $name {
            /// With `defaults` where it says nothing.
            pub(crate) fn rules(&self, defaults: &$crate::jobs::Rules) -> $crate::jobs::Rules {
                let defaults = defaults.clone();
                $crate::jobs::Rules {
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

pub(crate) use with_rules;

with_rules!(Defaults {});

/// A key, and what is wrong with it.
pub(crate) type Complaint = (&'static str, String);

/// Checks each table of `raws` by itself, and that no two have one name (and shard).
pub(crate) fn check_each<R, J>(
    text: &str,
    raws: Vec<Spanned<R>>,
    check: impl Fn(R) -> Result<J, Complaint>,
    id: impl Fn(&J) -> (String, u32),
) -> Result<Vec<J>, String> {
    let mut names = HashSet::new();
    let mut jobs = Vec::new();
    for raw in raws {
        let at = raw.span().start;
        let table = at..file_end_of_table(text, at);
        let complain = |key: &str, what: &str| {
            let at = key_in(text, table.clone(), key).unwrap_or(at);
            format!("line {}, key `{key}`: {what}", line(text, at))
        };
        let job = check(raw.into_inner()).map_err(|(key, what)| complain(key, &what))?;
        if !names.insert(id(&job)) {
            return Err(complain(
                "name",
                "there is a job of this name (and shard) above",
            ));
        }
        jobs.push(job);
    }
    Ok(jobs)
}

/// What serde says about a file, with its place.
pub(crate) fn said(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start);
    format!("{}: {}", place(text, at), unquoted(error.message()))
}

/// What serde says without the value, which it quotes: `invalid type: string, expected a sequence`.
fn unquoted(message: &str) -> String {
    let told = message.split_once(": ").and_then(|(kind, rest)| {
        let (found, expected) = rest.rsplit_once(", expected ")?;
        let found = found.split(['"', '`']).next()?.trim_end();
        let quotes = matches!(kind, "invalid type" | "invalid value");
        quotes.then(|| format!("{kind}: {found}, expected {expected}"))
    });
    told.unwrap_or_else(|| message.to_owned())
}

/// The name of a job.
pub(crate) fn name_of(name: Option<String>) -> Result<String, Complaint> {
    let name = name.unwrap_or_default();
    if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
        return Err((
            "name",
            "a job needs a name of 1 to 128 bytes without control characters".into(),
        ));
    }
    Ok(name)
}

/// The keys of a job that say when.
pub(crate) struct When {
    pub(crate) cron: Option<Parsed<Cron>>,
    pub(crate) every: Option<Time>,
    pub(crate) at: Option<At>,
    pub(crate) after: Option<Time>,
    /// The sentence that names those of them that the file may have.
    pub(crate) one: &'static str,
}

impl When {
    pub(crate) fn schedule(self, rules: &Rules) -> Result<Schedule, Complaint> {
        let schedule = self.one_of(rules)?;
        let Some(jitter) = rules.jitter else {
            return Ok(schedule);
        };
        match schedule.jitter_max() {
            Some(max) if jitter.0 > max => {
                let what = format!("longer than the {max:?} from one fire time to another");
                Err(("jitter", what))
            }
            _ => Ok(schedule),
        }
    }

    fn one_of(self, rules: &Rules) -> Result<Schedule, Complaint> {
        let one = self.one;
        match (self.cron, self.every, self.at, self.after) {
            (Some(cron), None, None, None) => {
                let zone = rules.timezone.clone();
                let zone = zone.map_or(Zone::UTC, |zone| zone.0.0);
                Ok(Schedule::cron(cron.0, zone))
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
}

impl RetryRules {
    pub(crate) fn retry(self) -> Retry {
        Retry {
            attempts: self.attempts.0,
            base: self.base.map_or(Duration::from_secs(1), |time| time.0),
            cap: self.cap.map_or(Duration::from_secs(30), |time| time.0),
        }
    }
}

impl Breaker {
    pub(crate) fn rules(self) -> BreakerRules {
        let defaults = BreakerRules::default();
        BreakerRules {
            failures: self.failures.map_or(defaults.failures, |count| count.0),
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
        None => key_around(text, start, at),
    };
    match key {
        "" => format!("line {}", line(text, at)),
        key => format!("line {}, key `{key}`", line(text, at)),
    }
}

/// The key that begins here, or else, in an array, the one that the line begins with.
fn key_around(text: &str, line_start: usize, at: usize) -> &str {
    let line = text[line_start..].trim_start();
    match is_key(&text[at..]) || line.starts_with('[') {
        true => word(&text[at..]),
        false if is_key(line) => word(line),
        false => "",
    }
}

fn is_key(text: &str) -> bool {
    text[word(text).len()..]
        .trim_start()
        .starts_with(['=', '.'])
}

fn word(text: &str) -> &str {
    text.split(|c| !is_bare(c)).next().unwrap_or_default()
}

fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

pub(crate) fn line(text: &str, at: usize) -> usize {
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
pub(crate) struct Time(pub(crate) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        parse_duration(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A time that is not zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lasting(pub(crate) Duration);

impl<'de> Deserialize<'de> for Lasting {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Time(time) = Time::deserialize(from)?;
        match time.is_zero() {
            true => Err(D::Error::custom("a time longer than zero")),
            false => Ok(Self(time)),
        }
    }
}

/// A number of things that is not zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Count(pub(crate) u32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match i64::deserialize(from)?.try_into() {
            Ok(count) if count > 0 => Ok(Self(count)),
            _ => Err(D::Error::custom("a number from 1 to 4294967295")),
        }
    }
}

/// How many firings of a job are kept for whoever looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct History(pub(crate) usize);

impl History {
    const MAX: usize = 10_000;
}

impl<'de> Deserialize<'de> for History {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match i64::deserialize(from)?.try_into() {
            Ok(firings) if firings <= Self::MAX => Ok(Self(firings)),
            _ => Err(D::Error::custom("0 to 10000 firings")),
        }
    }
}

/// A point in time, as a string or as TOML's own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct At(pub(crate) u64);

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(
            untagged,
            expecting = "a time is RFC 3339: 2026-12-01T03:00:00Z, with or without quotes"
        )]
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
pub(crate) struct Parsed<T>(pub(crate) T);

impl<'de, T: FromStr<Err: std::fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ZoneName(pub(crate) Zone);

impl FromStr for ZoneName {
    type Err = scheduler::UnknownZone;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Zone::named(text).map(Self)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MisfireRule(pub(crate) Misfire);

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
pub(crate) struct OverlapRule(pub(crate) Overlap);

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
pub(crate) struct InDoubtRule(pub(crate) InDoubt);

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

/// A value of the file as JSON. TOML's times are strings there; what JSON has no number for is refused.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Json(pub(crate) serde_json::Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = toml::Value::deserialize(from)?;
        json_of(value).map(Self).map_err(D::Error::custom)
    }
}

fn json_of(value: toml::Value) -> Result<serde_json::Value, &'static str> {
    use serde_json::Value;
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)
            .map(Value::Number)
            .ok_or("JSON has no inf and no nan")?,
        toml::Value::Boolean(is) => Value::Bool(is),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(items) => {
            let items: Result<_, _> = items.into_iter().map(json_of).collect();
            Value::Array(items?)
        }
        toml::Value::Table(table) => {
            let mut object = serde_json::Map::new();
            for (key, value) in table {
                object.insert(key, json_of(value)?);
            }
            Value::Object(object)
        }
    })
}
