//! `cargo xtask soak`: the same tests as `test`, for hours instead of seconds.

use crate::Command;
use crate::cmd::Cmd;
use crate::flags::Flags;

pub(crate) const COMMAND: Command = Command {
    name: "soak",
    about: "Runs a seeded or kill test with far larger counts",
    help: HELP,
    run,
};

const HELP: &str = "\
usage: cargo xtask soak [NAME] [--COUNT N] [-- ARGS...]

Without NAME: lists what there is and its counts. A soak is a row of a table in xtask/src/soak.rs: the tests that
`cargo xtask test` also runs, in release, with a larger count from an environment variable. ARGS go to the tests.

example: cargo xtask soak idem --seeds 1000000";

/// One soak: add a row for a new one.
struct Soak {
    name: &'static str,
    about: &'static str,
    package: &'static str,
    /// Substrings of the test names to run.
    filters: &'static [&'static str],
    counts: &'static [Count],
}

/// A count that a test reads from its environment.
struct Count {
    flag: &'static str,
    variable: &'static str,
    /// What the soak uses when the flag is absent.
    default: u64,
}

const SOAKS: &[Soak] = &[
    Soak {
        name: "beats",
        about: "random sequences of beats decode to what was encoded, 16 beats each",
        package: "heartbeat-codec",
        filters: &["soak::"],
        counts: &[
            Count {
                flag: "--sequences",
                variable: "MAINSTAY_SEQUENCES",
                default: 100_000_000,
            },
            Count {
                flag: "--first",
                variable: "MAINSTAY_SEED_FIRST",
                default: 0,
            },
        ],
    },
    Soak {
        name: "idem",
        about: "random operations and crashes of the embedded store, a history per seed; kill -9 of it under load; concurrent histories of every backend",
        package: "idem-store",
        filters: &["simulation::random", "kill::", "are_linearizable"],
        counts: &[
            Count {
                flag: "--seeds",
                variable: "MAINSTAY_SEEDS",
                default: 1_000_000,
            },
            Count {
                flag: "--first",
                variable: "MAINSTAY_SEED_FIRST",
                default: 0,
            },
            Count {
                flag: "--kills",
                variable: "MAINSTAY_KILLS",
                default: 200,
            },
            Count {
                flag: "--histories",
                variable: "MAINSTAY_HISTORIES",
                default: 2_000,
            },
        ],
    },
    Soak {
        name: "reactor",
        about: "connects, resets, slow readers and writers, half-closes and stale tokens, each connection checking its own bytes, in rounds of 900 peers",
        package: "conn-reactor",
        filters: &["soak::"],
        counts: &[
            Count {
                flag: "--minutes",
                variable: "MAINSTAY_MINUTES",
                default: 10,
            },
            Count {
                flag: "--rounds",
                variable: "MAINSTAY_ROUNDS",
                default: 1,
            },
        ],
    },
    Soak {
        name: "gateway",
        about: "kill -9 of a gateway under load, on its own store and on each server, then every key is accounted for; two gateways on one store, each key sent to both",
        package: "mainstay-cli",
        filters: &["kill", "both_gateways"],
        counts: &[
            Count {
                flag: "--kills",
                variable: "MAINSTAY_KILLS",
                default: 200,
            },
            Count {
                flag: "--keys",
                variable: "MAINSTAY_KEYS",
                default: 1_000,
            },
        ],
    },
    Soak {
        name: "ring",
        about: "floods of rings and perf buffers beside a reader, every event accounted for; no lost wake-up of an edge; as root",
        package: "ebpf-ring",
        filters: &["soak::"],
        counts: &[Count {
            flag: "--events",
            variable: "MAINSTAY_EVENTS",
            default: 100_000_000,
        }],
    },
    Soak {
        name: "schedule",
        about: "kill -9 of two schedulers on one store, then every firing has run once or says why not",
        package: "mainstay-cli",
        filters: &["killed_schedulers"],
        counts: &[Count {
            flag: "--firings",
            variable: "MAINSTAY_FIRINGS",
            default: 1_000,
        }],
    },
];

fn run(args: &[String]) -> Result<(), String> {
    let mut flags = Flags::new(args.to_vec());
    let Some(name) = flags.positional() else {
        flags.finish()?;
        list();
        return Ok(());
    };
    let soak = SOAKS.iter().find(|soak| soak.name == name);
    let soak =
        soak.ok_or_else(|| format!("there is no soak `{name}`; `cargo xtask soak` lists them"))?;
    let mut envs = Vec::new();
    for count in soak.counts {
        let value = flags.number(count.flag)?.unwrap_or(count.default);
        envs.push((count.variable, value.to_string()));
    }
    let rest = flags.finish()?;
    soak.tests().arg("--no-run").run()?;
    for filter in soak.filters {
        let listed = soak.tests().args(["--", filter, "--list"]).capture()?;
        if !listed.lines().any(|line| line.ends_with(": test")) {
            // The harness would call that a success.
            return Err(format!(
                "no test of {} has `{filter}` in its name",
                soak.package
            ));
        }
    }
    let cmd = envs
        .into_iter()
        .fold(soak.tests(), |cmd, (key, value)| cmd.env(key, value));
    // One at a time: a soak wants the machine for itself.
    cmd.arg("--")
        .args(soak.filters)
        .args(["--nocapture", "--test-threads=1"])
        .args(rest)
        .run()
}

impl Soak {
    fn tests(&self) -> Cmd {
        Cmd::cargo()
            .args(["test", "--release", "--all-features"])
            .args(["--package", self.package, "--test", "it"])
    }
}

fn list() {
    println!("soaks, run one with `cargo xtask soak NAME`:");
    for soak in SOAKS {
        println!("  {:<10} {}", soak.name, soak.about);
        for count in soak.counts {
            println!(
                "  {:<10}   {} N (default {})",
                "", count.flag, count.default
            );
        }
    }
}
