//! The status page, `/v1/jobs` and `/metrics`: read only.

use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use scheduler::{BreakerState, FireTime, Job, Lateness, Outcome, Record, Scheduler, Status};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::out::Out;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 256;
/// A client that takes longer to say what it wants is cut off.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Pages {
    scheduler: Arc<Scheduler>,
    hosts: Vec<String>,
    out: Arc<Out>,
    is_draining: AtomicBool,
}

impl Pages {
    pub(super) fn new(scheduler: Arc<Scheduler>, hosts: Vec<String>, out: Arc<Out>) -> Arc<Self> {
        Arc::new(Self {
            scheduler,
            hosts,
            out,
            is_draining: AtomicBool::new(false),
        })
    }

    pub(super) fn drain(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// All jobs with what they do, in the order of their names.
    fn jobs(&self) -> Vec<(Arc<str>, u32, Job, Status)> {
        let jobs = self.scheduler.jobs().into_iter();
        let mut jobs: Vec<_> = jobs
            .filter_map(|job| {
                let spec = job.spec()?;
                Some((
                    Arc::from(spec.name()),
                    spec.shard_number(),
                    job.clone(),
                    job.status()?,
                ))
            })
            .collect();
        jobs.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        jobs
    }
}

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let router = Router::new()
        .route("/", get(page))
        .route("/v1/jobs", get(list))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&pages),
            check_host,
        ))
        .with_state(pages);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(READ_TIMEOUT);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "an HTTP connection ended");
            }
            drop(place);
        });
    }
}

/// Against DNS rebinding: a web page whose name was pointed at this machine carries its own name in `Host`.
async fn check_host(State(pages): State<Arc<Pages>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let authority = host.and_then(|host| {
        host.to_str()
            .ok()?
            .parse::<axum::http::uri::Authority>()
            .ok()
    });
    let name = authority.as_ref().map_or("", |authority| authority.host());
    let is_loopback = name.eq_ignore_ascii_case("localhost")
        || name
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    if is_loopback
        || pages
            .hosts
            .iter()
            .any(|host| host.eq_ignore_ascii_case(name))
    {
        return next.run(request).await;
    }
    (
        StatusCode::FORBIDDEN,
        "this scheduler does not answer to that Host: allow it with --host\n",
    )
        .into_response()
}

