//! `mainstay canon`: canonical bytes, their digests, and whether two documents mean the same.
//!
//! Canonical bytes go to stdout exactly as they are, with no newline added; everything said to people
//! or machines about them ends with one.

mod digest;
mod input;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use canon_ser::json::{self, Integers};
use canon_ser::rules::{RuleBook, RuleSet};
use canon_ser::{Profile, cbor, semantic};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand, ValueEnum};
use serde::Serialize;

use crate::Verdict;
use crate::units::parse_bytes;
use digest::{Hasher, print_digest};
use input::{Keep, in_file, is_stdin, name};

/// Writes canonical JSON or CBOR, checks it, digests it, or compares what two documents mean
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mainstay canon json order.json | sha256sum\n  \
                  mainstay canon cbor --from json --digest blake3 order.json\n  \
                  mainstay canon json --check --json order.json\n  mainstay canon eq left.json right.json"
)]
pub(crate) struct CanonArgs {
    #[command(subcommand)]
    action: Action,
}

/// What is held in memory, for --help.
const MEMORY: &str = "Memory: a document that is in order streams through, however large it is. Held are 2 MB, the \
longest string, and each container as a whole that is larger than 64 KiB and whose keys are out of order (in CBOR also \
one of indefinite length); one out of order and larger than 4 GiB is refused. To put one in order takes two to three times its size: it, a copy to sort it through, and what is \
known of each entry (more than that for entries of few bytes). Held as a whole is the document with --from of the other \
form. --check reads once, and says what is wrong as soon as it has read the string, number or word that is, or of one \
longer than 64 KiB as much again. Otherwise a file is read at least twice and must not change meanwhile, and a pipe is \
copied while it is read, beyond 1 MiB to an unnamed file in TMPDIR, but no more of it than --spool-max; nothing is written \
of a document that cannot be read to its end. With --stream it is read once and nothing is copied.";

#[derive(Debug, Subcommand)]
enum Action {
    /// Canonical JSON (RFC 8785)
    #[command(after_help = format!("{MEMORY}\n\nExamples:\n  echo '{{\"b\": 1e2, \"a\": 1}}' | mainstay canon json\n  \
        mainstay canon json --integers string --digest sha256 orders.json"))]
    Json(FormArgs),
    /// Deterministic CBOR (RFC 8949 section 4.2.1)
    #[command(after_help = format!("{MEMORY}\n\nExample:\n  mainstay canon cbor --from json --digest sha256 order.json"))]
    Cbor(FormArgs),
    /// Do two JSON documents mean the same? Key order, whitespace, escapes and the spelling of numbers do not count
    ///
    /// Exit code 0: the same. 1: they differ, and stdout says where. 2: a document cannot be read. Both documents are
    /// held in memory.
    #[command(
        after_help = "Examples:\n  mainstay canon eq left.json right.json\n  mainstay canon eq --rules telemetry.json left.json right.json\n  \
                      mainstay canon eq --rules book.json --at 2026-07-01T00:00:00Z left.json right.json"
    )]
    Eq(EqArgs),
}

#[derive(Debug, Args)]
struct FormArgs {
    /// The form of the input [default: the form of the output]
    #[arg(long, value_enum)]
    from: Option<Form>,
    /// A frozen profile: jcs/1 or json-utf8/1 for JSON, cbor-core-det/1, cbor-length-first/1 or dag-cbor/1 for CBOR [default: jcs/1, cbor-core-det/1]
    #[arg(long)]
    profile: Option<Profile>,
    /// Integers beyond 2^53 in JSON, which not every reader keeps: refuse them, round them to the nearest double, write them as strings of their digits, or keep all digits (in JSON that is not RFC 8785)
    #[arg(
        long,
        value_enum,
        default_value = "error",
        env = "MAINSTAY_CANON_INTEGERS"
    )]
    integers: Policy,
    /// How deep containers may nest
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128,
        env = "MAINSTAY_CANON_DEPTH_MAX"
    )]
    depth_max: usize,
    /// Print the digest of the canonical bytes, in lowercase hex and a newline, instead of the bytes
    #[arg(long, value_enum)]
    digest: Option<Hash>,
    /// Hash the profile's id in front of the bytes, so that the digest is one under that profile only: the byte FF, the id, the byte 00
    #[arg(long, requires = "digest")]
    tagged: bool,
    /// Write nothing: say whether the input is already canonical (exit code 0) or not (1)
    #[arg(long, conflicts_with = "digest")]
    check: bool,
    /// Read the input once and write while reading. What was written of a document that turns out to be bad stays written; a container whose keys are first out of order beyond its first 64 KiB is refused
    #[arg(long, conflicts_with = "check")]
    stream: bool,
    /// How much of a pipe may be kept for a further reading, or with --from of the other form in memory: bytes, or KiB, MiB, GiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_bytes, env = "MAINSTAY_CANON_SPOOL_MAX")]
    spool_max: u64,
    /// Print one JSON object: with --check {"canonical":bool,"column","line","offset","pointer","reason"}, with --digest {"algorithm","bytes","digest","profile"} and "tagged", with both "integers" where that policy is not the profile's
    #[arg(long)]
    json: bool,
    /// The input; - is stdin
    #[arg(default_value = "-")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct EqArgs {
    /// Print one JSON object, {"equal":bool,"left","pointer","right"}
    #[arg(long)]
    json: bool,
    /// A rule set or a rule book (JSON): which fields are times or aliases, units, whether null is absence
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    #[command(flatten)]
    depth: Depth,
    /// The time (RFC 3339) whose rules hold; needed with a rule book
    #[arg(long, value_name = "TIME", requires = "rules")]
    at: Option<String>,
    /// The left document; - is stdin
    left: PathBuf,
    /// The right document; - is stdin
    right: PathBuf,
}

