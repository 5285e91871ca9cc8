//! `mainstay token`: makes tokens, and tells what is in one.

use std::path::{Path, PathBuf};

use canon_ser::json::{self, Integers};
use clap::{Args, Subcommand};
use idem_store::token::{
    Compact, EPOCH_MS, FileWorkers, FingerprintHalf, Generator, GeneratorOptions, Id, Token,
};
use idem_store::utc_day;
use serde::Serialize;

use crate::Verdict;

/// Makes ids for effects that must not happen twice, and tells what is in one
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mainstay token new --fingerprint 'charge order-17'\n  \
                  mainstay token new --request order.json --json\n  \
                  mainstay token inspect SNFZ4mrqXD0AAQL9_v-Afw"
)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes tokens: a Snowflake id that is given once, bound to a request's fingerprint
    ///
    /// Every process on this machine leases a worker id in the directory of --dir, which also remembers how far
    /// the clock got: no id repeats after a crash or when the clock goes back. Machines that serve one target need
    /// different --workers.
    #[command(
        after_help = "Example:\n  mainstay token new --count 3 --fingerprint 'charge order-17'"
    )]
    New(NewArgs),
    /// Tells a token's time, worker and sequence, and whether it belongs to a request
    ///
    /// Exit code 0: it is a token, and belongs to the request if one is given. 1: it belongs to another. 2: it is
    /// no token. A compact one (11 characters) can only be read with its request, and a wrong one may go unnoticed.
    #[command(
        after_help = "Example:\n  mainstay token inspect --fingerprint 'charge order-17' SNFZ4mrqXD0AAQL9_v-Afw"
    )]
    Inspect(InspectArgs),
}

#[derive(Debug, Args)]
struct NewArgs {
    #[command(flatten)]
    of: Of,
    /// How many
    #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,
    /// 11 characters instead of 22; can collide: 2.7 % among a billion
    #[arg(long)]
    compact: bool,
    /// Where worker ids are leased [default: mainstay/token-workers in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, env = "MAINSTAY_TOKEN_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The worker ids of this machine
    #[arg(long, value_name = "FIRST-LAST", default_value = "0-1023", value_parser = worker_range)]
    workers: (u16, u16),
}

#[derive(Debug, Args)]
struct InspectArgs {
    #[command(flatten)]
    of: Of,
    /// The token
    #[arg(allow_hyphen_values = true)]
    token: String,
}

/// What a token is bound to.
#[derive(Debug, Args)]
struct Of {
    /// The request's fingerprint, as text
    #[arg(long, value_name = "TEXT", conflicts_with = "request")]
    fingerprint: Option<String>,
    /// The request itself, JSON: its canonical SHA-256 is the fingerprint
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// Where the ids' time starts, Unix milliseconds
    #[arg(long, value_name = "MS", default_value_t = EPOCH_MS)]
    epoch_ms: u64,
    /// Print one JSON object a line for machines
    #[arg(long)]
    json: bool,
}

/// Runs the command. The error is a sentence for stderr.
pub(crate) fn run(args: &TokenArgs) -> Result<Verdict, String> {
    match &args.action {
        Action::New(args) => new(args),
        Action::Inspect(args) => inspect(args),
    }
}

fn new(args: &NewArgs) -> Result<Verdict, String> {
    let half = args.of.half()?.unwrap_or_else(|| FingerprintHalf::of(b""));
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => state_dir()?,
    };
    let (first, last) = args.workers;
    let workers = FileWorkers::new(&dir).range(first..=last);
    let options = GeneratorOptions::new().epoch_ms(args.of.epoch_ms);
    let said = |error: idem_store::token::TokenError| format!("{}: {error}", dir.display());
    let mut generator = Generator::open(&workers, options).map_err(said)?;
    for _ in 0..args.count {
        let token = Token::new(generator.next_id().map_err(said)?, half);
        let text = if args.compact {
            token.compact().to_string()
        } else {
            token.to_string()
        };
        if args.of.json {
            let found = Found::new(&text, token.id(), half, args.of.epoch_ms, None);
            outln!("{}", found.to_json()?);
        } else {
            outln!("{text}");
        }
    }
    Ok(Verdict::Good)
}

