//! The listener's loop: a bounded number of connections, each with a limit on how slowly its
//! client may speak.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Shared;
use crate::server::LAST_WORDS;
use crate::server::drain::{Phase, until};

/// A client that takes no bytes of its answer for so long is cut off by the kernel.
const WRITE_STALL: Duration = Duration::from_secs(30);

/// How long to leave the listener alone when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the gateway stops, then waits a moment for the last answers to be written.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(shared.config.http_limits.connections_max));
    let mut connections = JoinSet::new();
    let mut stopping = shared.drain.subscribe();
    tokio::select! {
        () = accept(&shared, &listener, &router, &places, &mut connections) => {}
        () = until(&mut stopping, |phase| phase == Phase::Stopping) => {}
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    // Whoever does not read its answer by now does not get it.
    drop(tokio::time::timeout(LAST_WORDS, all_ended).await);
    connections.shutdown().await;
}

/// Accepts for ever.
async fn accept(
    shared: &Arc<Shared>,
    listener: &TcpListener,
    router: &Router,
    places: &Arc<Semaphore>,
    connections: &mut JoinSet<()>,
) {
    loop {
        while connections.try_join_next().is_some() {}
        let place = Arc::clone(places).acquire_owned().await;
        let place = place.expect("nobody closes the semaphore");
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = serve_connection(Arc::clone(shared), stream, router.clone());
                connections.spawn(async move {
                    service.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(shared: Arc<Shared>, stream: TcpStream, router: Router) {
    let socket = SockRef::from(&stream);
    if let Err(error) = socket.set_tcp_user_timeout(Some(WRITE_STALL)) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT is not available");
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY is not available");
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    http.header_read_timeout(Duration::from_millis(
        shared.config.http_limits.read_timeout_ms,
    ));
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let mut phases = shared.drain.subscribe();
    // While the gateway drains it says so to whoever asks, and closes each connection behind that.
    tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        () = until(&mut phases, |phase| phase == Phase::Stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    log_end(connection.await);
}

fn log_end(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}