async fn readyz(State(pages): State<Arc<Pages>>) -> (StatusCode, &'static str) {
    if pages.is_draining.load(Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

async fn list(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    let jobs: Vec<Value> = pages
        .jobs()
        .into_iter()
        .map(|(name, shard, job, status)| {
            let outcomes = Outcome::ALL
                .iter()
                .filter(|outcome| status.counts.of(**outcome) > 0);
            let counts = outcomes.map(|outcome| (outcome.name(), status.counts.of(*outcome)));
            json!({
                "name": &*name,
                "shard": shard,
                "id": job.id(),
                "schedule": job.spec().map(|spec| spec.schedule().to_string()),
                "state": status.state.name(),
                "next": status.next_ms.map(|ms| FireTime(ms).to_string()),
                "running": status.running,
                "waiting": status.waiting,
                "in_doubt": status.in_doubt,
                "breaker": status.breaker.name(),
                "counts": counts.collect::<std::collections::BTreeMap<_, _>>(),
                "history": job.history().iter().map(record).collect::<Vec<_>>(),
            })
        })
        .collect();
    (
        [(header::CONTENT_TYPE, "application/json")],
        json!({ "jobs": jobs }).to_string(),
    )
}

fn record(record: &Record) -> Value {
    json!({
        "fire_time": FireTime(record.fire_ms).to_string(),
        "began": record.began_ms.map(|ms| FireTime(ms).to_string()),
        "ended": FireTime(record.ended_ms).to_string(),
        "attempts": record.attempts,
        "outcome": record.outcome.name(),
        "trace_id": record.trace.map(|trace| trace.to_string()),
        "error": record.error.as_deref(),
    })
}

const PAGE_HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8>\
    <meta name=viewport content=\"width=device-width\"><meta http-equiv=refresh content=5>\
    <title>mainstay schedule</title>\
    <style>body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#1b1f24;background:#fff}\
    table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .8rem .35rem 0;\
    border-bottom:1px solid #d5dae0;vertical-align:top}th{font-weight:600}\
    @media(prefers-color-scheme:dark){body{color:#e6e9ed;background:#15181c}th,td{border-color:#363c44}}</style>\
    <h1>Jobs</h1><table><tr><th>job<th>schedule<th>state<th>next<th>running<th>waiting<th>breaker<th>firings<th>last";

/// Nothing is loaded, run or framed.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

async fn page(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    let mut page = String::from(PAGE_HEAD);
    for (name, _, job, status) in pages.jobs() {
        let schedule = job
            .spec()
            .map(|spec| spec.schedule().to_string())
            .unwrap_or_default();
        let next = status
            .next_ms
            .map(|ms| FireTime(ms).to_string())
            .unwrap_or_default();
        let mut firings = String::new();
        for outcome in Outcome::ALL {
            let count = status.counts.of(outcome);
            if count > 0 {
                let _infallible = write!(firings, "{count} {outcome} ");
            }
        }
        let last = status.last.map(|last| {
            let error = last.error.as_deref().unwrap_or_default();
            format!("{} {} {error}", FireTime(last.fire_ms), last.outcome)
        });
        let cells = [
            &*name,
            &schedule,
            status.state.name(),
            &next,
            &status.running.to_string(),
            &status.waiting.to_string(),
            status.breaker.name(),
            &firings,
            last.as_deref().unwrap_or_default(),
        ];
        page.push_str("<tr>");
        cells.iter().for_each(|cell| push_cell(&mut page, cell));
    }
    page.push_str("</table>");
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, page)
}

/// Names and errors come from files and from other machines.
fn push_cell(page: &mut String, text: &str) {
    page.push_str("<td>");
    for c in text.chars() {
        match c {
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '&' => page.push_str("&amp;"),
            c => page.push(c),
        }
    }
}

async fn metrics(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    let mut registry = Registry::with_prefix("mainstay_scheduler");
    registry.register_collector(Box::new(Scrape(pages)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .expect("writing to a string does not fail");
    ([(header::CONTENT_TYPE, OPEN_METRICS)], text)
}

struct Scrape(Arc<Pages>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let jobs = self.0.jobs();
        let help = "Firings by job and by what became of them";
        let mut firings = encoder.encode_descriptor("firings", help, None, MetricType::Counter)?;
        for (name, shard, _, status) in &jobs {
            for outcome in Outcome::ALL {
                let labels = [
                    ("job", name.to_string()),
                    ("shard", shard.to_string()),
                    ("outcome", outcome.name().to_owned()),
                ];
                firings
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&status.counts.of(outcome), None)?;
            }
        }
        let mut gauges = |name: &str, help: &str, value: &dyn Fn(&Status) -> f64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            jobs.iter().try_for_each(|(name, shard, _, status)| {
                let labels = [("job", name.to_string()), ("shard", shard.to_string())];
                family.encode_family(&labels)?.encode_gauge(&value(status))
            })
        };
        gauges("running", "Runs that are running", &|status| {
            status.running as f64
        })?;
        gauges(
            "waiting",
            "Firings that wait for a worker, a run or a retry",
            &|status| status.waiting as f64,
        )?;
        gauges(
            "in_doubt",
            "Firings in doubt that wait for an answer",
            &|status| status.in_doubt as f64,
        )?;
        gauges(
            "breaker_open",
            "1 while the job's breaker lets nothing through",
            &|status| f64::from(u8::from(status.breaker == BreakerState::Open)),
        )?;
        gauges(
            "next_timestamp_seconds",
            "The next fire time, 0 for none",
            &|status| status.next_ms.map_or(0.0, |ms| ms as f64 / 1e3),
        )?;
        let help = "Lines of standard output that were dropped because nobody read it";
        let kind = MetricType::Counter;
        let mut lost = encoder.encode_descriptor("output_lines_dropped", help, None, kind)?;
        lost.encode_counter::<NoLabelSet, _, u64>(&self.0.out.dropped(), None)?;
        encode_lateness(&mut encoder, &self.0.scheduler.lateness())
    }
}

/// How late firings began, in buckets that double.
fn encode_lateness(encoder: &mut DescriptorEncoder<'_>, lateness: &Lateness) -> fmt::Result {
    let help = "From a firing's nominal time to its first try";
    let unit = Some(&Unit::Seconds);
    let mut family = encoder.encode_descriptor("lateness", help, unit, MetricType::Histogram)?;
    let (last, others) = lateness.buckets().split_last().unwrap_or((&0, &[]));
    let mut bound_ms = 1_u64;
    let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(others.len() + 1);
    for count in others {
        buckets.push(((bound_ms - 1) as f64 / 1e3, *count));
        bound_ms *= 2;
    }
    buckets.push((f64::INFINITY, *last));
    let sum_s = lateness.sum_ms() as f64 / 1e3;
    family.encode_histogram::<NoLabelSet>(sum_s, lateness.count(), &buckets, None)
}
