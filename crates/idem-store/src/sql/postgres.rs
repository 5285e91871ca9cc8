//! PostgreSQL: each operation is one statement, the state machine is in SQL.

mod in_order;
mod open;
#[cfg(feature = "postgres-tls")]
mod tls;

use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Client, Config, Statement};

use self::in_order::in_order;
use super::pool::{CHANGED, Changed, Database, Fault, Pool, key_of};
use super::row::{COMPLETED, DECLARED, DOUBTED, FAILED, FREE, Forget, HELD, Judged, Row};
use super::url::{self, Settings};
use super::{SCHEMA_VERSION, SWEEP_GRACE_MS, SWEEP_ROWS};
use crate::error::{Error, Kind};
use crate::options::Options;
use crate::remote::{Answer, Crew, Found, LATE_MS, Op, Release, Service};

/// The store that `postgres://` names.
pub(crate) fn service(url: &str, options: &Options) -> Result<Service, Error> {
    super::check_options(options)?;
    let (url, settings) = url::split(url, options)?;
    let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
        url::wrong(&format!("this URL cannot be understood: {error}"))
    })?;
    let needs_tls = config.get_ssl_mode() == SslMode::Require;
    if needs_tls && cfg!(not(feature = "postgres-tls")) {
        return Err(url::wrong(
            "sslmode=require: TLS needs the feature postgres-tls",
        ));
    }
    config
        .connect_timeout(settings.timeout)
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .application_name(format!("mainstay {}", settings.name));
    let limits = super::limits(&settings);
    let connect = async move |counters| {
        let database = Postgres {
            config,
            #[cfg(feature = "postgres-tls")]
            tls: needs_tls.then(tls::Tls::new),
            settings: settings.clone(),
        };
        Pool::connect(database, settings, counters).await
    };
    Ok(Service::new(
        "mainstay-store-postgres",
        options.clone(),
        limits,
        connect,
    ))
}

struct Postgres {
    config: Config,
    #[cfg(feature = "postgres-tls")]
    tls: Option<tls::Tls>,
    settings: Settings,
}

struct Connection {
    client: Client,
    claim: Statement,
    begin: Statement,
    declare: Statement,
    extend: Statement,
    complete: Statement,
    release: Statement,
    release_unless_declared: Statement,
    ended: Statement,
    get: Statement,
    forget: Statement,
    unresolved: Statement,
    sweep: Statement,
}

impl Database for Postgres {
    type Connection = Connection;

    async fn connect(&self, crew: &Crew) -> Result<Connection, Fault> {
        let client = self.open(crew).await.map_err(fault)?;
        let timeout_ms = self.settings.timeout.as_millis();
        let session = format!(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED;\
             SET statement_timeout = {timeout_ms}; SET lock_timeout = 0;\
             SET synchronous_commit = {}",
            if self.settings.relaxed {
                "DEFAULT"
            } else {
                "on"
            },
        );
        client.batch_execute(&session).await.map_err(fault)?;
        if !self.settings.relaxed {
            check_durable(&client).await?;
        }
        migrate(&client, &self.settings.name).await?;
        prepare(client, &self.settings.name).await.map_err(fault)
    }

    async fn serve(&self, connection: &mut Connection, op: &Op) -> Result<Answer, Fault> {
        connection.serve(op, true).await
    }

    async fn serve_all(
        &self,
        connection: &mut Connection,
        ops: &[&Op],
    ) -> Result<Vec<Result<Answer, Changed>>, Fault> {
        connection.serve_all(ops).await
    }

    async fn sweep(&self, connection: &mut Connection) -> Result<u64, Fault> {
        let Connection { client, sweep, .. } = connection;
        // A number of its own, so that it bounds what of the index is read.
        let now = client.query_one(&format!("SELECT {NOW}"), &[]).await;
        let now_ms: i64 = column(&now.map_err(fault)?, 0)?;
        let (until_ms, rows) = (now_ms - SWEEP_GRACE_MS as i64, SWEEP_ROWS as i64);
        let swept = client.execute(sweep, &[&until_ms, &rows]).await;
        swept.map_err(fault)
    }
}

