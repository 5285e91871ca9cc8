//! The quick way: operations as text, in one message and one transaction, which cost one round trip and
//! one flush of the log together. What does not come through this way, because its key is known
//! already or its token is not the holder's, has changed nothing and is done the other way.

use std::fmt::Write;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Value};

use super::{Mysql, NOW, fault};
use crate::remote::{Answer, LATE_MS, Op};
use crate::sql::pool::{Fault, key_of};
use crate::sql::row::{DECLARED, HELD};

/// Longest text, but for the statements themselves.
pub(super) const TEXT_MAX: usize = 1 << 20;

/// The two statements of a begin.
pub(super) struct Quick {
    /// Draws a token if the key is new.
    draw: String,
    /// Makes the row if a token was drawn, unless another did meanwhile.
    insert: String,
}

impl Quick {
    pub(super) fn new(name: &str) -> Self {
        Self {
            draw: format!(
                "INSERT INTO {name}_token SELECT NULL FROM DUAL
                 WHERE NOT EXISTS (SELECT * FROM {name}_keys WHERE id = ?)"
            ),
            insert: format!(
                "INSERT IGNORE INTO {name}_keys
                     (id, state, token, claim, fingerprint, lease_until_ms, since_ms, expires_ms, memo)
                 SELECT ?, ?, LAST_INSERT_ID(), ?, ?, {NOW} + ?, {NOW}, {NOW} + ?, ?
                 FROM DUAL WHERE ROW_COUNT() = 1"
            ),
        }
    }
}

impl Mysql {
    /// The answers of those that came through.
    pub(super) async fn serve_quickly(
        &self,
        conn: &mut Conn,
        ops: &[&Op],
    ) -> Result<Vec<Option<Answer>>, Fault> {
        let mut text = "BEGIN;".to_owned();
        let mut is_in = Vec::with_capacity(ops.len());
        let mut last_key = None;
        for op in ops {
            let key = key_of(op);
            // Those after the first on a key must not overtake it, should it not come through.
            is_in.push(key != last_key && self.put(&mut text, op));
            last_key = key;
        }
        let put_in = ops.iter().zip(&is_in).filter(|(_, is_in)| **is_in);
        let statements: usize = put_in.map(|(op, _)| statements(op)).sum();
        if statements == 0 {
            return Ok(ops.iter().map(|_| None).collect());
        }
        text.push_str("COMMIT");
        let done = match run(conn, &text).await {
            Ok(done) => done,
            Err(error) => {
                // The statements before it may still be under way.
                conn.query_drop("ROLLBACK").await.map_err(fault)?;
                return Err(fault(error));
            }
        };
        // And one for each of BEGIN and COMMIT.
        if done.len() != statements + 2 {
            return Err(Fault::Lost(
                "answers of a transaction are missing".to_owned(),
            ));
        }
        let mut done = done.into_iter().skip(1);
        let answers = ops.iter().zip(is_in);
        let answers = answers.map(|(op, is_in)| is_in.then(|| read(op, &mut done)).flatten());
        Ok(answers.collect())
    }

    /// Appends the [`statements`] of an operation that can be done this way, while there is room for
    /// all of them.
    fn put(&self, text: &mut String, op: &Op) -> bool {
        let Op::Begin {
            key,
            fingerprint,
            lease_ms,
            claim,
            declared,
            memo,
        } = op
        else {
            let Some(held) = self.held(op) else {
                return false;
            };
            return bind(text, held.statement, &held.parameters);
        };
        let state = if *declared { DECLARED } else { HELD };
        let expires_in = (!declared).then_some(*lease_ms + LATE_MS);
        let parameters = [
            (&key[..]).into(),
            state.into(),
            (&claim.0[..]).into(),
            (&fingerprint.0[..]).into(),
            (*lease_ms).into(),
            expires_in.into(),
            (&memo[..]).into(),
        ];
        let before = text.len();
        let is_in = bind(text, &self.quick.draw, &parameters[..1])
            && bind(text, &self.quick.insert, &parameters);
        if !is_in {
            text.truncate(before);
        }
        is_in
    }
}

/// How many statements an operation is.
fn statements(op: &Op) -> usize {
    match op {
        Op::Begin { .. } => 2,
        _ => 1,
    }
}

/// Appends a statement with its parameters in the places of its question marks, if there is room.
fn bind(text: &mut String, statement: &str, parameters: &[Value]) -> bool {
    let bytes = |value: &Value| match value {
        Value::Bytes(bytes) => 2 * bytes.len(),
        _ => 0,
    };
    if text.len() + parameters.iter().map(bytes).sum::<usize>() > TEXT_MAX {
        return false;
    }
    let mut pieces = statement.split('?');
    text.push_str(pieces.next().unwrap_or_default());
    for (piece, parameter) in pieces.zip(parameters) {
        put_literal(text, parameter);
        text.push_str(piece);
    }
    text.push(';');
    true
}

/// Bytes as hexadecimal digits, in which nothing can end the literal.
fn put_literal(text: &mut String, value: &Value) {
    let written = match value {
        Value::Bytes(bytes) => {
            text.push_str("x'");
            for byte in bytes {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                text.push(DIGITS[usize::from(byte >> 4)].into());
                text.push(DIGITS[usize::from(byte & 15)].into());
            }
            text.push('\'');
            Ok(())
        }
        Value::Int(number) => write!(text, "{number}"),
        Value::UInt(number) => write!(text, "{number}"),
        _ => write!(text, "NULL"),
    };
    written.expect("a string takes everything");
}

/// What a statement did: rows, and the last number of an AUTO_INCREMENT.
type Done = (u64, Option<u64>);

async fn run(conn: &mut Conn, text: &str) -> mysql_async::Result<Vec<Done>> {
    let mut result = conn.query_iter(text).await?;
    let mut done = Vec::new();
    loop {
        done.push((result.affected_rows(), result.last_insert_id()));
        if result.is_empty() {
            // An error after the first statement is only told here.
            result.drop_result().await?;
            return Ok(done);
        }
        result.next().await?;
    }
}

fn read(op: &Op, done: &mut impl Iterator<Item = Done>) -> Option<Answer> {
    let (rows, number) = done.next()?;
    if !matches!(op, Op::Begin { .. }) {
        return (rows > 0).then_some(Answer::Done);
    }
    let (rows, _) = done.next()?;
    let token = number.filter(|_| rows > 0)?;
    Some(Answer::Fresh { token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_stand_where_the_question_marks_were() {
        let mut text = "BEGIN;".to_owned();
        let parameters = [
            Value::from(&b"'; --\x00"[..]),
            Value::NULL,
            Value::from(-7),
            Value::from(u64::MAX),
            Value::from(&b""[..]),
        ];
        assert!(bind(&mut text, "a ? b ? c ? d ? e ? f", &parameters));
        let number = u64::MAX;
        let expected = format!("BEGIN;a x'273b202d2d00' b NULL c -7 d {number} e x'' f;");
        assert_eq!(text, expected);
    }

    #[test]
    fn a_text_stays_short() {
        let mut text = String::new();
        assert!(!bind(&mut text, "?", &[vec![0_u8; TEXT_MAX].into()]));
        assert_eq!(text, "");
        assert!(bind(&mut text, "?", &[vec![0_u8; TEXT_MAX / 2].into()]));
        assert!(!bind(&mut text, "?", &[vec![0_u8; 1].into()]));
    }
}