fn inspect(args: &InspectArgs) -> Result<Verdict, String> {
    let given = args.of.half()?;
    let text = &args.token;
    let (id, half, matches) = if text.len() == Compact::CHARS {
        let compact: Compact = text.parse().map_err(in_text(text))?;
        let half = given.ok_or(
            "a compact token is read with what it is bound to: give --fingerprint or --request",
        )?;
        let Some(id) = compact.id(half) else {
            return not_of_it(args);
        };
        (id, half, None)
    } else {
        let token: Token = text.parse().map_err(in_text(text))?;
        let matches = given.map(|given| given == token.half());
        (token.id(), token.half(), matches)
    };
    let found = Found::new(text, id, half, args.of.epoch_ms, matches);
    if args.of.json {
        outln!("{}", found.to_json()?);
    } else {
        found.print();
    }
    Ok(match matches {
        Some(false) => Verdict::Negative,
        _ => Verdict::Good,
    })
}

fn in_text(text: &str) -> impl Fn(idem_store::token::TokenError) -> String {
    move |error| format!("{}: {error}", text.escape_debug())
}

/// A compact token that cannot have been made for the request.
fn not_of_it(args: &InspectArgs) -> Result<Verdict, String> {
    if args.of.json {
        let answer = serde_json::json!({ "token": args.token, "matches": false });
        outln!("{answer}");
    } else {
        outln!("it belongs to another request");
    }
    Ok(Verdict::Negative)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Found<'a> {
    token: &'a str,
    /// As text: JSON readers lose digits of such numbers.
    id: String,
    time_ms: u64,
    time: String,
    worker: u16,
    sequence: u16,
    fingerprint_half: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<bool>,
}

impl<'a> Found<'a> {
    fn new(
        token: &'a str,
        id: Id,
        half: FingerprintHalf,
        epoch_ms: u64,
        matches: Option<bool>,
    ) -> Self {
        let time_ms = id.unix_ms(epoch_ms);
        Self {
            token,
            id: id.as_u64().to_string(),
            time_ms,
            time: rfc3339(time_ms),
            worker: id.worker(),
            sequence: id.sequence(),
            fingerprint_half: format!("{half:?}"),
            matches,
        }
    }

    fn to_json(&self) -> Result<String, String> {
        json::to_string(self).map_err(|error| error.to_string())
    }

    fn print(&self) {
        outln!("time         {} ({} Unix ms)", self.time, self.time_ms);
        outln!("worker       {}", self.worker);
        outln!("sequence     {}", self.sequence);
        outln!("id           {}", self.id);
        outln!("fingerprint  {}", self.fingerprint_half);
        match self.matches {
            Some(true) => outln!("it belongs to this request"),
            Some(false) => outln!("it belongs to another request"),
            None => {}
        }
    }
}

impl Of {
    fn half(&self) -> Result<Option<FingerprintHalf>, String> {
        if let Some(text) = &self.fingerprint {
            return Ok(Some(FingerprintHalf::of(text.as_bytes())));
        }
        let Some(file) = &self.request else {
            return Ok(None);
        };
        let name = file.display();
        let text = std::fs::read(file).map_err(|error| format!("{name}: {error}"))?;
        let digest = canon_ser::digest::sha256_text(&text, Integers::Exact);
        let digest = digest.map_err(|error| format!("{name}: {error}"))?;
        Ok(Some(FingerprintHalf::of(&digest)))
    }
}

fn worker_range(text: &str) -> Result<(u16, u16), String> {
    let parse = |number: &str| number.parse().ok().filter(|worker| *worker <= 1023);
    let range = match text.split_once('-') {
        Some((first, last)) => parse(first).zip(parse(last)),
        None => parse(text).map(|worker| (worker, worker)),
    };
    let ascending = range.filter(|(first, last)| first <= last);
    ascending.ok_or_else(|| "a worker id (0 to 1023) or a range such as 0-63".to_owned())
}

fn state_dir() -> Result<PathBuf, String> {
    let from = |name: &str, below: &str| {
        let dir = std::env::var_os(name).filter(|dir| Path::new(dir).is_absolute())?;
        Some(Path::new(&dir).join(below))
    };
    let dir = from("XDG_STATE_HOME", "mainstay/token-workers")
        .or_else(|| from("HOME", ".local/state/mainstay/token-workers"));
    dir.ok_or_else(|| {
        "there is no home directory: say with --dir where to lease workers".to_owned()
    })
}

fn rfc3339(unix_ms: u64) -> String {
    let day = utc_day(unix_ms);
    let (seconds, ms) = (unix_ms / 1_000 % 86_400, unix_ms % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{day}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}