/// Refuses a server that loses what it acknowledged when its machine fails.
async fn check_durable(client: &Client) -> Result<(), Fault> {
    for setting in ["fsync", "full_page_writes"] {
        let row = client.query_one(&format!("SHOW {setting}"), &[]).await;
        let value: String = row.map_err(fault)?.get(0);
        if value != "on" {
            let text = format!(
                "it runs with {setting} = {value}; set it to on, or connect with durability=relaxed"
            );
            return Err(Fault::Final(Error::new(Kind::Refused(text))));
        }
    }
    Ok(())
}

/// What the index of the unresolved holds: the planner takes it where this stands word by word.
const UNRESOLVED: &str = "state IN (1, 2)";
const _: () = assert!(DECLARED == 1 && DOUBTED == 2);

/// The statements that make version 3 of nothing or of an older one, each safe to repeat.
fn schema(name: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {name}_schema (version bigint NOT NULL);
         CREATE SEQUENCE IF NOT EXISTS {name}_token;
         CREATE TABLE IF NOT EXISTS {name}_keys (
            key bytea PRIMARY KEY,
            state smallint NOT NULL,
            token bigint NOT NULL,
            claim bytea NOT NULL,
            fingerprint bytea NOT NULL,
            lease_until_ms bigint NOT NULL,
            since_ms bigint NOT NULL,
            expires_ms bigint,
            memo bytea NOT NULL,
            outcome bytea
         ) WITH (fillfactor = 80);
         CREATE INDEX IF NOT EXISTS {name}_keys_expires ON {name}_keys (expires_ms) WHERE expires_ms IS NOT NULL;
         CREATE INDEX IF NOT EXISTS {name}_keys_unresolved ON {name}_keys (token) WHERE {UNRESOLVED};
         ALTER TABLE {name}_keys ADD COLUMN IF NOT EXISTS declares bigint NOT NULL DEFAULT 0;
         INSERT INTO {name}_schema SELECT {SCHEMA_VERSION} WHERE NOT EXISTS (SELECT FROM {name}_schema);
         UPDATE {name}_schema SET version = {SCHEMA_VERSION} WHERE version < {SCHEMA_VERSION}"
    )
}

async fn migrate(client: &Client, name: &str) -> Result<(), Fault> {
    let version = format!("SELECT max(version) FROM {name}_schema");
    let read = || client.query_one(&version, &[]);
    let found: Option<i64> = match read().await {
        Ok(row) => column(&row, 0)?,
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => None,
        Err(error) => return Err(fault(error)),
    };
    match found.map(i64::cast_unsigned) {
        Some(SCHEMA_VERSION) => return Ok(()),
        Some(newer) if newer > SCHEMA_VERSION => {
            return Err(Fault::Final(Error::new(Kind::ServerVersion(newer))));
        }
        _ => {}
    }
    // One at a time: CREATE IF NOT EXISTS alone can meet another that does the same. An index of
    // many rows takes longer than an operation may.
    let locked = format!(
        "BEGIN; SET LOCAL statement_timeout = 0;
         SELECT pg_advisory_xact_lock(hashtext('{name}_schema')); {}; COMMIT",
        schema(name)
    );
    let made = client.batch_execute(&locked).await;
    if let Err(error) = made {
        drop(client.batch_execute("ROLLBACK").await);
        return Err(fault(error));
    }
    Ok(())
}

/// The server's clock, read when the row's lock is held.
const NOW: &str = "(date_part('epoch', clock_timestamp()) * 1000)::bigint";

const ROW: &str = "k.state, k.token, k.claim, k.fingerprint, k.lease_until_ms, k.since_ms, \
                   coalesce(k.expires_ms, 0), k.memo, coalesce(k.outcome, '')";

