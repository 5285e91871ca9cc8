//! What jobs do: commands in process groups of their own, and HTTP calls.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use scheduler::{CancelCause, Firing, FiringId, JobError};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::config::{Action, HttpCall};

/// A command that is asked to stop has so long until it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Nobody tells when the last of a process group is gone.
const GROUP_POLL: Duration = Duration::from_millis(20);

/// Of an answer nobody reads more than this.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// And not for longer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

const PDEATHSIG: [&str; 2] = ["--pdeathsig", "KILL"];

/// What actions need from this machine.
pub(super) struct Means {
    setpriv: Option<PathBuf>,
}

impl Means {
    /// Looks for a `setpriv` by which a command dies with this process. Not all know the option.
    pub(super) fn find() -> Arc<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let setpriv = std::env::split_paths(&path)
            .map(|dir| dir.join("setpriv"))
            .find(|candidate| candidate.is_file())
            .filter(|setpriv| is_able(setpriv));
        if setpriv.is_none() {
            tracing::warn!(
                "without setpriv (util-linux) commands outlive a scheduler that is killed"
            );
        }
        Arc::new(Self { setpriv })
    }
}

fn is_able(setpriv: &Path) -> bool {
    std::process::Command::new(setpriv)
        .args(PDEATHSIG)
        .args(["--", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// One try of a job.
pub(super) async fn act(
    action: Arc<Action>,
    means: Arc<Means>,
    firing: Firing,
) -> Result<(), JobError> {
    match &*action {
        Action::Run(command) => run(command, means.setpriv.as_deref(), &firing).await,
        Action::Http(call) => tokio::select! {
            ended = http(call, &firing) => ended,
            cause = firing.cancel.cancelled() => Err(stopped(cause).into()),
        },
    }
}

async fn run(command: &[String], setpriv: Option<&Path>, firing: &Firing) -> Result<(), JobError> {
    let mut argv: Vec<OsString> = Vec::new();
    if let Some(setpriv) = setpriv {
        argv.push(setpriv.into());
        argv.extend(PDEATHSIG.into_iter().chain(["--"]).map(OsString::from));
    }
    argv.extend(command.iter().map(OsString::from));
    // What it says goes to the log: standard output is this command's own.
    let log = || {
        let stderr = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 0);
        stderr.map_or_else(|_| Stdio::null(), Stdio::from)
    };
    let mut child = Command::new(&argv[0])
        .args(&argv[1..])
        .env("MAINSTAY_JOB", &*firing.job)
        .env("MAINSTAY_FIRE_TIME", firing.fire_time().to_string())
        .env("MAINSTAY_ATTEMPT", firing.attempt.to_string())
        .env("MAINSTAY_SHARD", firing.shard.to_string())
        .env("TRACEPARENT", firing.traceparent())
        .stdin(Stdio::null())
        .stdout(log())
        .stderr(log())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{}: {error}", command[0]))?;
    let ended = tokio::select! {
        ended = child.wait() => ended,
        cause = firing.cancel.cancelled() => {
            stop(&mut child).await;
            return Err(stopped(cause).into());
        }
    };
    let status = ended.map_err(|error| format!("{}: {error}", command[0]))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{}: {status}", command[0]).into()),
    }
}

/// Asks the command's whole group to end, then ends it.
async fn stop(child: &mut Child) {
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let signal = |signal| {
        // It may have ended by itself.
        if let Some(Err(error)) = group.map(|group| kill_process_group(group, signal)) {
            tracing::debug!(%error, "nobody is left to stop");
        }
    };
    signal(Signal::TERM);
    let until = Instant::now() + STOP_PATIENCE;
    let waited = tokio::time::timeout_at(until, child.wait()).await;
    // What the command started may need its time when the command itself is gone.
    while waited.is_ok()
        && Instant::now() < until
        && group.is_some_and(|group| test_kill_process_group(group).is_ok())
    {
        tokio::time::sleep(GROUP_POLL).await;
    }
    signal(Signal::KILL);
    if waited.is_err() {
        drop(child.wait().await);
    }
}

fn stopped(cause: CancelCause) -> &'static str {
    match cause {
        CancelCause::TimedOut => "it took longer than its timeout",
        CancelCause::Superseded => "a later firing took its place",
        CancelCause::ShuttingDown => "the scheduler stopped",
        _ => "it was asked to stop",
    }
}

async fn http(call: &HttpCall, firing: &Firing) -> Result<(), JobError> {
    let url = &call.url.0.0;
    let authority = url.authority().ok_or("the URL has no host")?;
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let pump = tokio::spawn(connection);
    let body = match &call.body {
        Some(body) => Bytes::from(body.0.to_string()),
        None => Bytes::new(),
    };
    let id = FiringId {
        job: firing.job.to_string(),
        fire_ms: firing.fire_ms,
        shard: firing.shard,
    };
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(call.method.0.0.clone())
        .uri(path)
        .header(header::HOST, authority.as_str())
        .header("traceparent", firing.traceparent())
        // All tries of a firing are one request to whoever knows the header.
        .header(
            "idempotency-key",
            format!("\"{}\"", id.to_string().escape_default()),
        );
    if call.body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let mut request = request.body(Full::new(body))?;
    for (name, value) in &call.headers.0 {
        request.headers_mut().insert(name, value.clone());
    }
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    // A service that minds who hangs up early does not see it, unless it has much to say, or takes long. What it says decides
    // nothing, so the firing does not wait for it.
    tokio::spawn(async move {
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        if !matches!(timeout(ANSWER_PATIENCE, body.collect()).await, Ok(Ok(_))) {
            tracing::debug!(%status, "the answer was not read to its end");
        }
        drop(sender);
        pump.abort();
    });
    match status.is_success() {
        true => Ok(()),
        false => Err(format!("it answered {status}").into()),
    }
}
