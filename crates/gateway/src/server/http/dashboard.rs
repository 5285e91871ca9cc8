//! The dashboard: one page and its parts, embedded, under a policy by which it can load nothing else.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Path, type and text of each part.
const PARTS: [(&str, &str, &str); 9] = [
    ("/", HTML, include_str!("../dashboard/index.html")),
    (
        "/dashboard/style.css",
        CSS,
        include_str!("../dashboard/style.css"),
    ),
    (
        "/dashboard/main.js",
        JS,
        include_str!("../dashboard/main.js"),
    ),
    (
        "/dashboard/format.js",
        JS,
        include_str!("../dashboard/format.js"),
    ),
    (
        "/dashboard/charts.js",
        JS,
        include_str!("../dashboard/charts.js"),
    ),
    (
        "/dashboard/stream.js",
        JS,
        include_str!("../dashboard/stream.js"),
    ),
    (
        "/dashboard/devices.js",
        JS,
        include_str!("../dashboard/devices.js"),
    ),
    (
        "/dashboard/clock.js",
        JS,
        include_str!("../dashboard/clock.js"),
    ),
    (
        "/dashboard/command.js",
        JS,
        include_str!("../dashboard/command.js"),
    ),
];

/// The last two lines refuse the browser's ways of making markup out of text: device ids and
/// answers come from strangers.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// A route for each part.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    PARTS
        .into_iter()
        .fold(Router::new(), |router, (path, kind, text)| {
            router.route(path, get(async move || part(kind, text)))
        })
}

fn part(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A new gateway must not run with an old page.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}
