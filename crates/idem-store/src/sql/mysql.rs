//! MariaDB and MySQL: new keys and what holders do go the quick way, see `quick`; otherwise the row is read
//! FOR UPDATE, the state machine is in Rust, the row is written.
//!
//! Under READ COMMITTED a missing row locks no gap, so callers on new keys that lie beside each other
//! do not wait for each other; two on the same new key meet in the primary key, and the second one
//! tries again. Tokens come from an AUTO_INCREMENT, drawn while the row's lock is held.

mod quick;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, TxOpts, Value};

use super::pool::{Changed, Database, Fault, Pool};
use super::row::{COMPLETED, DECLARED, DOUBTED, FAILED, FREE, Forget, HELD, Judged, Row};
use super::url::{self, Settings};
use super::{SCHEMA_VERSION, SWEEP_GRACE_MS, SWEEP_ROWS};
use crate::error::{Error, Kind};
use crate::options::Options;
use crate::remote::{Answer, Crew, Found, LATE_MS, Op, Release, Service};

/// The store that `mysql://` or `mariadb://` names.
pub(crate) fn service(url: &str, options: &Options) -> Result<Service, Error> {
    super::check_options(options)?;
    let (url, settings) = url::split(url, options)?;
    let url = match url.strip_prefix("mariadb://") {
        Some(rest) => format!("mysql://{rest}"),
        None => url,
    };
    let opts = Opts::from_url(&url)
        .map_err(|error| url::wrong(&format!("this URL cannot be understood: {error}")))?;
    if opts.ssl_opts().is_some() {
        return Err(url::wrong(
            "require_ssl=true: this program speaks no TLS to MariaDB and MySQL",
        ));
    }
    let lock_wait_s = settings.timeout.as_secs().max(1);
    let opts = OptsBuilder::from_opts(opts)
        // An update that changes nothing has found its row all the same.
        .client_found_rows(true)
        .prefer_socket(false)
        .setup(vec![
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            // A server may have other defaults; what is one statement would wait for a COMMIT then.
            "SET SESSION autocommit = 1, completion_type = 'NO_CHAIN'",
            // UNIX_TIMESTAMP reads SYSDATE in the session's time zone; another has hours twice.
            "SET SESSION time_zone = '+00:00'",
            &format!("SET SESSION innodb_lock_wait_timeout = {lock_wait_s}"),
        ]);
    let database = Mysql {
        opts: opts.into(),
        sql: Sql::new(&settings.name),
        quick: quick::Quick::new(&settings.name),
        payload_max: options.outcome_bytes_max.max(options.memo_bytes_max),
        settings: settings.clone(),
    };
    let limits = super::limits(&settings);
    let connect = |counters| Pool::connect(database, settings, counters);
    Ok(Service::new(
        "mainstay-store-mysql",
        options.clone(),
        limits,
        connect,
    ))
}

struct Mysql {
    opts: Opts,
    sql: Sql,
    quick: quick::Quick,
    /// Longest outcome or memo.
    payload_max: u32,
    settings: Settings,
}

/// What only the holder's token lets through, as one statement.
struct Held<'a> {
    statement: &'a str,
    parameters: Vec<Value>,
    /// The states in which the row is when it had come through before and the answer was lost.
    ended: &'static [i16],
}

/// The statements; the client prepares each once for a connection.
struct Sql {
    schema: [String; 7],
    version: String,
    select: String,
    lock: String,
    token: String,
    insert: String,
    take: String,
    take_doubt: String,
    declare: String,
    extend: String,
    complete: String,
    release: String,
    release_unless_declared: String,
    forget: String,
    unresolved: String,
    now: String,
    sweep: String,
    newest_token: String,
    sweep_tokens: String,
}

/// The server's clock, read when the row's lock is held.
const NOW: &str = "CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS UNSIGNED)";

const ROW: &str =
    "state, token, claim, fingerprint, lease_until_ms, since_ms, expires_ms, memo, outcome";

