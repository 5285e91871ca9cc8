//! What the gateway can be told: every limit that can be set is here.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use super::device::SHARDS_MAX;
use super::jobs::CommandJob;
use crate::proto::BODY_BYTES_MAX;

/// The largest limit of what is counted in places: commands, HTTP connections, listeners to events.
const COUNTED_MAX: usize = 1 << 24;

/// What Linux takes for the keepalive of a socket, and for its TCP_USER_TIMEOUT. It would refuse the listener otherwise.
const KEEPALIVE_S_MAX: u64 = 32_767;
const KEEPALIVE_COUNT_MAX: u64 = 127;
const USER_TIMEOUT_MS_MAX: u64 = i32::MAX as u64;

/// Devices that come back in a second: a hundred times what two cores were seen to welcome. Whoever writes more means
/// something else.
const RETURN_PER_S_MAX: u32 = 1_000_000;

/// The gateway's settings; [`Config::default`] is right for a first run on one machine. Its serde
/// form is the configuration file: every field is a key, every key may be left out. Its `Debug` form
/// shows of the store no more than the kind: the URL may hold a password.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Where devices connect. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where HTTP is served. Port 0 takes a free one.
    pub http: SocketAddr,
    /// Where beats arrive in datagrams of devices that have a session over [`listen`](Self::listen) and agreed to it; without
    /// it there are none. Port 0 takes a free one.
    pub udp: Option<SocketAddr>,
    /// The directory of the store and the list of known devices.
    pub data: PathBuf,
    /// A store that several gateways share, as [`idem_store::Store::connect`] takes it; without one
    /// the store lies in [`data`](Self::data).
    pub store: Option<String>,
    /// Reactor threads; 0 takes one for each core.
    pub shards: usize,
    /// `Host` names that HTTP requests may carry, besides the loopback ones.
    pub hosts: Vec<String>,
    /// Limits and times of the device side.
    pub devices: DeviceLimits,
    /// Limits and times of commands.
    pub commands: CommandLimits,
    /// Limits and times of the HTTP side.
    pub http_limits: HttpLimits,
    /// Breakers in front of commands, one for each group of devices.
    pub breaker: BreakerConfig,
    /// Commands by the clock. Not part of the serde form: `mainstay gateway` reads them from the file's `[[job]]` tables.
    #[serde(skip)]
    pub jobs: Vec<CommandJob>,
    /// How long a drain waits for running commands before it records them as open.
    pub drain_timeout_ms: u64,
}

/// Limits and times of device connections.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DeviceLimits {
    /// Most devices that are remembered; beyond it the longest offline one is forgotten.
    pub known_max: usize,
    /// Most device connections at one time, shared out evenly among the shards; more wait in the
    /// listeners' backlogs.
    pub connections_max: usize,
    /// The beat interval of a device that asks for none.
    pub interval_ms: u32,
    /// The shortest interval that a device may ask for.
    pub interval_ms_min: u32,
    /// The longest interval that a device may ask for.
    pub interval_ms_max: u32,
    /// Added to the interval before a silent device is gone.
    pub grace_ms: u32,
    /// A connection that has not said a whole HELLO by then is closed.
    pub hello_timeout_ms: u64,
    /// How long a connection has to answer a probe when its device appears a second time.
    pub probe_timeout_ms: u64,
    /// Bytes that wait for one device's socket; a device that lets more pile up is closed.
    pub write_bytes_max: usize,
    /// TCP keepalive: silence before the first probe, in seconds.
    pub keepalive_idle_s: u32,
    /// TCP keepalive: between two probes, in seconds.
    pub keepalive_interval_s: u32,
    /// TCP keepalive: probes without an answer before the connection is dead.
    pub keepalive_count: u32,
    /// TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged before the connection is dead. 0 leaves it to
    /// the system, which takes about a quarter of an hour.
    pub user_timeout_ms: u32,
    /// How many devices may come back in a second after this gateway was lost: each is given a slot in WELCOME for its
    /// first try, over two seconds at least. At most 1,000,000; 0 gives none, and devices come back within the two seconds that they choose
    /// themselves, however many they are.
    pub return_per_s: u32,
}

