//! The configuration file of `mainstay gateway`: the gateway's own keys, and `[[job]]` tables as `mainstay schedule` has them, with
//! a command instead of a program. Errors name the line and the key, and quote no value: it may be a secret.

use std::io;
use std::path::Path;
use std::time::Duration;

use ::gateway::server::{CommandJob, Config, DevicePattern};
use scheduler::Cron;
use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;

use crate::jobs::{
    At, Complaint, Defaults, Json, Parsed, Rules, Time, When, check_each, line, name_of, said,
    with_rules,
};

/// The part of the file that is not [`Config`]'s.
#[derive(Deserialize)]
struct Tables {
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
    command: Option<Json>,
    devices: Option<String>,
});

/// A configuration file.
pub(super) struct File {
    name: String,
    text: String,
    config: Config,
    /// Whether it names the data directory.
    pub(super) names_data: bool,
}

impl File {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        let (config, names_data) = parse(&text).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{name}, {error}"))
        })?;
        Ok(Self {
            name,
            text,
            config,
            names_data,
        })
    }

    pub(super) fn config(&self) -> Config {
        self.config.clone()
    }

    /// What [`Config::check`] complains of, with the place of the key that it begins with; none when the file does not
    /// have that key.
    pub(super) fn placed(&self, what: &str) -> Option<String> {
        let at = at_of_key(&self.text, what.split(' ').next()?)?;
        Some(format!(
            "{}, line {}: {what}",
            self.name,
            line(&self.text, at)
        ))
    }
}

/// Where the value of a dotted key begins.
fn at_of_key(text: &str, key: &str) -> Option<usize> {
    let file = DeTable::parse(text).ok()?;
    let mut table = file.get_ref();
    let mut names = key.split('.').peekable();
    loop {
        let value = table.get(names.next()?)?;
        if names.peek().is_none() {
            return Some(value.span().start);
        }
        table = value.get_ref().as_table()?;
    }
}

fn parse(text: &str) -> Result<(Config, bool), String> {
    let mut keys = DeTable::parse(text).map_err(|error| said(text, &error))?;
    let names_data = keys.get_ref().contains_key("data");
    for key in ["defaults", "job"] {
        keys.get_mut().remove(key);
    }
    let config = Config::deserialize(toml::de::Deserializer::from(keys));
    let mut config = config.map_err(|error| said(text, &error))?;
    let tables: Tables = toml::from_str(text).map_err(|error| said(text, &error))?;
    let defaults = tables.defaults.rules(&Rules::default());
    let timeout_max = Duration::from_millis(config.commands.timeout_ms_max);
    let check = |raw| check(raw, &defaults, timeout_max);
    config.jobs = check_each(text, tables.job, check, |job| (job.name.clone(), 0))?;
    Ok((config, names_data))
}

fn check(raw: RawJob, defaults: &Rules, timeout_max: Duration) -> Result<CommandJob, Complaint> {
    let rules = raw.rules(defaults);
    if rules.timeout.is_some_and(|time| time.0 > timeout_max) {
        let what = format!("longer than {timeout_max:?}, the file's commands.timeout_ms_max");
        return Err(("timeout", what));
    }
    if rules.once.is_some() {
        let what = "a gateway's job always runs once on each device; leave it out";
        return Err(("once", what.into()));
    }
    let name = name_of(raw.name)?;
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        // It is a part of a key that is an HTTP header.
        let what = "the name of a gateway's job has visible ASCII characters only";
        return Err(("name", what.into()));
    }
    let when = When {
        cron: raw.cron,
        every: raw.every,
        at: raw.at,
        after: None,
        one: "a gateway's job has one of `cron`, `every` and `at`",
    };
    let schedule = when.schedule(&rules)?;
    let what = "a gateway's job needs a `command` for its devices: { valve = \"open\" }";
    let command = raw.command.ok_or(("command", what.to_owned()))?;
    let what = "a gateway's job needs `devices`: an id, or \"prefix*\"";
    let devices = raw.devices.ok_or(("devices", what.to_owned()))?;
    let devices = DevicePattern::parse(&devices).map_err(|what| ("devices", what.to_owned()))?;
    let mut job = CommandJob::new(name, schedule, devices, command.0.to_string());
    apply(&rules, &mut job);
    Ok(job)
}