impl Sql {
    fn new(name: &str) -> Self {
        let keys = format!("{name}_keys");
        let held = format!("id = ? AND token = ? AND state IN ({HELD}, {DECLARED}, {DOUBTED})");
        let freed = format!("expires_ms = {NOW}, memo = '', outcome = NULL");
        // Assignments go from left to right and see what is to their left: the state comes last.
        let update = |set: &str| format!("UPDATE {keys} SET {set} WHERE {held}");
        let unresolved = |state| {
            format!(
                "SELECT {ROW}, id FROM {keys} WHERE state = {state} AND token > ? ORDER BY token LIMIT ?"
            )
        };
        Self {
            schema: [
                format!("CREATE TABLE IF NOT EXISTS {name}_schema (version BIGINT UNSIGNED PRIMARY KEY) ENGINE=InnoDB"),
                format!("CREATE TABLE IF NOT EXISTS {name}_token (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB"),
                format!(
                    "CREATE TABLE IF NOT EXISTS {keys} (
                        id VARBINARY({}) PRIMARY KEY, state SMALLINT NOT NULL, token BIGINT UNSIGNED NOT NULL,
                        claim BINARY(16) NOT NULL, fingerprint BINARY(32) NOT NULL,
                        lease_until_ms BIGINT UNSIGNED NOT NULL, since_ms BIGINT UNSIGNED NOT NULL,
                        expires_ms BIGINT UNSIGNED NULL, memo MEDIUMBLOB NOT NULL, outcome MEDIUMBLOB NULL,
                        KEY expires (expires_ms)) ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
                    super::KEY_BYTES_MAX
                ),
                // Version 2. MySQL knows no IF NOT EXISTS here: see `migrate`.
                format!("ALTER TABLE {keys} ADD KEY unresolved (state, token)"),
                // Version 3, likewise.
                format!("ALTER TABLE {keys} ADD COLUMN declares BIGINT UNSIGNED NOT NULL DEFAULT 0"),
                format!("INSERT IGNORE INTO {name}_schema VALUES ({SCHEMA_VERSION})"),
                format!("DELETE FROM {name}_schema WHERE version < {SCHEMA_VERSION}"),
            ],
            version: format!("SELECT MAX(version) FROM {name}_schema"),
            select: format!("SELECT {ROW}, {NOW} FROM {keys} WHERE id = ?"),
            lock: format!("SELECT {ROW}, {NOW} FROM {keys} WHERE id = ? FOR UPDATE"),
            token: format!("INSERT INTO {name}_token VALUES ()"),
            insert: format!(
                "INSERT INTO {keys} (id, state, token, claim, fingerprint, lease_until_ms, since_ms, expires_ms, memo)
                 VALUES (?, ?, ?, ?, ?, {NOW} + ?, {NOW}, {NOW} + ?, ?)"
            ),
            take: format!(
                "UPDATE {keys} SET state = ?, token = ?, claim = ?, fingerprint = ?, lease_until_ms = {NOW} + ?,
                 since_ms = {NOW}, expires_ms = {NOW} + ?, memo = ?, declares = 0, outcome = NULL WHERE id = ?"
            ),
            take_doubt: format!(
                "UPDATE {keys} SET state = {DOUBTED}, token = ?, claim = ?, lease_until_ms = {NOW} + ?, declares = 0 WHERE id = ?"
            ),
            declare: format!(
                "UPDATE {keys} SET expires_ms = NULL, memo = ?, declares = ?,
                 state = CASE WHEN state = {HELD} THEN {DECLARED} ELSE state END WHERE {held} AND declares < ?"
            ),
            extend: update(&format!(
                "lease_until_ms = {NOW} + ?, expires_ms = CASE WHEN state = {HELD} THEN lease_until_ms + {LATE_MS} END"
            )),
            complete: update(&format!(
                "expires_ms = {NOW} + ?, memo = '', outcome = ?, state = ?"
            )),
            release: update(&format!("{freed}, state = {FREE}")),
            release_unless_declared: update(&format!(
                "lease_until_ms = 0, expires_ms = CASE WHEN state = {HELD} THEN {NOW} END,
                 state = CASE WHEN state = {HELD} THEN {FREE} ELSE state END"
            )),
            forget: format!(
                "UPDATE {keys} SET {freed}, token = 0, state = {FREE} WHERE id = ? AND token = ? AND state <> {FREE}"
            ),
            // Each half is in the order of its index and ends after a page.
            unresolved: format!(
                "SELECT {ROW}, {NOW}, id FROM (({}) UNION ALL ({})) page ORDER BY token LIMIT ?",
                unresolved(DECLARED),
                unresolved(DOUBTED)
            ),
            now: format!("SELECT {NOW}"),
            sweep: format!(
                "DELETE FROM {keys} WHERE expires_ms <= ?
                 ORDER BY expires_ms LIMIT {SWEEP_ROWS}"
            ),
            newest_token: format!("SELECT MAX(id) FROM {name}_token"),
            // The newest row stays: an empty table could start anew.
            sweep_tokens: format!("DELETE FROM {name}_token WHERE id < ? ORDER BY id LIMIT {SWEEP_ROWS}"),
        }
    }
}