/// The row of a new key, from the parameters of a begin.
fn insert_sql(name: &str) -> String {
    format!(
        "INSERT INTO {name}_keys AS k
            (key, state, token, claim, fingerprint, lease_until_ms, since_ms, expires_ms, memo)
         VALUES ($1, $5::smallint, nextval('{name}_token'), $2, $3, {NOW} + $4::bigint, {NOW},
            CASE WHEN $5::smallint = {HELD} THEN {NOW} + $4::bigint + {LATE_MS} END, $6::bytea)"
    )
}

fn begin_sql(name: &str) -> String {
    let doubt = format!("k.state IN ({DECLARED}, {DOUBTED})");
    let insert = insert_sql(name);
    format!(
        "WITH mine AS ({insert}
            ON CONFLICT (key) DO UPDATE SET
                state = CASE WHEN {doubt} THEN {DOUBTED} ELSE EXCLUDED.state END,
                token = nextval('{name}_token'),
                claim = EXCLUDED.claim,
                fingerprint = EXCLUDED.fingerprint,
                lease_until_ms = {NOW} + $4::bigint,
                since_ms = CASE WHEN {doubt} THEN k.since_ms ELSE EXCLUDED.since_ms END,
                expires_ms = CASE WHEN {doubt} OR $5::smallint <> {HELD} THEN NULL
                    ELSE {NOW} + $4::bigint + {LATE_MS} END,
                memo = CASE WHEN {doubt} THEN k.memo ELSE EXCLUDED.memo END,
                declares = 0,
                outcome = NULL
            WHERE (k.state = {FREE} OR k.claim <> EXCLUDED.claim) AND CASE
                WHEN {doubt} THEN k.lease_until_ms <= {NOW} AND k.fingerprint = EXCLUDED.fingerprint
                WHEN k.state = {HELD} THEN k.lease_until_ms <= {NOW}
                WHEN k.state IN ({COMPLETED}, {FAILED}) THEN k.expires_ms <= {NOW}
                ELSE true END
            RETURNING state, token, memo)
         SELECT true, state, token, NULL::bytea, NULL::bytea, 0::bigint, 0::bigint, 0::bigint,
                memo, NULL::bytea, 0::bigint FROM mine
         UNION ALL
         SELECT false, {ROW}, {NOW} FROM {name}_keys k
         WHERE k.key = $1 AND NOT EXISTS (SELECT FROM mine)"
    )
}

async fn prepare(client: Client, name: &str) -> Result<Connection, tokio_postgres::Error> {
    let claim = insert_sql(name) + " ON CONFLICT (key) DO NOTHING RETURNING token";
    let held = format!("key = $1 AND token = $2 AND state IN ({HELD}, {DECLARED}, {DOUBTED})");
    let update = |set: &str| format!("UPDATE {name}_keys SET {set} WHERE {held}");
    let freed = format!("expires_ms = {NOW}, memo = '', outcome = NULL");
    let declare = update(&format!(
        "state = CASE WHEN state = {HELD} THEN {DECLARED} ELSE state END, expires_ms = NULL, memo = $4, declares = $3"
    )) + " AND declares < $3";
    let extend = update(&format!(
        "lease_until_ms = {NOW} + $3, expires_ms = CASE WHEN state = {HELD} THEN {NOW} + $3 + {LATE_MS} END"
    ));
    let complete = update(&format!(
        "state = $3, expires_ms = {NOW} + $4, memo = '', outcome = $5"
    ));
    let release = update(&format!("state = {FREE}, {freed}"));
    let release_unless_declared = update(&format!(
        "state = CASE WHEN state = {HELD} THEN {FREE} ELSE state END, lease_until_ms = 0,
         expires_ms = CASE WHEN state = {HELD} THEN {NOW} END"
    )) + " RETURNING state";
    let ended = format!("SELECT state FROM {name}_keys WHERE key = $1 AND token = $2");
    let get = format!("SELECT {ROW}, {NOW} FROM {name}_keys k WHERE key = $1");
    let forget = format!(
        "UPDATE {name}_keys SET state = {FREE}, token = 0, {freed}
         WHERE key = $1 AND token = $2 AND state <> {FREE}"
    );
    let unresolved = format!(
        "SELECT {ROW}, {NOW}, k.key FROM {name}_keys k
         WHERE {UNRESOLVED} AND token > $1 ORDER BY token LIMIT $2"
    );
    // An array, so that the rows are found by their keys whatever the table's statistics say.
    let sweep = format!(
        "DELETE FROM {name}_keys WHERE key = ANY (ARRAY(SELECT key FROM {name}_keys
         WHERE expires_ms <= $1 ORDER BY expires_ms LIMIT $2 FOR UPDATE SKIP LOCKED))"
    );
    Ok(Connection {
        claim: client.prepare(&claim).await?,
        begin: client.prepare(&begin_sql(name)).await?,
        declare: client.prepare(&declare).await?,
        extend: client.prepare(&extend).await?,
        complete: client.prepare(&complete).await?,
        release: client.prepare(&release).await?,
        release_unless_declared: client.prepare(&release_unless_declared).await?,
        ended: client.prepare(&ended).await?,
        get: client.prepare(&get).await?,
        forget: client.prepare(&forget).await?,
        unresolved: client.prepare(&unresolved).await?,
        sweep: client.prepare(&sweep).await?,
        client,
    })
}

