//! The connection: made, checked, and made again when it is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisError, Value};

use crate::error::{Error, Kind};
use crate::redis::is_passing;
use crate::redis::open::Held;
use crate::redis::script::Scripts;
use crate::redis::url::{Config, Layout};
use crate::remote::{Counters, Crew};

/// The format of what is stored; see `docs/FORMAT.md`.
const VERSION: u64 = 1;

pub(crate) struct Link {
    pub(crate) config: Config,
    pub(crate) layout: Layout,
    pub(crate) scripts: Scripts,
    current: Mutex<Current>,
    connecting: tokio::sync::Mutex<()>,
    counters: Arc<Counters>,
    pub(super) crew: Crew,
}

#[derive(Default)]
struct Current {
    connection: Option<Connection>,
    /// Which one it is, so that it is not thrown away for what an earlier one did.
    number: u64,
}

#[derive(Clone)]
pub(crate) enum Connection {
    Single(
        MultiplexedConnection,
        #[expect(dead_code, reason = "it is held")] Held,
    ),
    #[cfg(feature = "redis-cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

impl Link {
    pub(crate) async fn connect(
        config: Config,
        counters: Arc<Counters>,
        crew: Crew,
    ) -> Result<Self, Error> {
        let layout = Layout::new(&config.name, config.target.shards());
        let link = Self {
            layout,
            scripts: Scripts::new(config.timeout),
            config,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            counters,
            crew,
        };
        link.connection().await?;
        Ok(link)
    }

    /// The connection, made and checked if there is none.
    pub(crate) async fn connection(&self) -> Result<(Connection, u64), Error> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let attempt = tokio::time::timeout(self.config.timeout, self.make());
        let connection = attempt
            .await
            .map_err(|late| Error::unavailable("the server did not answer in time", late))??;
        let mut current = self.current.lock();
        current.number += 1;
        current.connection = Some(connection.clone());
        if current.number > 1 {
            self.counters.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        Ok((connection, current.number))
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.current.lock().connection.is_some()
    }

    /// An attempt takes half the time, so that another one is left.
    pub(crate) fn attempt_time(&self) -> Duration {
        self.config.timeout / 2
    }

    fn current(&self) -> Option<(Connection, u64)> {
        let current = self.current.lock();
        let connection = current.connection.clone()?;
        Some((connection, current.number))
    }

    /// The connection `number` does not work any more.
    pub(crate) fn lost(&self, number: u64) {
        let mut current = self.current.lock();
        if current.number == number {
            current.connection = None;
        }
    }

    async fn make(&self) -> Result<Connection, Error> {
        let mut connection = self.open().await.map_err(unreachable_server)?;
        check(&mut connection, &self.config).await?;
        self.check_layout(&mut connection).await?;
        for text in self.scripts.texts() {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(text);
            connection.ask(&load).await?;
        }
        Ok(connection)
    }

    /// Refuses a store that was made by a newer program or spread in another way.
    async fn check_layout(&self, connection: &mut Connection) -> Result<(), Error> {
        let shards = self.layout.shards() as u64;
        for (field, ours) in [("version", VERSION), ("shards", shards)] {
            let mut get = redis::cmd("HGET");
            get.arg(&self.layout.meta).arg(field);
            let mut found = connection.ask(&get).await?;
            if found == Value::Nil {
                // Only then: a server short of memory refuses it also where it would write nothing.
                let mut set = redis::cmd("HSETNX");
                set.arg(&self.layout.meta).arg(field).arg(ours);
                connection.ask(&set).await?;
                found = connection.ask(&get).await?;
            }
            let theirs: Option<u64> = redis::from_redis_value(found).ok();
            match (field, theirs) {
                (_, Some(theirs)) if theirs == ours => {}
                ("version", Some(theirs)) => return Err(Error::new(Kind::ServerVersion(theirs))),
                (_, theirs) => {
                    let text = format!(
                        "the store {} has {theirs:?} shards where this URL makes {ours}: use \
                         redis+cluster:// for a store that was made on a cluster, and only there",
                        self.config.name
                    );
                    return Err(Error::new(Kind::Url(text)));
                }
            }
        }
        Ok(())
    }
}

impl Connection {
    /// Sends one command; what the server refuses is an error.
    pub(crate) async fn ask(&mut self, cmd: &Cmd) -> Result<Value, Error> {
        self.try_ask(cmd).await.map_err(unreachable_server)
    }

    async fn try_ask(&mut self, cmd: &Cmd) -> Result<Value, RedisError> {
        let answered = match self {
            Self::Single(connection, _) => connection.req_packed_command(cmd).await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(connection) => connection.req_packed_command(cmd).await,
        };
        answered.and_then(Value::extract_error)
    }