impl Database for Mysql {
    type Connection = Conn;

    async fn connect(&self, _crew: &Crew) -> Result<Conn, Fault> {
        let mut conn = Conn::new(self.opts.clone()).await.map_err(fault)?;
        if !self.settings.relaxed {
            check_durable(&mut conn).await?;
        }
        self.check_packets(&mut conn).await?;
        self.migrate(&mut conn).await?;
        self.bound_statements(&mut conn).await?;
        Ok(conn)
    }

    async fn serve(&self, conn: &mut Conn, op: &Op) -> Result<Answer, Fault> {
        let sql = &self.sql;
        match op {
            Op::Begin { .. } => self.begin(conn, op).await,
            Op::Declare { key, token, .. }
            | Op::Extend { key, token, .. }
            | Op::Complete { key, token, .. }
            | Op::Release {
                key,
                token,
                release: Release::Always,
            } => self.end(conn, op, key, *token).await,
            Op::Release { key, token, .. } => self.release_unless_declared(conn, key, *token).await,
            Op::Get { key } => {
                let row = self.read(conn, &sql.select, key).await?;
                let lookup = row.map_or(crate::Lookup::Absent, |row| row.lookup(key));
                Ok(Answer::Found(lookup))
            }
            Op::Forget { key, found } => self.forget(conn, key, found).await,
            Op::Unresolved {
                after_token,
                count_max,
            } => self.unresolved(conn, *after_token, *count_max).await,
            Op::Flush | Op::Stop => Ok(Answer::Done),
        }
    }

    async fn serve_all(
        &self,
        conn: &mut Conn,
        ops: &[&Op],
    ) -> Result<Vec<Result<Answer, Changed>>, Fault> {
        let answers = self.serve_quickly(conn, ops).await?;
        Ok(answers.into_iter().map(|a| a.ok_or(Changed)).collect())
    }

    async fn sweep(&self, conn: &mut Conn) -> Result<u64, Fault> {
        let sql = &self.sql;
        // A number of its own, so that it bounds what of the index is read.
        let now: Option<u64> = conn.query_first(&sql.now).await.map_err(fault)?;
        let until_ms = now.ok_or_else(unreadable)?.saturating_sub(SWEEP_GRACE_MS);
        let swept = conn.exec_drop(&sql.sweep, (until_ms,)).await;
        swept.map_err(fault)?;
        let keys = conn.affected_rows();
        let newest: Option<Option<u64>> =
            conn.query_first(&sql.newest_token).await.map_err(fault)?;
        let newest = newest.flatten().unwrap_or_default();
        let swept = conn.exec_drop(&sql.sweep_tokens, (newest,)).await;
        swept.map_err(fault)?;
        Ok(keys.max(conn.affected_rows()))
    }
}