impl Connection {
    /// `may_ask_twice`: a begin takes the cheaper way, which asks again when its key is known.
    async fn serve(&self, op: &Op, may_ask_twice: bool) -> Result<Answer, Fault> {
        match op {
            Op::Begin { .. } => self.begin(op, may_ask_twice).await,
            Op::Declare {
                key,
                token,
                number,
                memo,
            } => {
                let more: [&(dyn ToSql + Sync); 2] = [&number.cast_signed(), &&memo[..]];
                self.end(&self.declare, key, *token, &more, &[DECLARED, DOUBTED])
                    .await
            }
            Op::Extend {
                key,
                token,
                lease_ms,
            } => {
                let lease_ms = lease_ms.cast_signed();
                self.end(&self.extend, key, *token, &[&lease_ms], &[]).await
            }
            Op::Complete {
                key,
                token,
                failed,
                retain_ms,
                outcome,
            } => {
                let state = if *failed { FAILED } else { COMPLETED };
                let retain_ms = retain_ms.cast_signed();
                let more: [&(dyn ToSql + Sync); 3] = [&state, &retain_ms, &&outcome[..]];
                self.end(&self.complete, key, *token, &more, &[COMPLETED, FAILED])
                    .await
            }
            Op::Release {
                key,
                token,
                release: Release::Always,
            } => self.end(&self.release, key, *token, &[], &[FREE]).await,
            Op::Release { key, token, .. } => self.release_unless_declared(key, *token).await,
            Op::Get { key } => {
                let row = self.look(key).await?;
                let lookup = row.map_or(crate::Lookup::Absent, |row| row.lookup(key));
                Ok(Answer::Found(lookup))
            }
            Op::Forget { key, found } => self.forget(key, found).await,
            Op::Unresolved {
                after_token,
                count_max,
            } => self.unresolved(*after_token, *count_max).await,
            Op::Flush | Op::Stop => Ok(Answer::Done),
        }
    }

    /// One transaction, sent without waiting for the answers in between.
    async fn serve_all(&self, ops: &[&Op]) -> Result<Vec<Result<Answer, Changed>>, Fault> {
        let client = &self.client;
        let begun = async { client.batch_execute("BEGIN").await.map_err(fault) };
        let committed = async { client.batch_execute("COMMIT").await.map_err(fault) };
        // What asks again does so after the COMMIT: others on its key would overtake it.
        let same = |one: &Op, two: Option<&&Op>| two.is_some_and(|two| key_of(one) == key_of(two));
        let mut left = None;
        let served = ops.iter().enumerate().map(|(at, op)| {
            let is_alone = !same(op, ops.get(at + 1)) && (at == 0 || !same(op, ops.get(at - 1)));
            if matches!(op, Op::Forget { .. }) && !is_alone {
                left = key_of(op);
            }
            let is_left = left.is_some() && left == key_of(op);
            async move {
                match is_left {
                    // A forget asks twice in any case.
                    true => Err(Fault::changed()),
                    false => self.serve(op, is_alone).await,
                }
            }
        });
        let (begun, answers, committed) = in_order(begun, served, committed).await;
        begun?;
        let answers = answers.into_iter().map(|answer| match answer {
            Err(Fault::Passing(why)) if why == CHANGED => Ok(Err(Changed)),
            Err(fault) => Err(fault),
            Ok(answer) => Ok(Ok(answer)),
        });
        // A statement that failed has turned the COMMIT into a rollback, which is no error.
        let answers = answers.collect::<Result<Vec<_>, Fault>>()?;
        committed?;
        Ok(answers)
    }

