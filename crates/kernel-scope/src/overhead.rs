use std::os::fd::{FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use libbpf_rs::libbpf_sys;
use libbpf_rs::query::ProgInfoIter;
use rustix::time::{ClockId, clock_gettime};

/// What watching costs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Overhead {
    /// How long the tool has been attached.
    pub elapsed: Duration,
    /// CPU time of the whole process that reads the events.
    pub tool: Duration,
    /// CPU time of the BPF programs, extrapolated from samples: while the kernel measures programs,
    /// each run takes some 20 ns longer, so it is asked to during a tenth of the time. `None` when
    /// it would not (before Linux 5.8, or without the privilege).
    pub programs: Option<Duration>,
    /// How often the programs ran, extrapolated likewise; 0 when `programs` is `None`.
    pub runs: u64,
}

/// A sample begins this often, and is this long.
const PERIOD: Duration = Duration::from_secs(1);
pub(crate) const SAMPLE: Duration = Duration::from_millis(100);

/// Measures an [`Overhead`] with the kernel's statistics of BPF programs.
#[derive(Debug)]
pub(crate) struct Meter {
    program_ids: Vec<u32>,
    started: Instant,
    stopped: Option<Instant>,
    cpu_at_start: Duration,
    cpu_at_stop: Option<Duration>,
    sample: Option<Sample>,
    last_began: Instant,
    sampled: Duration,
    run_time: Duration,
    runs: u64,
    refused: bool,
}

/// While `enabled` is open, the kernel measures every BPF program of the machine.
#[derive(Debug)]
struct Sample {
    _enabled: OwnedFd,
    began: Instant,
    before: (Duration, u64),
}

impl Meter {
    /// The first sample begins at once.
    pub(crate) fn start(program_ids: &[u32]) -> Self {
        let now = Instant::now();
        let mut this = Self {
            program_ids: program_ids.to_vec(),
            started: now,
            stopped: None,
            cpu_at_start: cpu_time(),
            cpu_at_stop: None,
            sample: None,
            last_began: now,
            sampled: Duration::ZERO,
            run_time: Duration::ZERO,
            runs: 0,
            refused: false,
        };
        this.begin_sample(now);
        this
    }

    /// Begins and ends samples: to be called now and then.
    pub(crate) fn tick(&mut self) {
        let now = Instant::now();
        match &self.sample {
            Some(sample) if now - sample.began >= SAMPLE => self.end_sample(now),
            None if !self.refused && now - self.last_began >= PERIOD => self.begin_sample(now),
            _ => {}
        }
    }

    /// Ends the last sample. To be called before the programs are detached.
    pub(crate) fn stop(&mut self) {
        let now = Instant::now();
        self.end_sample(now);
        self.stopped.get_or_insert(now);
        self.cpu_at_stop.get_or_insert_with(cpu_time);
    }

    pub(crate) fn read(&self) -> Overhead {
        let elapsed = self.stopped.unwrap_or_else(Instant::now) - self.started;
        let known = !self.sampled.is_zero();
        let scale = elapsed.as_secs_f64() / self.sampled.as_secs_f64().max(f64::MIN_POSITIVE);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "an estimate of a count"
        )]
        let runs = (self.runs as f64 * scale) as u64;
        Overhead {
            elapsed,
            tool: self
                .cpu_at_stop
                .unwrap_or_else(cpu_time)
                .saturating_sub(self.cpu_at_start),
            programs: known.then(|| self.run_time.mul_f64(scale)),
            runs: if known { runs } else { 0 },
        }
    }

    fn begin_sample(&mut self, now: Instant) {
        self.last_began = now;
        match enable_stats() {
            Some(enabled) => {
                self.sample = Some(Sample {
                    _enabled: enabled,
                    began: now,
                    before: run_time(&self.program_ids),
                });
            }
            None => self.refused = true,
        }
    }

    fn end_sample(&mut self, now: Instant) {
        if let Some(sample) = self.sample.take() {
            let (time, runs) = run_time(&self.program_ids);
            self.run_time += time.saturating_sub(sample.before.0);
            self.runs += runs.saturating_sub(sample.before.1);
            self.sampled += now - sample.began;
        }
    }
}

fn enable_stats() -> Option<OwnedFd> {
    // SAFETY: the call takes a number and returns a new descriptor or a negative number.
    let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
    // SAFETY: a descriptor that the kernel has just made, and nobody else knows.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Time and runs of these programs since they were loaded, as far as they were measured.
fn run_time(program_ids: &[u32]) -> (Duration, u64) {
    ProgInfoIter::default()
        .filter(|info| program_ids.contains(&info.id))
        .fold((Duration::ZERO, 0), |(time, runs), info| {
            (
                time + Duration::from_nanos(info.run_time_ns),
                runs + info.run_cnt,
            )
        })
}

/// Of the whole process.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Meter;

    #[test]
    fn samples_are_extrapolated_to_the_whole_time() {
        let mut meter = Meter::start(&[]);
        let end = Instant::now();
        meter.sample = None;
        meter.started = end - Duration::from_secs(10);
        meter.stopped = Some(end);
        meter.sampled = Duration::from_secs(1);
        meter.run_time = Duration::from_millis(20);
        meter.runs = 1000;
        let overhead = meter.read();
        assert_eq!(overhead.programs, Some(Duration::from_millis(200)));
        assert_eq!(
            (overhead.runs, overhead.elapsed),
            (10_000, Duration::from_secs(10))
        );
        meter.sampled = Duration::ZERO;
        assert_eq!((meter.read().programs, meter.read().runs), (None, 0));
    }
}
