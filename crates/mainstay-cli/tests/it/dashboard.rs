//! The dashboard in headless Chromium, in front of `mainstay gateway --demo`. The script itself is
//! `crates/gateway/tests/browser/dashboard.mjs`; this finds what it needs, or says what is missing.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const MAINSTAY: &str = env!("CARGO_BIN_EXE_mainstay");
const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../gateway/tests/browser/dashboard.mjs"
);

/// Where `cargo xtask test` puts the browser's driver, below the target directory.
const PLAYWRIGHT: &str = "xtask/playwright/node_modules";
const CHROMIUM: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

#[test]
fn dashboard_in_a_browser() {
    let Some(node) = on_path("node") else {
        return skip("node is not installed");
    };
    let Some(playwright) = given("MAINSTAY_PLAYWRIGHT").or_else(installed_playwright) else {
        return skip("playwright-core is not installed; `cargo xtask test` does that");
    };
    let browser = given("MAINSTAY_CHROMIUM").or_else(|| CHROMIUM.iter().find_map(|b| on_path(b)));
    let Some(browser) = browser else {
        return skip("chromium is not installed");
    };
    let status = Command::new(node)
        .args([SCRIPT, MAINSTAY])
        .env("MAINSTAY_PLAYWRIGHT", playwright)
        .env("MAINSTAY_CHROMIUM", browser)
        .status()
        .expect("node was found");
    assert!(
        status.success(),
        "the page fails in the browser, see above: {status}"
    );
}

/// A path in the environment; a name that is set and empty is not set.
fn given(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path: OsString = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Next to the folder of the profile, or further up when the target triple stands between.
fn installed_playwright() -> Option<PathBuf> {
    let dirs = Path::new(MAINSTAY).ancestors().skip(2).take(2);
    let mut found = dirs.map(|dir| dir.join(PLAYWRIGHT));
    found.find(|modules| modules.join("playwright-core").is_dir())
}

/// Says why on stdout, and in the file where the test runner collects such reasons.
fn skip(reason: &str) {
    println!("SKIP: {reason}");
    if let Some(log) = given("MAINSTAY_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(log)
            .expect("the log of skipped tests can be written");
        writeln!(log, "dashboard_in_a_browser: {reason}").expect("a line can be appended");
    }
}