    /// Sends commands together and gets an answer for each.
    pub(crate) async fn ask_all(
        &mut self,
        cmds: Vec<Cmd>,
    ) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
        match self {
            Self::Single(connection, _) => {
                if let [cmd] = &cmds[..] {
                    let value = connection.send_packed_command(cmd).await?;
                    return Ok(vec![value.extract_error()]);
                }
                let mut pipeline = Pipeline::with_capacity(cmds.len());
                for cmd in cmds {
                    pipeline.add_command(cmd);
                }
                let count = pipeline.len();
                let values = connection.send_packed_commands(&pipeline, 0, count).await?;
                Ok(values.into_iter().map(Value::extract_error).collect())
            }
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(connection) => {
                let mut tasks = Vec::with_capacity(cmds.len());
                for cmd in cmds {
                    let mut connection = connection.clone();
                    let asked = async move { connection.req_packed_command(&cmd).await };
                    tasks.push(tokio::spawn(asked));
                }
                let mut answers = Vec::with_capacity(tasks.len());
                for task in tasks {
                    let answer = task.await.expect("it neither panics nor is cancelled");
                    answers.push(answer.and_then(Value::extract_error));
                }
                Ok(answers)
            }
        }
    }

    /// The same question to every master.
    async fn ask_masters(&mut self, cmd: &Cmd) -> Result<Vec<Value>, RedisError> {
        match self {
            Self::Single(..) => Ok(vec![self.try_ask(cmd).await?]),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(connection) => {
                use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
                let masters = MultipleNodeRoutingInfo::AllMasters;
                let routing = RoutingInfo::MultiNode((masters, None));
                let answer = connection.route_command(cmd.clone(), routing).await;
                match answer? {
                    Value::Map(answers) => {
                        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
                    }
                    Value::Array(answers) => Ok(answers),
                    other => Ok(vec![other]),
                }
            }
        }
    }
}

/// Whether the server keeps what it acknowledges.
async fn check(connection: &mut Connection, config: &Config) -> Result<(), Error> {
    let mut info = redis::cmd("INFO");
    info.arg("server");
    let answers = connection.ask_masters(&info).await;
    for answer in answers.map_err(unreachable_server)? {
        check_version(&String::from_utf8_lossy(&bytes_of(answer)))?;
    }
    let mut role = redis::cmd("INFO");
    role.arg("replication");
    let answers = connection.ask_masters(&role).await;
    for answer in answers.map_err(unreachable_server)? {
        if String::from_utf8_lossy(&bytes_of(answer)).contains("role:slave") {
            let text = "this server is a replica and takes no writes";
            return Err(Error::unavailable("there is no master", text));
        }
    }
    if config.relaxed {
        return Ok(());
    }
    for (setting, wanted) in [
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        // With yes it does not sync while a child writes a snapshot or a new log.
        ("no-appendfsync-on-rewrite", "no"),
        ("maxmemory-policy", "noeviction"),
    ] {
        let mut get = redis::cmd("CONFIG");
        get.arg("GET").arg(setting);
        let answers = connection.ask_masters(&get).await.map_err(|error| {
            if error.code().is_none() || is_passing(&error) {
                return unreachable_server(error);
            }
            let text = format!(
                "it does not tell whether it keeps what it acknowledges (CONFIG GET {setting}: \
                 {error}); ask for durability=relaxed to use it all the same"
            );
            Error::new(Kind::Refused(text))
        })?;
        for answer in answers {
            let found = setting_of(answer);
            if found.as_deref() != Some(wanted) {
                let found = found.unwrap_or_else(|| "unknown".to_owned());
                let text = format!(
                    "{setting} is {found}, so it may lose outcomes that it acknowledged; set it \
                     to {wanted}, or ask for durability=relaxed"
                );
                return Err(Error::new(Kind::Refused(text)));
            }
        }
    }
    Ok(())
}

fn check_version(info: &str) -> Result<(), Error> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"))
        .unwrap_or("unknown");
    let major = line.split('.').next().and_then(|major| major.parse().ok());
    if major.is_none_or(|major: u32| major < 7) {
        let text = format!("its version is {line}; the store's scripts need Redis 7 or newer");
        return Err(Error::new(Kind::Refused(text)));
    }
    Ok(())
}

/// The value in an answer to CONFIG GET.
fn setting_of(answer: Value) -> Option<String> {
    let value = match answer {
        Value::Array(mut pair) => pair.pop()?,
        Value::Map(mut pairs) => pairs.pop()?.1,
        _ => return None,
    };
    Some(String::from_utf8_lossy(&bytes_of(value)).into_owned())
}

fn bytes_of(value: Value) -> Vec<u8> {
    match value {
        Value::BulkString(bytes) => bytes,
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.into_bytes(),
        _ => Vec::new(),
    }
}

pub(crate) fn unreachable_server(error: RedisError) -> Error {
    Error::unavailable("the server cannot be used", error)
}