/// Limits and times of commands.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CommandLimits {
    /// Most commands that run or wait for one device.
    pub per_device_max: u32,
    /// Most commands that run or wait in the whole gateway.
    pub total_max: usize,
    /// How long a caller waits that does not say.
    pub timeout_ms: u64,
    /// The longest wait that a caller may ask for.
    pub timeout_ms_max: u64,
    /// How long the gateway itself waits for the result of a command that was sent; afterwards the
    /// key is in doubt until the device answers or a retry asks again.
    pub result_wait_ms: u64,
    /// How long a result replays.
    pub retain_ms: u64,
    /// On a shared store: how long the keys of a gateway that died stay blocked, and how long a
    /// command waits at a gateway that its device has left. Claims are renewed three times as often.
    pub lease_ms: u64,
    /// Commands on their way to one shard; beyond it callers get 429.
    pub mailbox_max: usize,
    /// Most commands of jobs that run at one time; further devices of a firing wait for their turn.
    pub job_commands_max: usize,
}

/// When commands to a group of devices are refused for a time, because too many of the last ones were not delivered or not
/// answered in time. There are no groups, and so no breakers, unless [`separator`](Self::separator) or
/// [`prefixes`](Self::prefixes) says what a group is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// A device's group is its id up to the first of these characters.
    pub separator: Option<char>,
    /// A device's group is the longest of these that its id starts with; others are in none.
    pub prefixes: Vec<String>,
    /// Commands of the group that are looked back on.
    pub calls: u32,
    /// The share of them that opens the breaker, in percent.
    pub failures_percent: u8,
    /// How long nothing is sent then.
    pub open_ms: u64,
    /// A failed probe doubles that time, up to this.
    pub open_ms_max: u64,
    /// Commands that are let through afterwards, to see whether the group answers again.
    pub probes: u32,
    /// How many of them have to be answered.
    pub successes: u32,
    /// Most groups; the devices of further ones have no breaker.
    pub groups_max: usize,
}

/// Limits and times of the HTTP side.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HttpLimits {
    /// Most HTTP connections at one time; more wait in the listener's backlog.
    pub connections_max: usize,
    /// A client has to send its request's head within this time, and its body within as much again.
    pub read_timeout_ms: u64,
    /// Most clients of `/v1/events` at one time.
    pub events_max: usize,
    /// Most devices in one page of `/v1/devices`.
    pub page_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7400)),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 7480)),
            udp: None,
            data: PathBuf::from("mainstay-data"),
            store: None,
            shards: 0,
            hosts: Vec::new(),
            devices: DeviceLimits::default(),
            commands: CommandLimits::default(),
            http_limits: HttpLimits::default(),
            breaker: BreakerConfig::default(),
            jobs: Vec::new(),
            drain_timeout_ms: 3_000,
        }
    }
}

impl Config {
    /// Checks what no type can.
    ///
    /// # Errors
    ///
    /// A sentence that names the key and what it may be.
    pub fn check(&self) -> Result<(), String> {
        if let Some((key, _)) = self.positive().iter().find(|(_, value)| *value == 0) {
            return Err(format!("{key} is 0; give it at least 1"));
        }
        if self.devices.interval_ms_min > self.devices.interval_ms_max {
            return Err("devices.interval_ms_min is above devices.interval_ms_max".into());
        }
        let possible = self.devices.interval_ms_min..=self.devices.interval_ms_max;
        if !possible.contains(&self.devices.interval_ms) {
            return Err(
                "devices.interval_ms lies outside interval_ms_min to interval_ms_max".into(),
            );
        }
        if self.commands.timeout_ms > self.commands.timeout_ms_max {
            return Err("commands.timeout_ms is above commands.timeout_ms_max".into());
        }
        if self.devices.write_bytes_max < 2 * BODY_BYTES_MAX {
            return Err(format!(
                "devices.write_bytes_max is below {}, room for two commands",
                2 * BODY_BYTES_MAX
            ));
        }
        if self.commands.total_max == 0 {
            return Err("commands.total_max is 0; give it at least 1".into());
        }
        if self.devices.return_per_s > RETURN_PER_S_MAX {
            return Err(format!(
                "devices.return_per_s is above {RETURN_PER_S_MAX}, more than a gateway can welcome; 0 gives no slots"
            ));
        }
        self.breaker.check()?;
        CommandJob::check_all(&self.jobs, &self.commands)?;
        let limited = self.limited();
        match limited.iter().find(|(_, value, max)| value > max) {
            Some((key, _, max)) => Err(format!("{key} is above {max}")),
            None => Ok(()),
        }
    }
}