    async fn look(&self, key: &[u8]) -> Result<Option<Row>, Fault> {
        let row = self.client.query_opt(&self.get, &[&key]).await;
        row.map_err(fault)?.map(|row| read(&row, 0)).transpose()
    }

    async fn begin(&self, op: &Op, may_ask_twice: bool) -> Result<Answer, Fault> {
        let Op::Begin {
            key,
            fingerprint,
            lease_ms,
            claim,
            declared,
            memo,
        } = op
        else {
            unreachable!("asked for a begin only");
        };
        let state = if *declared { DECLARED } else { HELD };
        let lease_ms = lease_ms.cast_signed();
        let parameters: [&(dyn ToSql + Sync); 6] = [
            &&key[..],
            &&claim.0[..],
            &&fingerprint.0[..],
            &lease_ms,
            &state,
            &&memo[..],
        ];
        if may_ask_twice {
            let row = self.client.query_opt(&self.claim, &parameters).await;
            if let Some(row) = row.map_err(fault)? {
                let token = column::<i64>(&row, 0)?.cast_unsigned();
                return Ok(Answer::Fresh { token });
            }
            // Mostly it is only looked at, which locks and writes nothing.
            if let Some(row) = self.look(key).await?
                && let Judged::Answer(answer) = row.judge(*claim, fingerprint)
            {
                return Ok(answer);
            }
        }
        let row = self.client.query_opt(&self.begin, &parameters).await;
        let Some(row) = row.map_err(fault)? else {
            // It was made after this statement began to look.
            return Err(Fault::changed());
        };
        if column(&row, 0)? {
            let token = column::<i64>(&row, 2)?.cast_unsigned();
            return Ok(match column(&row, 1)? {
                DOUBTED => Answer::InDoubt {
                    token,
                    memo: column(&row, 8)?,
                },
                _ => Answer::Fresh { token },
            });
        }
        match read(&row, 1)?.judge(*claim, fingerprint) {
            Judged::Answer(answer) => Ok(answer),
            // What was read is older than what the statement had locked.
            Judged::Take | Judged::TakeDoubt => Err(Fault::changed()),
        }
    }

    async fn forget(&self, key: &[u8], found: &Found) -> Result<Answer, Fault> {
        let token = match Forget::find(self.look(key).await?, found)? {
            Forget::Answer(answer) => return Ok(answer),
            Forget::With(token) => token,
        };
        let is_first = found.token().is_none();
        found.set(Some(token));
        let parameters: [&(dyn ToSql + Sync); 2] = [&key, &token.cast_signed()];
        let rows = self.client.execute(&self.forget, &parameters).await;
        if rows.map_err(fault)? > 0 {
            return Ok(Answer::Known(true));
        }
        if is_first {
            // It was answered, so it cannot be late.
            found.set(None);
        }
        Err(Fault::changed())
    }