/// Refuses a server that loses what it acknowledged when its machine fails.
async fn check_durable(conn: &mut Conn) -> Result<(), Fault> {
    let settings = "SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog";
    let found = conn.query_first(settings).await.map_err(fault)?;
    let (flush, has_binlog, sync_binlog): (u64, u64, u64) = found.ok_or_else(unreadable)?;
    let wrong = if flush != 1 {
        "innodb_flush_log_at_trx_commit"
    } else if has_binlog != 0 && sync_binlog != 1 {
        // What InnoDB prepared and the binary log lost is rolled back after a power cut.
        "log_bin = ON and sync_binlog"
    } else {
        return Ok(());
    };
    let text = format!(
        "it runs with {wrong} other than 1; set it to 1, or connect with durability=relaxed"
    );
    Err(Fault::Final(Error::new(Kind::Refused(text))))
}

impl Mysql {
    /// Refuses a server that would not take the longest message.
    async fn check_packets(&self, conn: &mut Conn) -> Result<(), Fault> {
        /// The rest of a statement: the key and what is as short.
        const REST: u64 = 64 << 10;
        let found = conn.query_first("SELECT @@max_allowed_packet").await;
        let takes: u64 = found.map_err(fault)?.ok_or_else(unreadable)?;
        if takes < u64::from(self.payload_max).max(quick::TEXT_MAX as u64) + REST {
            let what = "the server's max_allowed_packet is below what outcome_bytes_max, memo_bytes_max \
                        or a batch of 1 MiB needs, and 64 KiB";
            return Err(Fault::Final(Error::new(Kind::Options(what))));
        }
        Ok(())
    }

    /// Not what makes the tables: an index of many rows takes longer than an operation may.
    async fn bound_statements(&self, conn: &mut Conn) -> Result<(), Fault> {
        const UNKNOWN_VARIABLE: u16 = 1193;
        let seconds = self.settings.timeout.as_secs_f64();
        let bound = format!("SET SESSION max_statement_time = {seconds:.3}");
        match conn.query_drop(bound).await {
            // MySQL, which can bound what only reads, and how long others wait for locks.
            Err(mysql_async::Error::Server(error)) if error.code == UNKNOWN_VARIABLE => Ok(()),
            done => done.map_err(fault),
        }
    }

    async fn migrate(&self, conn: &mut Conn) -> Result<(), Fault> {
        const NO_SUCH_TABLE: u16 = 1146;
        const SUCH_COLUMN_EXISTS: u16 = 1060;
        const SUCH_KEY_EXISTS: u16 = 1061;
        let found: Option<u64> = match conn.query_first(&self.sql.version).await {
            Ok(version) => version.flatten(),
            Err(mysql_async::Error::Server(error)) if error.code == NO_SUCH_TABLE => None,
            Err(error) => return Err(fault(error)),
        };
        match found {
            Some(SCHEMA_VERSION) => Ok(()),
            Some(newer) if newer > SCHEMA_VERSION => {
                Err(Fault::Final(Error::new(Kind::ServerVersion(newer))))
            }
            _ => {
                // Each is safe to repeat and to do twice at once; the version comes last.
                for statement in &self.sql.schema {
                    match conn.query_drop(statement).await {
                        Err(mysql_async::Error::Server(error))
                            if matches!(error.code, SUCH_COLUMN_EXISTS | SUCH_KEY_EXISTS) => {}
                        done => done.map_err(fault)?,
                    }
                }
                Ok(())
            }
        }
    }