impl Config {
    /// Numbers that something below cannot take beyond a limit, and those limits.
    fn limited(&self) -> [(&'static str, u64, u64); 8] {
        let counted = COUNTED_MAX as u64;
        [
            ("shards", self.shards as u64, SHARDS_MAX as u64),
            (
                "devices.keepalive_idle_s",
                self.devices.keepalive_idle_s.into(),
                KEEPALIVE_S_MAX,
            ),
            (
                "devices.keepalive_interval_s",
                self.devices.keepalive_interval_s.into(),
                KEEPALIVE_S_MAX,
            ),
            (
                "devices.keepalive_count",
                self.devices.keepalive_count.into(),
                KEEPALIVE_COUNT_MAX,
            ),
            (
                "devices.user_timeout_ms",
                self.devices.user_timeout_ms.into(),
                USER_TIMEOUT_MS_MAX,
            ),
            (
                "commands.total_max",
                self.commands.total_max as u64,
                counted,
            ),
            (
                "http_limits.connections_max",
                self.http_limits.connections_max as u64,
                counted,
            ),
            (
                "http_limits.events_max",
                self.http_limits.events_max as u64,
                counted,
            ),
        ]
    }

    /// Numbers of which none may be 0.
    fn positive(&self) -> [(&'static str, u64); 24] {
        [
            ("devices.known_max", self.devices.known_max as u64),
            (
                "devices.connections_max",
                self.devices.connections_max as u64,
            ),
            ("devices.interval_ms", self.devices.interval_ms.into()),
            (
                "devices.interval_ms_min",
                self.devices.interval_ms_min.into(),
            ),
            ("devices.hello_timeout_ms", self.devices.hello_timeout_ms),
            ("devices.probe_timeout_ms", self.devices.probe_timeout_ms),
            (
                "devices.keepalive_idle_s",
                self.devices.keepalive_idle_s.into(),
            ),
            (
                "devices.keepalive_interval_s",
                self.devices.keepalive_interval_s.into(),
            ),
            (
                "devices.keepalive_count",
                self.devices.keepalive_count.into(),
            ),
            (
                "commands.per_device_max",
                self.commands.per_device_max.into(),
            ),
            ("commands.timeout_ms", self.commands.timeout_ms),
            ("commands.retain_ms", self.commands.retain_ms),
            ("commands.lease_ms", self.commands.lease_ms),
            ("commands.mailbox_max", self.commands.mailbox_max as u64),
            (
                "commands.job_commands_max",
                self.commands.job_commands_max as u64,
            ),
            ("breaker.calls", self.breaker.calls.into()),
            (
                "breaker.failures_percent",
                self.breaker.failures_percent.into(),
            ),
            ("breaker.open_ms", self.breaker.open_ms),
            ("breaker.probes", self.breaker.probes.into()),
            ("breaker.successes", self.breaker.successes.into()),
            ("breaker.groups_max", self.breaker.groups_max as u64),
            (
                "http_limits.connections_max",
                self.http_limits.connections_max as u64,
            ),
            (
                "http_limits.read_timeout_ms",
                self.http_limits.read_timeout_ms,
            ),
            ("http_limits.page_max", self.http_limits.page_max as u64),
        ]
    }
}

impl BreakerConfig {
    /// The window of calls, in bits.
    const CALLS_MAX: u32 = 1 << 16;

    fn check(&self) -> Result<(), String> {
        if self.separator.is_some() && !self.prefixes.is_empty() {
            return Err("breaker.separator and breaker.prefixes exclude each other".into());
        }
        if self.prefixes.iter().any(String::is_empty) {
            return Err("breaker.prefixes has an empty one; name what ids start with".into());
        }
        if self.failures_percent > 100 {
            return Err("breaker.failures_percent is above 100".into());
        }
        if self.calls > Self::CALLS_MAX {
            return Err(format!("breaker.calls is above {}", Self::CALLS_MAX));
        }
        if self.open_ms > self.open_ms_max {
            return Err("breaker.open_ms is above breaker.open_ms_max".into());
        }
        if self.successes > self.probes {
            return Err("breaker.successes is above breaker.probes".into());
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            listen,
            http,
            udp,
            data,
            store,
            shards,
            hosts,
            devices,
            commands,
            http_limits,
            breaker,
            jobs,
            drain_timeout_ms,
        } = self;
        // A password that is not escaped can reach into any part behind the scheme.
        let store = store.as_deref().map(|url| match url.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://..."),
            None => "...".to_owned(),
        });
        f.debug_struct("Config")
            .field("listen", listen)
            .field("http", http)
            .field("udp", udp)
            .field("data", data)
            .field("store", &store)
            .field("shards", shards)
            .field("hosts", hosts)
            .field("devices", devices)
            .field("commands", commands)
            .field("http_limits", http_limits)
            .field("breaker", breaker)
            .field("jobs", &jobs.len())
            .field("drain_timeout_ms", drain_timeout_ms)
            .finish()
    }
}

impl Default for DeviceLimits {
    fn default() -> Self {
        Self {
            known_max: 1_000_000,
            connections_max: 1_000_000,
            interval_ms: 30_000,
            interval_ms_min: 100,
            interval_ms_max: 3_600_000,
            grace_ms: 5_000,
            hello_timeout_ms: 5_000,
            probe_timeout_ms: 1_000,
            write_bytes_max: 1 << 20,
            keepalive_idle_s: 60,
            keepalive_interval_s: 10,
            keepalive_count: 3,
            user_timeout_ms: 90_000,
            return_per_s: 5_000,
        }
    }
}

impl Default for CommandLimits {
    fn default() -> Self {
        Self {
            per_device_max: 64,
            total_max: 65_536,
            timeout_ms: 30_000,
            timeout_ms_max: 3_600_000,
            result_wait_ms: 3_600_000,
            retain_ms: 24 * 3_600_000,
            lease_ms: 10_000,
            mailbox_max: 16_384,
            job_commands_max: 1_024,
        }
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            separator: None,
            prefixes: Vec::new(),
            calls: 10,
            failures_percent: 50,
            open_ms: 60_000,
            open_ms_max: 60_000,
            probes: 5,
            successes: 3,
            groups_max: 1_024,
        }
    }
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            read_timeout_ms: 10_000,
            events_max: 64,
            page_max: 1_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password() {
        for url in [
            "postgres://u:sesame@h/d",
            "mysql://u:x?sesame@h/d",
            "redis://h/?password=sesame",
            "u:sesame@h",
        ] {
            let config = Config {
                store: Some(url.to_owned()),
                ..Config::default()
            };
            let text = format!("{config:?}");
            assert!(!text.contains("sesame"), "{text}");
            let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
            assert!(text.contains(&format!("Some(\"{scheme}")), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        type Change = fn(&mut Config);
        let impossible: [(&str, Change); 21] = [
            ("shards is above 65536", |c| c.shards = 65_537),
            ("devices.keepalive_idle_s", |c| {
                c.devices.keepalive_idle_s = 32_768;
            }),
            ("devices.keepalive_interval_s", |c| {
                c.devices.keepalive_interval_s = 32_768;
            }),
            ("devices.keepalive_count", |c| {
                c.devices.keepalive_count = 128;
            }),
            ("devices.user_timeout_ms", |c| {
                c.devices.user_timeout_ms = 1 << 31;
            }),
            ("http_limits.read_timeout_ms", |c| {
                c.http_limits.read_timeout_ms = 0;
            }),
            ("devices.known_max", |c| c.devices.known_max = 0),
            ("devices.interval_ms_min", |c| {
                c.devices.interval_ms_min = 3_600_001;
            }),
            ("devices.interval_ms lies", |c| c.devices.interval_ms = 99),
            ("devices.write_bytes_max", |c| c.devices.write_bytes_max = 1),
            ("devices.return_per_s", |c| {
                c.devices.return_per_s = 1_000_001;
            }),
            ("commands.timeout_ms is above", |c| {
                c.commands.timeout_ms_max = 1;
            }),
            ("commands.total_max", |c| c.commands.total_max = 0),
            ("commands.job_commands_max", |c| {
                c.commands.job_commands_max = 0;
            }),
            ("breaker.calls", |c| c.breaker.calls = 0),
            ("breaker.separator", |c| {
                c.breaker.separator = Some('-');
                c.breaker.prefixes = vec!["a".into()];
            }),
            ("breaker.failures_percent", |c| {
                c.breaker.failures_percent = 101;
            }),
            ("breaker.open_ms is above", |c| c.breaker.open_ms_max = 1),
            ("breaker.successes is above", |c| c.breaker.probes = 1),
            ("http_limits.connections_max", |c| {
                c.http_limits.connections_max = usize::MAX;
            }),
            ("http_limits.events_max", |c| {
                c.http_limits.events_max = usize::MAX;
            }),
        ];
        assert_eq!(Config::default().check(), Ok(()));
        for (key, change) in impossible {
            let mut config = Config::default();
            change(&mut config);
            let text = config.check().expect_err(key);
            assert!(text.contains(key), "{text}");
        }
    }
}
