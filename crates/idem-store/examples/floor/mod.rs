//! A store beside the least that could do: both in turns, in many short rounds of one process, and
//! the median of the ratios of rounds that lie beside each other. What else the machine does hits
//! both alike; the best or the sum of many rounds would compare one's luck with the other's.

#![expect(clippy::print_stdout, reason = "what uses this exists to print")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use idem_store::{Begin, Begun, Completion, Error, Fingerprint, Store};

/// What is kept with a key, by the store and beside it.
pub(crate) const VALUE: [u8; 64] = [7; 64];
pub(crate) const LEASE_MS: u64 = 60_000;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How often, how long and with how many callers: `[ROUNDS] [MILLISECONDS] [CALLERS]` after `--` on
/// the command line.
#[derive(Clone, Copy)]
pub(crate) struct Rounds {
    count: usize,
    time: Duration,
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

    fn callers(self) -> Vec<usize> {
        self.callers
            .map_or_else(|| vec![1, 64, 256], |callers| vec![callers])
    }
}

/// Prints how many keys are begun a second beside what `bare` does to one: by tasks, plain and with the
/// effect declared, on the runtime of the first store, and by threads that block for the second one.
pub(crate) async fn beside<F>(
    rounds: Rounds,
    [on_runtime, by_thread]: [Store; 2],
    bare: impl Fn([u8; 16]) -> F + Clone + Send + 'static,
) -> Outcome<()>
where
    F: Future<Output = Outcome<()>> + Send,
{
    println!("callers   operation     bare/s  store/s   ratio (quartiles)");
    for callers in rounds.callers() {
        let floor = || tasks(callers, rounds.time, bare.clone());
        for (name, declared) in [("begin", false), ("declared", true)] {
            let handle = on_runtime.clone();
            let begin = move |key| {
                let begun = begin(&handle, key, declared);
                async move { kept(begun.await) }
            };
            let store = || tasks(callers, rounds.time, begin.clone());
            let compared = compare(rounds, floor, store).await?;
            println!("{callers:>7}   {name:<11} {compared}");
        }
        let handle = by_thread.clone();
        let begin = move |key| kept(begin(&handle, key, false).wait());
        let store = || threads(callers, rounds.time, begin.clone());
        let compared = compare(rounds, floor, store).await?;
        println!("{callers:>7}   blocking    {compared}");
    }
    Ok(())
}

fn begin(store: &Store, key: [u8; 16], declared: bool) -> Completion<Begun> {
    let mut begin = Begin::new(&key, Fingerprint([1; 32]), LEASE_MS, 0);
    if declared {
        begin = begin.declare(&VALUE);
    }
    store.begin(&begin)
}

fn kept(begun: Result<Begun, Error>) -> Outcome<()> {
    let permit = begun?.into_fresh();
    // Giving it back would be one more operation.
    std::mem::forget(permit.ok_or("a key that was new is not")?);
    Ok(())
}

/// What came of one comparison.
struct Compared {
    /// Operations a second, medians.
    floor: f64,
    store: f64,
    /// The quartiles of the ratios.
    ratios: [f64; 3],
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
async fn compare<F, S>(
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
async fn tasks<F>(
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
async fn threads(
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