/// The limit of `eq`, and whether the command line itself says so: the environment may for other commands.
#[derive(Debug)]
struct Depth {
    max: usize,
    is_given: bool,
}

#[derive(Debug, Args)]
struct DepthArgs {
    /// How deep containers may nest; under --rules always 128
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128,
        env = "MAINSTAY_CANON_DEPTH_MAX"
    )]
    depth_max: usize,
}

impl Args for Depth {
    fn augment_args(command: Command) -> Command {
        DepthArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        DepthArgs::augment_args_for_update(command)
    }
}

impl FromArgMatches for Depth {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Depth, clap::Error> {
        Ok(Depth {
            max: DepthArgs::from_arg_matches(matches)?.depth_max,
            is_given: matches.value_source("depth_max") == Some(ValueSource::CommandLine),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Depth::from_arg_matches(matches)?;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Json,
    Cbor,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Policy {
    Error,
    Round,
    String,
    Exact,
}

impl From<Policy> for Integers {
    fn from(policy: Policy) -> Integers {
        match policy {
            Policy::Error => Integers::Error,
            Policy::Round => Integers::Round,
            Policy::String => Integers::String,
            Policy::Exact => Integers::Exact,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Hash {
    Sha256,
    Blake3,
}

/// Runs the command. The error is a sentence for stderr.
pub(crate) fn run(args: &CanonArgs) -> Result<Verdict, String> {
    match &args.action {
        Action::Json(args) => write_form(Form::Json, args),
        Action::Cbor(args) => write_form(Form::Cbor, args),
        Action::Eq(args) => compare(args),
    }
}

fn write_form(to: Form, args: &FormArgs) -> Result<Verdict, String> {
    let profile = args.profile.unwrap_or(match to {
        Form::Json => Profile::JcsV1,
        Form::Cbor => Profile::CborCoreDetV1,
    });
    if profile.is_json() != (to == Form::Json) {
        return Err(format!("--profile {profile} is not a profile of this form"));
    }
    let from = args.from.unwrap_or(to);
    if args.check && from != to {
        return Err("--check reads the form that it checks: leave --from out".into());
    }
    if args.stream && from != to {
        return Err("--stream is for input of the form that is written: leave --from out".into());
    }
    if args.json && !args.check && args.digest.is_none() {
        return Err(
            "--json is for what --check or --digest say; canonical bytes are written as they are"
                .into(),
        );
    }
    let job = Job {
        from,
        profile,
        integers: args.integers,
        json: profile
            .json_options()
            .unwrap_or_default()
            .integers(args.integers.into())
            .depth_max(args.depth_max),
        cbor: profile
            .cbor_options()
            .unwrap_or_default()
            .depth_max(args.depth_max),
    };
    if args.check {
        return check(&job, args);
    }
    if args.tagged && job.departure().is_some() {
        return Err(
            "--tagged names the profile, and under this --integers the bytes are not the profile's"
                .into(),
        );
    }
    match args.digest {
        None => {
            let mut stdout = Stdout::lock();
            let written = job.write(args, &mut stdout);
            // First, since a write that failed also ends the reading.
            stdout.finish()?;
            written?;
        }
        Some(hash) => {
            let mut hasher = Hasher::new(hash, args.tagged.then_some(profile));
            job.write(args, &mut hasher)?;
            print_digest(&job, hash, hasher, args)?;
        }
    }
    Ok(Verdict::Good)
}

/// What is wrong with a file, and the flag that may help.
fn explained(file: &Path, error: &canon_ser::Error) -> String {
    let flag = if error.is_depth() {
        " (--depth-max)"
    } else if error.is_late_disorder() {
        " (leave --stream out)"
    } else {
        ""
    };
    format!("{}{flag}", in_file(file, error))
}

/// From one form to a canonical one.
struct Job {
    from: Form,
    profile: Profile,
    integers: Policy,
    json: json::Options,
    cbor: cbor::Options,
}

impl Job {
    /// What integers beyond 2^53 become, where that is not what the profile says. From CBOR to CBOR all stay.
    fn departure(&self) -> Option<Policy> {
        let meets_json = self.profile.is_json() || self.from == Form::Json;
        (meets_json && self.integers != Policy::Error).then_some(self.integers)
    }

    /// The rules that a check went by.
    fn rules(&self) -> String {
        match self
            .departure()
            .as_ref()
            .and_then(Policy::to_possible_value)
        {
            None => self.profile.to_string(),
            Some(policy) => format!("{} but for --integers {}", self.profile, policy.get_name()),
        }
    }

    fn write(&self, args: &FormArgs, out: &mut dyn Write) -> Result<(), String> {
        let in_input = |error| explained(&args.file, &error);
        let to_json = self.profile.is_json();
        if to_json != (self.from == Form::Json) {
            let bytes = input::read(&args.file, args.spool_max)?;
            let canonical = self.converted(&bytes, &args.file)?;
            return out.write_all(&canonical).map_err(cannot_write);
        }
        let written = if args.stream {
            let once = input::open_once(&args.file);
            let input = once.map_err(|error| in_file(&args.file, &error))?;
            match self.from {
                Form::Json => json::canonicalize_once(input, out, self.json),
                Form::Cbor => cbor::canonicalize_once(input, out, self.cbor),
            }
        } else {
            let input = input::open(&args.file, Keep::All(args.spool_max))?;
            match self.from {
                Form::Json => json::canonicalize_to(input, out, self.json),
                Form::Cbor => cbor::canonicalize_to(input, out, self.cbor),
            }
        };
        written.map_err(in_input)
    }

    /// The canonical form of what is in the other form.
    fn converted(&self, bytes: &[u8], file: &Path) -> Result<Vec<u8>, String> {
        let in_input = |error| explained(file, &error);
        if self.from == Form::Cbor {
            return cbor::to_json(bytes, self.json).map_err(in_input);
        }
        let core = cbor::from_json_with(bytes, self.json).map_err(in_input)?;
        // What has no form in this profile stands in CBOR that nobody sees: its offset there would mislead.
        cbor::canonicalize_with(&core, self.cbor).map_err(|error| {
            let reason = match error.is_data() {
                true => "an integer beyond 64 bits has no form in DAG-CBOR (--integers)",
                false => error.reason(),
            };
            in_file(file, &reason)
        })
    }

    fn check(&self, input: Box<dyn input::Source>) -> Result<(), canon_ser::Error> {
        if self.profile.is_json() {
            json::check_from(input, self.json)
        } else {
            cbor::check_from(input, self.cbor)
        }
    }
}

/// Stdout, which keeps what went wrong with it, so that the input is not blamed.
struct Stdout {
    to: io::StdoutLock<'static>,
    error: Option<io::Error>,
}

impl Stdout {
    fn lock() -> Stdout {
        Stdout {
            to: io::stdout().lock(),
            error: None,
        }
    }

    fn finish(mut self) -> Result<(), String> {
        let done = self.error.take().map_or_else(|| self.to.flush(), Err);
        done.map_err(cannot_write)
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes);
        if let Err(error) = &written
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.error = Some(io::Error::new(error.kind(), error.to_string()));
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// What `--check --json` prints.
#[derive(Serialize)]
struct Checked<'a> {
    canonical: bool,
    /// Of CBOR there are no lines, no columns and no pointers.
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    integers: Option<Policy>,
    line: Option<usize>,
    offset: Option<usize>,
    pointer: Option<&'a str>,
    reason: Option<&'a str>,
}

fn check(job: &Job, args: &FormArgs) -> Result<Verdict, String> {
    let result = job.check(input::open(&args.file, Keep::Start)?);
    let failed = result.as_ref().err();
    if let Some(error) = failed.filter(|error| error.is_io()) {
        return Err(in_file(&args.file, error));
    }
    if args.json {
        print_json(&Checked {
            canonical: failed.is_none(),
            column: failed.and_then(canon_ser::Error::column),
            integers: job.departure(),
            line: failed.and_then(canon_ser::Error::line),
            offset: failed.and_then(canon_ser::Error::offset),
            pointer: failed.and_then(canon_ser::Error::pointer),
            reason: failed.map(canon_ser::Error::reason),
        })?;
    } else {
        let line = match failed {
            None => format!("{}: canonical ({})\n", name(&args.file), job.rules()),
            Some(error) => format!("{}\n", explained(&args.file, error)),
        };
        print(line.as_bytes())?;
    }
    Ok(if failed.is_none() {
        Verdict::Good
    } else {
        Verdict::Negative
    })
}

/// What `eq --json` prints.
#[derive(Serialize)]
struct Compared<'a> {
    equal: bool,
    left: Option<&'a str>,
    pointer: Option<&'a str>,
    right: Option<&'a str>,
}

fn compare(args: &EqArgs) -> Result<Verdict, String> {
    let files = [args.rules.as_ref(), Some(&args.left), Some(&args.right)];
    if files
        .into_iter()
        .flatten()
        .filter(|file| is_stdin(file))
        .count()
        > 1
    {
        return Err("only one of the rules and the two documents can be stdin".into());
    }
    if args.rules.is_some() && args.depth.is_given {
        return Err("--depth-max cannot be used with --rules, under which it is 128".into());
    }
    let read_rules = |file| read_rules(file, args.at.as_deref());
    let rules = args.rules.as_deref().map(read_rules).transpose()?;
    let exact = json::Options::from(Integers::Exact).depth_max(args.depth.max);
    // Each on its own first, so that an error names its file.
    let readable = |file: &Path| {
        let text = input::read(file, u64::MAX)?;
        match &rules {
            None => json::canonicalize_with(&text, exact).map_err(|error| explained(file, &error)),
            Some(rules) => semantic::normalize(&text, rules).map_err(|error| in_file(file, &error)),
        }
    };
    let (left, right) = (readable(&args.left)?, readable(&args.right)?);
    // The normal form of a normal form is itself.
    let found = match &rules {
        None => semantic::diff_within(&left, &right, args.depth.max),
        Some(rules) => semantic::diff_with(&left, &right, rules),
    };
    let found = found.map_err(|error| error.to_string())?;
    if args.json {
        print_json(&Compared {
            equal: found.is_none(),
            left: found.as_ref().and_then(|found| found.left()),
            pointer: found.as_ref().map(|found| found.pointer()),
            right: found.as_ref().and_then(|found| found.right()),
        })?;
    } else if let Some(found) = &found {
        print(format!("{found}\n").as_bytes())?;
    }
    Ok(if found.is_none() {
        Verdict::Good
    } else {
        Verdict::Negative
    })
}

/// The rule set of a file; of a book, the one that holds at that time.
fn read_rules(file: &Path, at: Option<&str>) -> Result<RuleSet, String> {
    let text = input::read(file, u64::MAX)?;
    let is_book = text.trim_ascii_start().first() == Some(&b'[');
    let wrong = |error| in_file(file, &error);
    let book = if is_book {
        RuleBook::from_json(&text).map_err(wrong)?
    } else {
        let set = RuleSet::from_json(&text).map_err(wrong)?;
        let mut book = RuleBook::new();
        book.publish(set).map_err(wrong)?;
        book
    };
    let Some(at) = at else {
        return match book.sets() {
            [set] if !is_book => Ok(set.clone()),
            _ => Err(format!(
                "{} is a rule book: say with --at which time's rules hold",
                name(file)
            )),
        };
    };
    let set = book.at(at).map_err(|error| format!("--at: {error}"))?;
    set.cloned()
        .ok_or_else(|| format!("{}: no rules hold at {at}", name(file)))
}

fn print(bytes: &[u8]) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(cannot_write)
}

fn cannot_write(error: io::Error) -> String {
    format!("cannot write to stdout: {error}")
}

/// Prints one canonical JSON object and a newline.
fn print_json<T: Serialize>(value: &T) -> Result<(), String> {
    let mut line = json::to_vec(value).map_err(|error| error.to_string())?;
    line.push(b'\n');
    print(&line)
}