    async fn begin(&self, conn: &mut Conn, op: &Op) -> Result<Answer, Fault> {
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
        let quick = self.serve_quickly(conn, &[op]).await?;
        if let Some(answer) = quick.into_iter().flatten().next() {
            return Ok(answer);
        }
        let (sql, key) = (&self.sql, &key[..]);
        // Mostly it is only looked at.
        if let Some(row) = self.read(conn, &sql.select, key).await?
            && let Judged::Answer(answer) = row.judge(*claim, fingerprint)
        {
            return Ok(answer);
        }
        let mut tx = conn.start_transaction(TxOpts::new()).await.map_err(fault)?;
        let found = self.read(&mut tx, &sql.lock, key).await?;
        let exists = found.is_some();
        let mut doubt = None;
        match found {
            None => {}
            Some(row) => {
                let memo = row.memo.clone();
                match row.judge(*claim, fingerprint) {
                    Judged::Answer(answer) => {
                        tx.rollback().await.map_err(fault)?;
                        return Ok(answer);
                    }
                    Judged::Take => {}
                    Judged::TakeDoubt => doubt = Some(memo),
                }
            }
        }
        tx.query_drop(&sql.token).await.map_err(fault)?;
        let token = tx.last_insert_id().unwrap_or_default();
        let state = if *declared { DECLARED } else { HELD };
        let expires_in = (!declared).then_some(lease_ms + LATE_MS);
        let (claim, print, memo) = (&claim.0[..], &fingerprint.0[..], &memo[..]);
        let written = if doubt.is_some() {
            let parameters = (token, claim, lease_ms, key);
            tx.exec_drop(&sql.take_doubt, parameters).await
        } else if exists {
            let parameters = (state, token, claim, print, lease_ms, expires_in, memo, key);
            tx.exec_drop(&sql.take, parameters).await
        } else {
            let parameters = (key, state, token, claim, print, lease_ms, expires_in, memo);
            tx.exec_drop(&sql.insert, parameters).await
        };
        written.map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(match doubt {
            Some(memo) => Answer::InDoubt { token, memo },
            None => Answer::Fresh { token },
        })
    }

    async fn forget(&self, conn: &mut Conn, key: &[u8], found: &Found) -> Result<Answer, Fault> {
        let row = self.read(conn, &self.sql.select, key).await?;
        let token = match Forget::find(row, found)? {
            Forget::Answer(answer) => return Ok(answer),
            Forget::With(token) => token,
        };
        let is_first = found.token().is_none();
        found.set(Some(token));
        let done = conn.exec_drop(&self.sql.forget, (key, token)).await;
        done.map_err(fault)?;
        if conn.affected_rows() > 0 {
            return Ok(Answer::Known(true));
        }
        if is_first {
            // It was answered, so it cannot be late.
            found.set(None);
        }
        Err(Fault::changed())
    }

    fn held<'a>(&'a self, op: &'a Op) -> Option<Held<'a>> {
        let sql = &self.sql;
        let (statement, parameters, ended): (_, Vec<Value>, &[i16]) = match op {
            Op::Declare {
                key,
                token,
                number,
                memo,
            } => {
                let (memo, key) = ((&memo[..]).into(), (&key[..]).into());
                let parameters = vec![memo, number.into(), key, token.into(), number.into()];
                (&sql.declare, parameters, &[DECLARED, DOUBTED])
            }
            Op::Extend {
                key,
                token,
                lease_ms,
            } => {
                let parameters = vec![lease_ms.into(), (&key[..]).into(), token.into()];
                (&sql.extend, parameters, &[])
            }
            Op::Complete {
                key,
                token,
                failed,
                retain_ms,
                outcome,
            } => {
                let state = if *failed { FAILED } else { COMPLETED };
                let (key, outcome) = ((&key[..]).into(), (&outcome[..]).into());
                let parameters = vec![retain_ms.into(), outcome, state.into(), key, token.into()];
                (&sql.complete, parameters, &[COMPLETED, FAILED])
            }
            Op::Release {
                key,
                token,
                release: Release::Always,
            } => {
                let parameters = vec![(&key[..]).into(), token.into()];
                (&sql.release, parameters, &[FREE])
            }
            _ => return None,
        };
        Some(Held {
            statement,
            parameters,
            ended,
        })
    }

    async fn end(&self, conn: &mut Conn, op: &Op, key: &[u8], token: u64) -> Result<Answer, Fault> {
        let held = self.held(op).expect("asked for these operations only");
        let done = conn.exec_drop(held.statement, held.parameters).await;
        done.map_err(fault)?;
        if conn.affected_rows() > 0 {
            return Ok(Answer::Done);
        }
        let row = self.read(conn, &self.sql.select, key).await?;
        Ok(match row {
            Some(row) if row.token == token && held.ended.contains(&row.state) => Answer::Done,
            _ => Answer::Fenced,
        })
    }

