//! The dry run: when jobs would fire.

use std::time::{SystemTime, UNIX_EPOCH};

use scheduler::FireTime;

use super::config::JobConfig;
use crate::Verdict;

/// Prints the next `count` firings of each job after `from`.
pub(super) fn print(
    jobs: &[JobConfig],
    from: Option<FireTime>,
    count: usize,
    json: bool,
) -> Result<Verdict, String> {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    };
    let from_ms = match from {
        Some(from) => from.0,
        None => u64::try_from(now().as_millis()).unwrap_or(u64::MAX),
    };
    for job in jobs {
        let next = |after_ms: &u64| job.schedule.next_after_ms(*after_ms, from_ms);
        let firings: Vec<String> = std::iter::successors(next(&from_ms), next)
            .take(count)
            .map(|ms| FireTime(ms).to_string())
            .collect();
        if json {
            let line =
                serde_json::json!({ "job": job.name, "shard": job.shard, "firings": firings });
            outln!("{line}");
            continue;
        }
        outln!("{}  ({})", job.name, job.schedule);
        firings.iter().for_each(|firing| outln!("  {firing}"));
        if firings.len() < count {
            outln!("  none after that");
        }
    }
    Ok(Verdict::Good)
}