fn apply(rules: &Rules, job: &mut CommandJob) {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    job.timeout_ms = rules.timeout.map(|time| ms(time.0));
    job.breaker = rules.breaker.map(|breaker| breaker.rules());
    super::set(&mut job.misfire, rules.misfire.map(|rule| rule.0.0));
    super::set(
        &mut job.misfire_after,
        rules.misfire_after.map(|time| time.0),
    );
    super::set(&mut job.overlap, rules.overlap.map(|rule| rule.0.0));
    super::set(&mut job.jitter, rules.jitter.map(|time| time.0));
    super::set(&mut job.retry, rules.retry.map(|retry| retry.retry()));
    super::set(&mut job.in_doubt, rules.in_doubt.map(|rule| rule.0.0));
    super::set(&mut job.history_max, rules.history.map(|history| history.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
shards = 2
[commands]
timeout_ms = 1000
[defaults]
timezone = "Europe/Berlin"
[[job]]
name = "open"
cron = "0 6 * * *"
command = { valve = "open", at = 2026-12-01, steps = [1, 2.5, true] }
devices = "pump-*"
timeout = "10s"
misfire = "skip"
in_doubt = "skip"
[[job]]
name = "ask"
every = "1m"
command = "status"
devices = "pump-7"
"#;

    #[test]
    fn a_file_with_jobs_reads() {
        let (config, names_data) = parse(GOOD).unwrap();
        assert_eq!((config.shards, names_data), (2, false));
        assert_eq!(config.check(), Ok(()));
        let [open, ask] = &config.jobs[..] else {
            panic!("{:?}", config.jobs)
        };
        assert_eq!(open.schedule.to_string(), "cron 0 6 * * * Europe/Berlin");
        let command = r#"{"at":"2026-12-01","steps":[1,2.5,true],"valve":"open"}"#;
        assert_eq!(open.payload, command);
        assert_eq!(open.devices, DevicePattern::Prefix("pump-".into()));
        assert_eq!(open.timeout_ms, Some(10_000));
        assert_eq!(open.in_doubt, scheduler::InDoubt::Skip);
        assert_eq!(ask.payload, "\"status\"");
        assert_eq!(ask.devices, DevicePattern::Id("pump-7".into()));
        assert_eq!(ask.in_doubt, scheduler::InDoubt::Rerun);
        assert_eq!(parse("").unwrap(), (Config::default(), false));
        assert!(parse("data = \"x\"").unwrap().1);
    }

    #[test]
    fn what_lies_out_of_range_has_its_place_where_the_file_says_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.toml");
        let text =
            "[commands]\ntimeout_ms = 1000\n\n[breaker]\ncalls = 7\nfailures_percent = 101\n";
        std::fs::write(&path, text).unwrap();
        let file = File::read(&path).unwrap();
        let what = file.config().check().unwrap_err();
        let placed = file.placed(&what).unwrap();
        let expected = format!("{}, line 6: breaker.failures_percent is", path.display());
        assert!(placed.starts_with(&expected), "{placed}");
        assert_eq!(file.placed("devices.known_max is 0"), None);
        assert_eq!(file.placed("a sentence"), None);
    }

    #[test]
    fn errors_name_the_line_and_the_key_and_not_the_value() {
        for (from, to, expected) in [
            (
                "shards = 2",
                "shards = \"two\"",
                "line 2, key `shards`: invalid",
            ),
            ("shards", "shrads", "line 2, key `shrads`: unknown field"),
            ("timeout_ms", "timeout", "line 4, key `timeout`: unknown"),
            (
                "Europe/Berlin",
                "Europe/sesam",
                "line 6, key `timezone`: no such",
            ),
            ("0 6 * * *", "sesame", "line 9, key `cron`: not a cron"),
            ("\"pump-*\"", "\"*sesame\"", "line 11, key `devices`: a `*`"),
            (
                "devices = \"pump-7\"",
                "",
                "line 15, key `devices`: a gateway's",
            ),
            (
                "command = \"status\"",
                "",
                "line 15, key `command`: a gateway's",
            ),
            ("every = \"1m\"", "", "line 16, key `name`: a gateway's"),
            (
                "every = \"1m\"",
                "after = \"1m\"",
                "line 17, key `after`: unknown",
            ),
            (
                "\"10s\"",
                "\"2h\"",
                "line 12, key `timeout`: longer than 3600s, the",
            ),
            (
                "\"ask\"",
                "\"sesame a\"",
                "line 16, key `name`: the name of",
            ),
            ("2.5", "nan", "line 10, key `command`: JSON has no"),
            ("\"ask\"", "\"open\"", "line 16, key `name`: there is a job"),
            (
                "misfire",
                "once = true\nmisfire",
                "line 13, key `once`: a gateway's",
            ),
        ] {
            let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.starts_with(expected), "{from} -> {to}: {error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }
}
