//! `mainstay store`: look at an embedded store, check it, repair it.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use gateway::proto::DeviceId;
use gateway::server::{device_and_key, store_key};
use idem_store::{Bad, IndexReport, Lookup, Repair, Report, Snapshot, Stats, Unresolved};
use serde_json::{Value, json};

/// Looks at the store of a gateway or a service, checks it, repairs it
///
/// DIR is the store's directory, or the --data directory of a gateway. All but repair only read, also while the store
/// is in use. Exit code 0: whole, found, repaired. 1: damaged, not found. 2: wrong usage or a failure.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  mainstay store verify ./mainstay-data\n  \
                  mainstay store get ./mainstay-data            every key that is in doubt\n  \
                  mainstay store get --device sensor-1 ./mainstay-data order-17\n  \
                  mainstay store repair --dry-run ./mainstay-data")]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Checks every byte of the log: checksums, sequences, missing segments
    Verify(Dir),
    /// Counts keys, segments and bytes
    Stats(Dir),
    /// Shows what is known of a key; without KEY: every key that is in doubt
    Get {
        #[command(flatten)]
        at: Dir,
        /// The key, as text
        key: Option<String>,
        /// KEY is the Idempotency-Key of a command that a gateway sent to this device
        #[arg(long, value_name = "ID", requires = "key", conflicts_with = "hex")]
        device: Option<String>,
        /// KEY is hexadecimal
        #[arg(long, requires = "key")]
        hex: bool,
    },
    /// Makes a damaged store usable again; says what is lost, keeps copies of what it replaces
    Repair {
        #[command(flatten)]
        at: Dir,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Dir {
    /// The store's directory, or the --data directory of a gateway
    dir: PathBuf,
    /// Print one JSON object for machines
    #[arg(long)]
    json: bool,
}

/// What a command prints, and whether its result is a negative one.
struct Answer {
    text: String,
    json: Value,
    negative: bool,
}

pub(crate) fn run(args: StoreArgs) -> ExitCode {
    let (as_json, answer) = match args.command {
        Command::Verify(at) => (at.json, at.find().and_then(|dir| verify(&dir))),
        Command::Stats(at) => (at.json, at.find().and_then(|dir| stats(&dir))),
        Command::Get {
            at,
            key,
            device,
            hex,
        } => {
            let key = key.map(|key| match &device {
                Some(device) => gateway_key(device, &key),
                None => key_bytes(key, hex),
            });
            // What is wrong with the key is said first: it is so in every store.
            let found = key
                .transpose()
                .and_then(|key| get(&at.find()?, key.as_deref()));
            (at.json, found)
        }
        Command::Repair { at, dry_run } => {
            (at.json, at.find().and_then(|dir| repair(&dir, dry_run)))
        }
    };
    match answer {
        Ok(answer) => {
            let text = if as_json {
                format!("{}\n", answer.json)
            } else {
                answer.text
            };
            // A reader that closed the pipe has what it wanted.
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
            ExitCode::from(u8::from(answer.negative))
        }
        Err(error) => {
            eprintln!("mainstay: {error}");
            ExitCode::from(2)
        }
    }
}

impl Dir {
    /// The directory with the segments: the given one, or `store` in it.
    fn find(&self) -> Result<PathBuf, String> {
        let names = names_in(&self.dir)?;
        if names.iter().any(|name| is_segment(name)) {
            return Ok(self.dir.clone());
        }
        if names.iter().any(|name| name == "store") {
            let inner = self.dir.join("store");
            if names_in(&inner)?.iter().any(|name| is_segment(name)) {
                return Ok(inner);
            }
        }
        let dir = self.dir.display();
        Err(match names.iter().any(|name| name == "index.snap") {
            true => format!(
                "the store in {dir} has lost its segments: only its index snapshot is there, restore a backup"
            ),
            false => {
                format!("there is no store in {dir}: give the directory that holds the .seg files")
            }
        })
    }
}

/// The names in a directory; why it cannot be looked into, if so.
fn names_in(dir: &Path) -> Result<Vec<OsString>, String> {
    let entries = std::fs::read_dir(dir).and_then(|entries| {
        let names = entries.map(|entry| Ok(entry?.file_name()));
        names.collect::<io::Result<Vec<_>>>()
    });
    let shown = dir.display();
    entries.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("there is no directory {shown}"),
        io::ErrorKind::NotADirectory => {
            format!("{shown} is not a directory: give the one that holds the .seg files")
        }
        io::ErrorKind::PermissionDenied => format!(
            "{shown} may not be read by this user, so that nothing is known of a store in it: {error}"
        ),
        _ => format!("{shown} cannot be read: {error}"),
    })
}

