//! Protection against DNS rebinding: a web page whose name was pointed at this machine carries its
//! own name in `Host`, so only names that are known to mean this gateway are served.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Phase, Problem, Shared};

pub(crate) async fn check_host(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    };
    let name = host.and_then(without_port).unwrap_or("");
    if is_loopback(name)
        || shared
            .config
            .hosts
            .iter()
            .any(|h| h.eq_ignore_ascii_case(name))
    {
        return next.run(request).await;
    }
    let detail = format!(
        "the request's Host is {:?}; allow it with --host or `hosts` in the configuration",
        host.unwrap_or("")
    );
    let title = "This gateway does not answer to that name";
    Problem::new(StatusCode::FORBIDDEN, "host-not-allowed", title, detail).into_response()
}

/// While the gateway drains, each answer is the last one of its connection.
pub(crate) async fn close_while_draining(
    State(shared): State<Arc<Shared>>,
    mut response: Response,
) -> Response {
    if shared.phase() != Phase::Serving {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The host of a `Host` header: `name`, `name:port`, `[v6]` or `[v6]:port`.
fn without_port(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    port.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(name)
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_loopback() {
        for host in [
            "localhost",
            "LOCALHOST:7480",
            "127.0.0.1:7480",
            "127.9.9.9",
            "[::1]:7480",
        ] {
            assert!(without_port(host).is_some_and(is_loopback), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7480",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::1]evil",
            "localhost:80.evil.example",
        ] {
            assert!(!without_port(host).is_some_and(is_loopback), "{host}");
        }
    }
}
