//! `mainstay schedule resolve`: firings in doubt, and what somebody found out about them.

use clap::Args;
use scheduler::{FireTime, FiringId, Once, Resolution};

use super::StoreArgs;
use crate::Verdict;

/// List firings whose runners died while they ran, or say what became of one
///
/// Exit code 1: the firing is not in doubt.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mainstay schedule resolve --store redis://127.0.0.1/\n  \
    mainstay schedule resolve --store redis://127.0.0.1/ --ran reconcile:2026-12-01T03:00:00.000Z:0")]
pub(super) struct ResolveArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The firing, as the list names it: job:fire time:shard
    #[arg(value_name = "FIRING", requires = "answer", value_parser = parse_id)]
    firing: Option<FiringId>,
    #[command(flatten)]
    answer: Answer,
    /// Print JSON lines instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(id = "answer", multiple = false, requires = "firing")]
struct Answer {
    /// It had run
    #[arg(long)]
    ran: bool,
    /// It is not to run, whatever happened
    #[arg(long)]
    skip: bool,
    /// A scheduler that has the job is to run it again
    #[arg(long)]
    rerun: bool,
}

fn parse_id(text: &str) -> Result<FiringId, String> {
    FiringId::parse(text).ok_or_else(|| "a firing is job:2026-12-01T03:00:00.000Z:0".to_owned())
}

pub(super) fn run(args: &ResolveArgs) -> Result<Verdict, String> {
    let once = args
        .store
        .open()?
        .ok_or("say with --store where the claims are")?;
    let Some(id) = &args.firing else {
        return list(&once, args.json);
    };
    let resolution = match &args.answer {
        Answer { ran: true, .. } => Resolution::Ran,
        Answer { rerun: true, .. } => Resolution::Rerun,
        _ => Resolution::Skip,
    };
    let done = once
        .resolve(id, resolution)
        .map_err(|error| error.to_string())?;
    once.flush();
    if args.json {
        outln!(
            "{}",
            serde_json::json!({ "firing": id.to_string(), "resolved": done })
        );
    } else {
        outln!("{id}: {}", if done { "resolved" } else { "not in doubt" });
    }
    Ok(if done {
        Verdict::Good
    } else {
        Verdict::Negative
    })
}

fn list(once: &impl Once, json: bool) -> Result<Verdict, String> {
    let doubts = once.in_doubt().map_err(|error| error.to_string())?;
    for doubt in &doubts {
        let since = FireTime(doubt.since_ms).to_string();
        if json {
            let line = serde_json::json!({
                "firing": doubt.id.to_string(),
                "job": doubt.id.job,
                "fire_time": FireTime(doubt.id.fire_ms).to_string(),
                "shard": doubt.id.shard,
                "since": since,
                "rerun": doubt.rerun,
            });
            outln!("{line}");
        } else {
            let note = if doubt.rerun { "  (to run again)" } else { "" };
            outln!("{}  claimed {since}{note}", doubt.id);
        }
    }
    if doubts.is_empty() && !json {
        outln!("nothing is in doubt");
    }
    Ok(Verdict::Good)
}