    async fn release_unless_declared(
        &self,
        conn: &mut Conn,
        key: &[u8],
        token: u64,
    ) -> Result<Answer, Fault> {
        let mut tx = conn.start_transaction(TxOpts::new()).await.map_err(fault)?;
        let row = self.read(&mut tx, &self.sql.lock, key).await?;
        let state = row.filter(|row| row.token == token).map(|row| row.state);
        let answer = match state {
            Some(HELD | FREE) => Answer::Done,
            Some(DECLARED | DOUBTED) => Answer::LeftInDoubt,
            _ => Answer::Fenced,
        };
        let statement = &self.sql.release_unless_declared;
        let done = tx.exec_drop(statement, (key, token)).await;
        done.map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(answer)
    }

    async fn unresolved(
        &self,
        conn: &mut Conn,
        after_token: u64,
        count_max: usize,
    ) -> Result<Answer, Fault> {
        let count_max = count_max as u64;
        let parameters = (after_token, count_max, after_token, count_max, count_max);
        let rows = conn.exec(&self.sql.unresolved, parameters).await;
        let rows: Vec<mysql_async::Row> = rows.map_err(fault)?;
        let list = rows.into_iter().map(|mut row| {
            let key = row.take(10).ok_or_else(unreadable)?;
            Ok(read(row)?.unresolved(key))
        });
        Ok(Answer::List(list.collect::<Result<_, Fault>>()?))
    }

    async fn read<Q: Queryable>(
        &self,
        conn: &mut Q,
        statement: &str,
        key: &[u8],
    ) -> Result<Option<Row>, Fault> {
        let row: Option<mysql_async::Row> =
            conn.exec_first(statement, (key,)).await.map_err(fault)?;
        row.map(read).transpose()
    }
}

/// The columns of `ROW` and `NOW`.
fn read(mut row: mysql_async::Row) -> Result<Row, Fault> {
    fn take<T: mysql_async::prelude::FromValue>(
        row: &mut mysql_async::Row,
        at: usize,
    ) -> Result<T, Fault> {
        row.take_opt(at).and_then(Result::ok).ok_or_else(unreadable)
    }
    let fingerprint: Vec<u8> = take(&mut row, 3)?;
    Ok(Row {
        state: take(&mut row, 0)?,
        token: take(&mut row, 1)?,
        claim: take(&mut row, 2)?,
        fingerprint: fingerprint.try_into().map_err(|_| unreadable())?,
        lease_until_ms: take(&mut row, 4)?,
        since_ms: take(&mut row, 5)?,
        expires_ms: take::<Option<u64>>(&mut row, 6)?.unwrap_or_default(),
        memo: take(&mut row, 7)?,
        outcome: take::<Option<Vec<u8>>>(&mut row, 8)?.unwrap_or_default(),
        now_ms: take(&mut row, 9)?,
    })
}

fn unreadable() -> Fault {
    Fault::Final(Error::new(Kind::Unreadable(
        "a row is not as it was written",
    )))
}

fn fault(error: mysql_async::Error) -> Fault {
    let mysql_async::Error::Server(server) = &error else {
        return Fault::Lost(error.to_string());
    };
    let text = format!("{}: {}", server.code, server.message);
    // Numbers of MariaDB's and MySQL's manuals, server error reference.
    match server.code {
        // Lock wait timeout, deadlock, duplicate key; changed by another since it was read; too long.
        1205 | 1213 | 1062 | 1020 | 1969 => Fault::Passing(text),
        // Table full, disk full.
        1114 | 1021 => Fault::Final(Error::new(Kind::ServerFull)),
        // Access denied, no such database.
        1044 | 1045 | 1049 | 1698 => {
            Fault::Final(Error::unavailable("log in to the database", text))
        }
        // Too many connections, shutting down, killed, read-only (another is the primary now).
        1040 | 1053 | 1077 | 1079 | 1203 | 1290 | 1317 | 1792 | 1836 | 1927 => Fault::Lost(text),
        _ => Fault::Final(Error::unavailable("use the database", text)),
    }
}
