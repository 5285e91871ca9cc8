//! A store beside the least that could do: both in turns, in many short rounds of one process, and
//! the median of the ratios of rounds that lie beside each other. What else the machine does hits
//! both alike; the best or the sum of many rounds would compare one's luck with the other's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How often, how long and with how many callers: `[ROUNDS] [MILLISECONDS] [CALLERS]` after `--` on
/// the command line.
#[derive(Clone, Copy)]
pub(crate) struct Rounds {
    pub(crate) count: usize,
    pub(crate) time: Duration,
    callers: Option<usize>,
}

impl Rounds {
    pub(crate) fn from(mut args: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut number = |default: u64| args.next().map_or(Ok(default), |arg| arg.parse());
        Ok(Self {
            count: number(15)?.max(1) as usize,
            time: Duration::from_millis(number(300)?),
            callers: Some(number(0)? as usize).filter(|callers| *callers > 0),
        })
    }

    pub(crate) fn callers(self) -> Vec<usize> {
        self.callers
            .map_or_else(|| vec![1, 64, 256], |callers| vec![callers])
    }
}

/// What came of one comparison.
pub(crate) struct Compared {
    /// Operations a second, medians.
    pub(crate) floor: f64,
    pub(crate) store: f64,
    /// The quartiles of the ratios.
    pub(crate) ratios: [f64; 3],
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            floor,
            store,
            ratios: [low, median, high],
        } = self;
        write!(
            f,
            "{floor:>8.0} {store:>8.0}   {median:.2} ({low:.2} to {high:.2})"
        )
    }
}

/// Runs both in turns: each call is one round and tells its operations a second.
pub(crate) async fn compare<F, S>(
    rounds: Rounds,
    floor: impl Fn() -> F,
    store: impl Fn() -> S,
) -> Outcome<Compared>
where
    F: Future<Output = Outcome<f64>>,
    S: Future<Output = Outcome<f64>>,
{
    let (mut floors, mut stores, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms both up.
    for number in 0..=rounds.count {
        // In changing order, so that neither always follows the other.
        let (one, other) = if number % 2 == 0 {
            let one = floor().await?;
            (one, store().await?)
        } else {
            let other = store().await?;
            (floor().await?, other)
        };
        if number > 0 {
            floors.push(one);
            stores.push(other);
            ratios.push(other / one);
        }
    }
    for list in [&mut floors, &mut stores, &mut ratios] {
        list.sort_by(f64::total_cmp);
    }
    let middle = rounds.count / 2;
    Ok(Compared {
        floor: floors[middle],
        store: stores[middle],
        ratios: [rounds.count / 4, middle, rounds.count * 3 / 4].map(|at| ratios[at]),
    })
}

/// A round with so many tasks, each of which does one operation after the other on new keys.
pub(crate) async fn tasks<F>(
    callers: usize,
    time: Duration,
    operation: impl Fn([u8; 16]) -> F + Clone + Send + 'static,
) -> Outcome<f64>
where
    F: Future<Output = Outcome<()>> + Send,
{
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (operation, done) = (operation.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                while started.elapsed() < time {
                    operation(new_key()).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Outcome::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64())
}

/// As [`tasks`], with threads that block.
pub(crate) async fn threads(
    callers: usize,
    time: Duration,
    operation: impl Fn([u8; 16]) -> Outcome<()> + Clone + Send + 'static,
) -> Outcome<f64> {
    let started = Instant::now();
    let threads: Vec<_> = (0..callers)
        .map(|_| {
            let operation = operation.clone();
            let (ended, end) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                let mut done = 0;
                let outcome = loop {
                    if started.elapsed() >= time {
                        break Ok(done);
                    }
                    match operation(new_key()) {
                        Ok(()) => done += 1,
                        Err(error) => break Err(error),
                    }
                };
                // Whoever waited has failed otherwise.
                let _ = ended.send(outcome);
            });
            end
        })
        .collect();
    let mut done = 0;
    for thread in threads {
        done += thread.await??;
    }
    Ok(f64::from(done) / started.elapsed().as_secs_f64())
}

/// One that no run has used before, spread as keys are.
fn new_key() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    key[8..].copy_from_slice(&u64::from(std::process::id()).to_be_bytes());
    key
}
