//! What a store's URL says beyond what the database's client reads.

use std::time::Duration;

use crate::error::{Error, Kind};
use crate::options::{Durability, Options};

/// Longest answer that is waited for; shorter than the grace of swept rows.
const TIMEOUT_MS_MAX: u64 = 30_000;

/// The store's own parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Tables start with it.
    pub(super) name: String,
    /// The server may be set up to lose what it acknowledged.
    pub(super) relaxed: bool,
    pub(super) timeout: Duration,
    pub(super) connections: usize,
    pub(super) sweep_every: Duration,
}

/// Takes the store's own parameters out of the URL; the rest is for the client.
pub(super) fn split(url: &str, options: &Options) -> Result<(String, Settings), Error> {
    let mut settings = Settings {
        name: "mainstay".to_owned(),
        relaxed: options.durability != Durability::Sync,
        timeout: Duration::from_secs(5),
        connections: 8,
        sweep_every: Duration::from_secs(60),
    };
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name.contains('@') {
            // The client's errors name unknown parameters; this one is half of a password.
            return Err(wrong(
                "an @ stands in the name of a parameter: write ?, &, @ and / in a password as \
                 %3F, %26, %40 and %2F",
            ));
        }
        match name {
            "name" => settings.name = name_of_tables(value)?,
            "durability" => settings.relaxed = relaxed(value)?,
            "timeout_ms" => {
                settings.timeout = Duration::from_millis(number(pair, value, TIMEOUT_MS_MAX)?);
            }
            "connections" => settings.connections = number(pair, value, 1_000)? as usize,
            "sweep_ms" => {
                settings.sweep_every = Duration::from_millis(number(pair, value, 86_400_000)?);
            }
            _ => rest.push(pair),
        }
    }
    let url = match rest.is_empty() {
        true => base.to_owned(),
        false => format!("{base}?{}", rest.join("&")),
    };
    Ok((url, settings))
}

/// It becomes part of SQL, so it is checked strictly.
fn name_of_tables(value: &str) -> Result<String, Error> {
    let fits = (1..=30).contains(&value.len())
        && value.starts_with(|c: char| c.is_ascii_lowercase())
        && value
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    fits.then(|| value.to_owned())
        .ok_or_else(|| wrong("name= is 1 to 30 characters a-z, 0-9 and _, the first one a letter"))
}

fn relaxed(value: &str) -> Result<bool, Error> {
    match value {
        "relaxed" => Ok(true),
        "strict" => Ok(false),
        _ => Err(wrong("durability= is strict or relaxed")),
    }
}

fn number(pair: &str, value: &str, max: u64) -> Result<u64, Error> {
    let number = value.parse().ok().filter(|n| (1..=max).contains(n));
    number.ok_or_else(|| wrong(&format!("{pair:?} is not a number from 1 to {max}")))
}

pub(super) fn wrong(what: &str) -> Error {
    Error::new(Kind::Url(what.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_parameters_are_taken_and_the_others_left() {
        let url = "postgres://u@h/d?host=/tmp&name=shop_1&timeout_ms=100&sslmode=disable&durability=relaxed&connections=3";
        let (rest, settings) = split(url, &Options::new()).expect("fits");
        assert_eq!(rest, "postgres://u@h/d?host=/tmp&sslmode=disable");
        assert_eq!(settings.name, "shop_1");
        assert_eq!(settings.timeout, Duration::from_millis(100));
        assert!(settings.relaxed);
        assert_eq!(settings.connections, 3);
        assert_eq!(
            split("mysql://h/d", &Options::new()).expect("fits").0,
            "mysql://h/d"
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for query in [
            "name=",
            "name=a;b",
            "name=1a",
            "name=A",
            "durability=no",
            "timeout_ms=0",
            "timeout_ms=30001",
            "connections=x",
            "word@h/d",
            "a&word@h/d?name=x",
        ] {
            let error = split(&format!("mysql://h/d?{query}"), &Options::new()).expect_err(query);
            assert!(error.is_options(), "{error}");
            assert!(!error.to_string().contains("word@"), "{error}");
        }
    }
}