fn is_segment(name: &OsStr) -> bool {
    let digits = name.to_str().and_then(|name| name.strip_suffix(".seg"));
    digits.is_some_and(|digits| digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// An error of the store, with the directory that it is about.
fn of(dir: &Path) -> impl Fn(idem_store::Error) -> String {
    move |error| format!("{}: {error}", dir.display())
}

fn verify(dir: &Path) -> Result<Answer, String> {
    let report = idem_store::verify(dir).map_err(of(dir))?;
    Ok(Answer {
        text: verify_text(&report),
        json: json!({
            "ok": report.ok,
            "segments": report.segments,
            "records": report.records,
            "bad": bad_json(&report.bad),
            "torn_bytes": report.torn_bytes,
            "in_use": report.in_use,
            "index": report.index.as_ref().map(index_json),
        }),
        negative: !report.ok,
    })
}

fn verify_text(report: &Report) -> String {
    let verdict = if report.ok { "whole" } else { "DAMAGED" };
    let Report {
        segments, records, ..
    } = report;
    let mut text = format!("{verdict}: {records} records in {segments} segments\n");
    bad_text(&report.bad, &mut text);
    if report.torn_bytes > 0 && !report.in_use {
        let torn = report.torn_bytes;
        text += &format!(
            "{torn} bytes behind the end of the log: left of a batch that a crash cut short and that was never \
             acknowledged, or of what the file held before; nothing is lost\n"
        );
    }
    if report.in_use {
        text += "a process has the store open: this is what was on the disk while it went on\n";
    }
    if let Some(index) = &report.index {
        text += &index_text(index);
    }
    if !report.ok {
        text += "see what would be lost with: mainstay store repair --dry-run DIR\n";
    }
    text
}

fn index_text(index: &IndexReport) -> String {
    let IndexReport {
        keys,
        bytes,
        segment,
        offset,
        ..
    } = index;
    match &index.bad {
        Some(bad) => format!(
            "the index snapshot cannot be used: {bad}\n\
             nothing is lost with it: opening reads the whole log, a repair removes it\n"
        ),
        None if *bytes == 0 => "the index snapshot is older than the log: not used\n".to_owned(),
        None => format!(
            "index snapshot of {keys} keys, {bytes} bytes: opening reads the log from segment {segment:010}, offset {offset} on\n"
        ),
    }
}

fn index_json(index: &IndexReport) -> Value {
    json!({
        "keys": index.keys,
        "bytes": index.bytes,
        "segment": index.segment,
        "offset": index.offset,
        "bad": index.bad,
    })
}

fn bad_text(bad: &[Bad], text: &mut String) {
    for bad in bad {
        let Bad {
            segment,
            offset,
            reason,
            ..
        } = bad;
        writeln!(text, "segment {segment:010}, offset {offset}: {reason}").expect("a string grows");
    }
}

fn bad_json(bad: &[Bad]) -> Value {
    let bad = bad
        .iter()
        .map(|bad| json!({ "segment": bad.segment, "offset": bad.offset, "reason": bad.reason }));
    bad.collect()
}

fn stats(dir: &Path) -> Result<Answer, String> {
    let snapshot = Snapshot::read(dir).map_err(of(dir))?;
    warn_of_damage(&snapshot);
    let Stats {
        keys_stored,
        keys_in_doubt,
        records,
        segments,
        segment_bytes,
        live_bytes,
        ..
    } = snapshot.stats();
    let retention = Retention::of(&snapshot, now_ms());
    let index = snapshot.index().map(index_text).unwrap_or_default();
    Ok(Answer {
        text: format!(
            "keys with an outcome  {keys_stored}\nkeys in doubt         {keys_in_doubt}\n\
             records               {records}\nsegments              {segments}\n\
             bytes on the disk     {segment_bytes}\nbytes still needed    {live_bytes}\n{}{index}",
            retention.text()
        ),
        json: json!({
            "keys_stored": keys_stored,
            "keys_in_doubt": keys_in_doubt,
            "records": records,
            "segments": segments,
            "segment_bytes": segment_bytes,
            "live_bytes": live_bytes,
            "retention_bytes": retention.json(),
            "index": snapshot.index().map(index_json),
        }),
        negative: false,
    })
}

/// Bytes of outcomes by how long they are still retained.
#[derive(Default)]
struct Retention {
    expired: u64,
    hour: u64,
    day: u64,
    later: u64,
}

impl Retention {
    fn of(snapshot: &Snapshot, now_ms: u64) -> Self {
        const HOUR_MS: u64 = 3_600_000;
        let mut all = Self::default();
        for (until_ms, bytes) in snapshot.retention_bytes() {
            let group = match until_ms.checked_sub(now_ms) {
                None => &mut all.expired,
                Some(..=HOUR_MS) => &mut all.hour,
                Some(left) if left <= 24 * HOUR_MS => &mut all.day,
                Some(_) => &mut all.later,
            };
            *group += bytes;
        }
        all
    }

    fn text(&self) -> String {
        let Self {
            expired,
            hour,
            day,
            later,
        } = self;
        format!(
            "of outcomes, expired  {expired}\n  for up to an hour   {hour}\n  \
             for up to a day     {day}\n  for longer          {later}\n"
        )
    }

    fn json(&self) -> Value {
        json!({
            "expired": self.expired,
            "hour": self.hour,
            "day": self.day,
            "later": self.later,
        })
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as u64)
}

fn warn_of_damage(snapshot: &Snapshot) {
    let bad = snapshot.bad().len();
    if bad > 0 {
        eprintln!(
            "mainstay: the store is damaged in {bad} places, what is there is left out: run mainstay store verify"
        );
    }
}

fn get(dir: &Path, key: Option<&[u8]>) -> Result<Answer, String> {
    let snapshot = Snapshot::read(dir).map_err(of(dir))?;
    warn_of_damage(&snapshot);
    let Some(key) = key else {
        return Ok(in_doubt(&snapshot.unresolved()));
    };
    let found = snapshot.get(key, now_ms());
    Ok(match found.map_err(of(dir))? {
        Lookup::Stored(stored) => {
            let kind = if stored.is_failure() {
                "failed"
            } else {
                "completed"
            };
            let (token, until_ms) = (stored.token(), stored.retain_until_ms());
            let outcome = printable(stored.outcome());
            let len = stored.outcome().len();
            Answer {
                text: format!(
                    "{kind}, token {token}, replays until {until_ms} (Unix ms), {len} bytes:\n{outcome}\n"
                ),
                json: json!({
                    "state": kind,
                    "token": token,
                    "retain_until_ms": until_ms,
                    "fingerprint": hex(&stored.fingerprint().0),
                    "outcome": outcome,
                    "outcome_hex": hex(stored.outcome()),
                }),
                negative: false,
            }
        }
        Lookup::InDoubt(doubt) => {
            let mut answer = in_doubt(&[doubt]);
            answer.json = answer.json["in_doubt"][0].take();
            answer
        }
        Lookup::Absent | Lookup::InFlight { .. } => Answer {
            text: "not known: never begun, released, forgotten or past its retention\n".to_owned(),
            json: json!({ "state": "absent" }),
            negative: true,
        },
    })
}

fn in_doubt(all: &[Unresolved]) -> Answer {
    let mut text = match all.len() {
        0 => "no key is in doubt\n".to_owned(),
        n => format!("{n} in doubt: the effect was declared and has no outcome\n"),
    };
    let mut list = Vec::new();
    for doubt in all {
        let gateway = device_and_key(&doubt.key);
        let key = match gateway {
            Some((device, key)) => format!("device {} key {key}", printable(device.as_bytes())),
            None => printable(&doubt.key),
        };
        let memo = printable(&doubt.memo);
        let Unresolved {
            token, since_ms, ..
        } = doubt;
        writeln!(
            text,
            "{key}  token {token}, since {since_ms} (Unix ms), memo {memo}"
        )
        .expect("a string grows");
        list.push(json!({
            "state": "in-doubt",
            "key": key,
            "key_hex": hex(&doubt.key),
            "device": gateway.map(|(device, _)| device),
            "idempotency_key": gateway.map(|(_, key)| key),
            "token": token,
            "since_ms": since_ms,
            "fingerprint": hex(&doubt.fingerprint.0),
            "memo": memo,
            "memo_hex": hex(&doubt.memo),
        }));
    }
    Answer {
        text,
        json: json!({ "in_doubt": list }),
        negative: false,
    }
}

fn repair(dir: &Path, dry_run: bool) -> Result<Answer, String> {
    let done = idem_store::repair(dir, dry_run).map_err(of(dir))?;
    Ok(Answer {
        text: repair_text(&done, dry_run),
        json: json!({
            "changed": done.changed,
            "bad": bad_json(&done.bad),
            "records_salvaged": done.records_salvaged,
            "bytes_lost": done.bytes_lost,
            "backups": done.backups,
            "index_removed": done.index_removed,
        }),
        negative: dry_run && (!done.bad.is_empty() || done.index_removed),
    })
}

fn repair_text(done: &Repair, dry_run: bool) -> String {
    if done.bad.is_empty() && !done.index_removed {
        return "whole: there is nothing to repair\n".to_owned();
    }
    let mut text = String::new();
    bad_text(&done.bad, &mut text);
    let Repair {
        records_salvaged,
        bytes_lost,
        ..
    } = done;
    let (keeps, loses) = if dry_run {
        ("would keep", "would give up")
    } else {
        ("kept", "gave up")
    };
    writeln!(
        text,
        "{keeps} {records_salvaged} records of the damaged places, {loses} {bytes_lost} bytes"
    )
    .expect("a string grows");
    if *bytes_lost > 0 {
        text +=
            "a key that was only there is unknown from then on: its effect could happen again\n";
    }
    if done.index_removed {
        text += if dry_run {
            "would remove the index snapshot: nothing is lost with it\n"
        } else {
            "removed the index snapshot: nothing is lost with it\n"
        };
    }
    for backup in &done.backups {
        writeln!(text, "the damaged file is kept as {backup}").expect("a string grows");
    }
    text
}

fn gateway_key(device: &str, key: &str) -> Result<Vec<u8>, String> {
    let device = DeviceId::parse(device.as_bytes()).map_err(|error| error.to_string())?;
    Ok(store_key(device.as_str(), key))
}

fn key_bytes(key: String, is_hex: bool) -> Result<Vec<u8>, String> {
    if !is_hex {
        return Ok(key.into_bytes());
    }
    let wrong = || "a hexadecimal key is an even number of digits 0-9 a-f".to_owned();
    let digits = key.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digits || !key.len().is_multiple_of(2) {
        return Err(wrong());
    }
    (0..key.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&key[at..at + 2], 16).map_err(|_| wrong()))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string grows");
        text
    })
}

/// Bytes as text for a terminal: nothing in them can control it.
fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