    /// A statement that only the holder's token lets through. `ended`: the states in which the row
    /// is when it had come through before and the answer was lost.
    async fn end(
        &self,
        statement: &Statement,
        key: &[u8],
        token: u64,
        more: &[&(dyn ToSql + Sync)],
        ended: &[i16],
    ) -> Result<Answer, Fault> {
        let token = token.cast_signed();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&key, &token];
        parameters.extend_from_slice(more);
        let rows = self.client.execute(statement, &parameters).await;
        if rows.map_err(fault)? > 0 {
            return Ok(Answer::Done);
        }
        self.ended(key, token, ended).await
    }

    async fn release_unless_declared(&self, key: &[u8], token: u64) -> Result<Answer, Fault> {
        let token = token.cast_signed();
        let statement = &self.release_unless_declared;
        let row = self.client.query_opt(statement, &[&key, &token]).await;
        let state = row.map_err(fault)?.map(|row| column(&row, 0));
        match state.transpose()? {
            Some(FREE) => Ok(Answer::Done),
            Some(_) => Ok(Answer::LeftInDoubt),
            None => self.ended(key, token, &[FREE]).await,
        }
    }

    async fn ended(&self, key: &[u8], token: i64, states: &[i16]) -> Result<Answer, Fault> {
        if states.is_empty() {
            return Ok(Answer::Fenced);
        }
        let row = self.client.query_opt(&self.ended, &[&key, &token]).await;
        let state = row.map_err(fault)?.map(|row| column(&row, 0));
        Ok(match state.transpose()? {
            Some(state) if states.contains(&state) => Answer::Done,
            _ => Answer::Fenced,
        })
    }

    async fn unresolved(&self, after_token: u64, count_max: usize) -> Result<Answer, Fault> {
        let after = i64::try_from(after_token).unwrap_or(i64::MAX);
        let limit = i64::try_from(count_max).unwrap_or(i64::MAX);
        let rows = self.client.query(&self.unresolved, &[&after, &limit]).await;
        let rows = rows.map_err(fault)?;
        let list = rows
            .iter()
            .map(|row| Ok(read(row, 0)?.unresolved(column(row, 10)?)));
        Ok(Answer::List(list.collect::<Result<_, Fault>>()?))
    }
}

/// The columns of `ROW` and `NOW`, from `at` on.
fn read(row: &tokio_postgres::Row, at: usize) -> Result<Row, Fault> {
    let number = |offset: usize| column(row, at + offset).map(i64::cast_unsigned);
    let fingerprint: &[u8] = column(row, at + 3)?;
    Ok(Row {
        state: column(row, at)?,
        token: number(1)?,
        claim: column(row, at + 2)?,
        fingerprint: fingerprint.try_into().map_err(|_| unreadable())?,
        lease_until_ms: number(4)?,
        since_ms: number(5)?,
        expires_ms: number(6)?,
        memo: column(row, at + 7)?,
        outcome: column(row, at + 8)?,
        now_ms: number(9)?,
    })
}

/// A column of tables that somebody else may have made.
fn column<'a, T: FromSql<'a>>(row: &'a tokio_postgres::Row, at: usize) -> Result<T, Fault> {
    row.try_get(at).map_err(|_| unreadable())
}

fn unreadable() -> Fault {
    Fault::Final(Error::new(Kind::Unreadable(
        "a row is not as it was written",
    )))
}

fn fault(error: tokio_postgres::Error) -> Fault {
    let text = match error.as_db_error() {
        Some(error) => format!("{}: {}", error.code().code(), error.message()),
        // Such as what is wrong with a certificate.
        None => match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    };
    let Some(code) = error.code() else {
        return Fault::Lost(text);
    };
    // The first two characters are the class (PostgreSQL's manual, appendix A).
    match &code.code()[..2] {
        // Serialization failure, deadlock; lock not available, cancelled by a timeout.
        "40" | "55" | "57" if !code.code().starts_with("57P") => Fault::Passing(text),
        // Connections, resources, shutting down and starting; a server that became read-only.
        "08" | "57" | "25" => Fault::Lost(text),
        "53" if *code == SqlState::DISK_FULL => Fault::Final(Error::new(Kind::ServerFull)),
        "53" => Fault::Lost(text),
        // Wrong password, no such database, no rights.
        "28" | "3D" => Fault::Final(Error::unavailable("log in to the database", text)),
        _ => Fault::Final(Error::unavailable("use the database", text)),
    }
}
