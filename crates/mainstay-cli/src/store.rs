//! `mainstay store`: look at an embedded store, check it, repair it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use idem_store::{Bad, Lookup, Repair, Report, Snapshot, Stats, Unresolved};
use serde_json::{Value, json};

/// Looks at the store of a gateway or a service, checks it, repairs it
///
/// DIR is the store's directory, or the --data directory of a gateway. All but repair only read, also while the store
/// is in use. Exit code 0: whole, found, repaired. 1: damaged, not found. 2: wrong usage or a failure.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  mainstay store verify ./mainstay-data\n  \
                  mainstay store get ./mainstay-data            every key that is in doubt\n  \
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
        Command::Get { at, key, hex } => {
            let key = key.map(|key| key_bytes(key, hex)).transpose();
            let found = at.find().and_then(|dir| get(&dir, key?.as_deref()));
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
        let inner = self.dir.join("store");
        for dir in [&self.dir, &inner] {
            if has_segments(dir) {
                return Ok(dir.clone());
            }
        }
        Err(format!(
            "there is no store in {}: give the directory that holds the .seg files",
            self.dir.display()
        ))
    }
}

fn has_segments(dir: &Path) -> bool {
    let Ok(entries) = dir.read_dir() else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.path().extension().is_some_and(|ext| ext == "seg"))
}

fn verify(dir: &Path) -> Result<Answer, String> {
    let report = idem_store::verify(dir).map_err(|error| error.to_string())?;
    Ok(Answer {
        text: verify_text(&report),
        json: json!({
            "ok": report.ok,
            "segments": report.segments,
            "records": report.records,
            "bad": bad_json(&report.bad),
            "torn_bytes": report.torn_bytes,
            "in_use": report.in_use,
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
            "the last batch was cut short by a crash ({torn} bytes): it was never acknowledged\n"
        );
    }
    if report.in_use {
        text += "a process has the store open: this is what was on the disk while it went on\n";
    }
    if !report.ok {
        text += "see what would be lost with: mainstay store repair --dry-run DIR\n";
    }
    text
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
    let snapshot = Snapshot::read(dir).map_err(|error| error.to_string())?;
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
    Ok(Answer {
        text: format!(
            "keys with an outcome  {keys_stored}\nkeys in doubt         {keys_in_doubt}\n\
             records               {records}\nsegments              {segments}\n\
             bytes on the disk     {segment_bytes}\nbytes still needed    {live_bytes}\n"
        ),
        json: json!({
            "keys_stored": keys_stored,
            "keys_in_doubt": keys_in_doubt,
            "records": records,
            "segments": segments,
            "segment_bytes": segment_bytes,
            "live_bytes": live_bytes,
        }),
        negative: false,
    })
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
    let snapshot = Snapshot::read(dir).map_err(|error| error.to_string())?;
    warn_of_damage(&snapshot);
    let Some(key) = key else {
        return Ok(in_doubt(&snapshot.unresolved()));
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |since| since.as_millis() as u64);
    Ok(match snapshot.get(key, now_ms) {
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
        let key = printable(&doubt.key);
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
    let done = idem_store::repair(dir, dry_run).map_err(|error| error.to_string())?;
    Ok(Answer {
        text: repair_text(&done, dry_run),
        json: json!({
            "changed": done.changed,
            "bad": bad_json(&done.bad),
            "records_salvaged": done.records_salvaged,
            "bytes_lost": done.bytes_lost,
            "backups": done.backups,
        }),
        negative: dry_run && !done.bad.is_empty(),
    })
}

fn repair_text(done: &Repair, dry_run: bool) -> String {
    if done.bad.is_empty() {
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
    for backup in &done.backups {
        writeln!(text, "the damaged file is kept as {backup}").expect("a string grows");
    }
    text
}

fn key_bytes(key: String, is_hex: bool) -> Result<Vec<u8>, String> {
    if !is_hex {
        return Ok(key.into_bytes());
    }
    let wrong = || "a hexadecimal key is an even number of digits 0-9 a-f".to_owned();
    if !key.is_ascii() || !key.len().is_multiple_of(2) {
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
