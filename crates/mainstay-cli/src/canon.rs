//! `mainstay canon`: canonical bytes, their digests, and whether two documents mean the same.
//!
//! Canonical bytes go to stdout exactly as they are, with no newline added; everything said to people
//! or machines about them ends with one.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use canon_ser::json::{self, Integers, KeyOrder};
use canon_ser::{Profile, cbor, semantic};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::Verdict;

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

#[derive(Debug, Subcommand)]
enum Action {
    /// Canonical JSON (RFC 8785)
    #[command(after_help = "Example:\n  echo '{\"b\": 1e2, \"a\": 1}' | mainstay canon json")]
    Json(FormArgs),
    /// Deterministic CBOR (RFC 8949 section 4.2.1)
    #[command(
        after_help = "Example:\n  mainstay canon cbor --from json --digest sha256 order.json"
    )]
    Cbor(FormArgs),
    /// Do two JSON documents mean the same? Key order, whitespace, escapes and the spelling of numbers do not count
    ///
    /// Exit code 0: the same. 1: they differ, and stdout says where. 2: a document cannot be read.
    #[command(after_help = "Example:\n  mainstay canon eq left.json right.json")]
    Eq(EqArgs),
}

#[derive(Debug, Args)]
struct FormArgs {
    /// The form of the input [default: the form of the output]
    #[arg(long, value_enum)]
    from: Option<Form>,
    /// A frozen profile: jcs/1 or json-utf8/1 for JSON, cbor-core-det/1 for CBOR [default: jcs/1, cbor-core-det/1]
    #[arg(long)]
    profile: Option<Profile>,
    /// Print the digest of the canonical bytes, in lowercase hex and a newline, instead of the bytes
    #[arg(long, value_enum)]
    digest: Option<Hash>,
    /// Write nothing: say whether the input is already canonical (exit code 0) or not (1)
    #[arg(long, conflicts_with = "digest")]
    check: bool,
    /// With --check: print one JSON object, {"canonical":bool,"offset","reason"}
    #[arg(long, requires = "check")]
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
    /// The left document; - is stdin
    left: PathBuf,
    /// The right document; - is stdin
    right: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Json,
    Cbor,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
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
    let input = read(&args.file)?;
    if args.check {
        return check(profile, &input, args);
    }
    let canonical = match (from, to) {
        (Form::Json, Form::Cbor) => cbor::from_json(&input),
        (Form::Cbor, Form::Json) => cbor::to_json(&input, key_order(profile)),
        _ => profile.canonicalize(&input),
    };
    let canonical = canonical.map_err(|error| in_file(&args.file, &error))?;
    match args.digest {
        None => print(&canonical)?,
        Some(hash) => print(hex_line(hash, &canonical).as_bytes())?,
    }
    Ok(Verdict::Good)
}

fn key_order(profile: Profile) -> KeyOrder {
    match profile {
        Profile::JsonUtf8V1 => KeyOrder::Utf8,
        _ => KeyOrder::Utf16,
    }
}

/// What `--check --json` prints.
#[derive(Serialize)]
struct Checked<'a> {
    canonical: bool,
    offset: Option<usize>,
    reason: Option<&'a str>,
}

fn check(profile: Profile, input: &[u8], args: &FormArgs) -> Result<Verdict, String> {
    let result = profile.check(input);
    let failed = result.as_ref().err();
    if args.json {
        let offset = failed.and_then(canon_ser::Error::offset);
        let reason = failed.map(canon_ser::Error::reason);
        print_json(&Checked {
            canonical: failed.is_none(),
            offset,
            reason,
        })?;
    } else {
        let name = name(&args.file);
        let line = match failed {
            None => format!("{name}: canonical ({profile})\n"),
            Some(error) => format!("{name}: {error}\n"),
        };
        print(line.as_bytes())?;
    }
    Ok(if failed.is_none() {
        Verdict::Good
    } else {
        Verdict::Negative
    })
}

fn hex_line(hash: Hash, bytes: &[u8]) -> String {
    let digest: [u8; 32] = match hash {
        Hash::Sha256 => canon_ser::digest::sha256_bytes(bytes),
        Hash::Blake3 => canon_ser::digest::blake3_bytes(bytes),
    };
    let mut line: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    line.push('\n');
    line
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
    if [&args.left, &args.right].iter().all(|file| is_stdin(file)) {
        return Err("only one of the two documents can be stdin".into());
    }
    let canonical = |file: &Path| {
        let text = read(file)?;
        json::canonicalize_with(&text, Integers::Exact).map_err(|error| in_file(file, &error))
    };
    let (left, right) = (canonical(&args.left)?, canonical(&args.right)?);
    let found = semantic::diff(&left, &right).map_err(|error| error.to_string())?;
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

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

fn name(file: &Path) -> String {
    if is_stdin(file) {
        "stdin".into()
    } else {
        file.display().to_string()
    }
}

fn in_file(file: &Path, error: &canon_ser::Error) -> String {
    format!("{}: {error}", name(file))
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut input = Vec::new();
    let result = if is_stdin(file) {
        io::stdin().lock().read_to_end(&mut input)
    } else {
        File::open(file).and_then(|mut file| file.read_to_end(&mut input))
    };
    result
        .map(|_| input)
        .map_err(|error| format!("{}: {error}", name(file)))
}

fn print(bytes: &[u8]) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| format!("cannot write to stdout: {error}"))
}

/// Prints one canonical JSON object and a newline.
fn print_json<T: Serialize>(value: &T) -> Result<(), String> {
    let mut line = json::to_vec(value).map_err(|error| error.to_string())?;
    line.push(b'\n');
    print(&line)
}
