//! Running other programs: each call is shown before it runs, from the workspace's root.

use std::ffi::{OsStr, OsString};
use std::process::{Command, Stdio};

use crate::workspace;

/// A program to run, with what will be shown of it.
pub(crate) struct Cmd {
    inner: Command,
    shown: String,
}

impl Cmd {
    /// Prepares `program`, with the workspace's root as its working directory.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let shown = program.as_ref().to_string_lossy().into_owned();
        let mut inner = Command::new(program);
        if let Ok(root) = workspace::root() {
            inner.current_dir(root);
        }
        Self { inner, shown }
    }

    /// Prepares the cargo that runs us, so that every step uses the same toolchain.
    pub(crate) fn cargo() -> Self {
        let mut cmd = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cmd.shown = "cargo".into();
        cmd
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&arg.as_ref().to_string_lossy());
        self.inner.arg(arg);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Self {
        args.into_iter().fold(self, Cmd::arg)
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.shown = format!("{key}={} {}", value.as_ref().to_string_lossy(), self.shown);
        self.inner.env(key, value);
        self
    }

    /// Sets many variables without showing them: for the stage-wide environment.
    pub(crate) fn quiet_envs(mut self, envs: &[(String, OsString)]) -> Self {
        self.inner
            .envs(envs.iter().map(|(key, value)| (key, value)));
        self
    }

    /// Shows the command, runs it on our terminal and fails when it fails.
    pub(crate) fn run(mut self) -> Result<(), String> {
        println!("$ {}", self.shown);
        let status = self
            .inner
            .status()
            .map_err(|error| format!("cannot start `{}`: {error}", self.shown))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("`{}` failed ({status})", self.shown))
        }
    }

    /// Runs it silently: what it printed on both streams is in the error when it fails, else only stdout comes back.
    pub(crate) fn capture(mut self) -> Result<String, String> {
        let out = self
            .inner
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot start `{}`: {error}", self.shown))?;
        let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
        if out.status.success() {
            return Ok(stdout);
        }
        let stderr = String::from_utf8_lossy(&out.stderr);
        Err(format!(
            "`{}` failed ({})\n{stdout}{stderr}",
            self.shown, out.status
        ))
    }
}
