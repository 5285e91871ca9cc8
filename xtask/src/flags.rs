//! The few argument forms that our commands need.

/// Arguments of one command: take what is known, then [`Flags::finish`] refuses the rest.
pub(crate) struct Flags {
    args: Vec<String>,
    /// What stood behind `--`, untouched.
    pub(crate) rest: Vec<String>,
}

impl Flags {
    pub(crate) fn new(mut args: Vec<String>) -> Self {
        let rest = match args.iter().position(|arg| arg == "--") {
            Some(at) => args.split_off(at).split_off(1),
            None => Vec::new(),
        };
        Self { args, rest }
    }

    /// Whether `name` was given.
    pub(crate) fn switch(&mut self, name: &str) -> bool {
        let before = self.args.len();
        self.args.retain(|arg| arg != name);
        self.args.len() != before
    }

    /// The value of `name VALUE` or `name=VALUE`.
    pub(crate) fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let prefix = format!("{name}=");
        let Some(at) = self
            .args
            .iter()
            .position(|arg| arg == name || arg.starts_with(&prefix))
        else {
            return Ok(None);
        };
        let arg = self.args.remove(at);
        if let Some(value) = arg.strip_prefix(&prefix) {
            return Ok(Some(value.to_owned()));
        }
        if at == self.args.len() {
            return Err(format!("{name} needs a value"));
        }
        Ok(Some(self.args.remove(at)))
    }

    /// As [`Flags::value`], for a count.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.value(name)? else {
            return Ok(None);
        };
        let digits = text.replace('_', "");
        digits
            .parse()
            .map(Some)
            .map_err(|_| format!("{name} needs a whole number, not `{text}`"))
    }

    /// The next argument that is no flag.
    pub(crate) fn positional(&mut self) -> Option<String> {
        let at = self.args.iter().position(|arg| !arg.starts_with('-'))?;
        Some(self.args.remove(at))
    }

    /// Refuses whatever nobody took.
    pub(crate) fn finish(self) -> Result<Vec<String>, String> {
        match self.args.first() {
            None => Ok(self.rest),
            Some(arg) => Err(format!(
                "unknown argument `{arg}`; --help says what there is"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Flags;

    fn flags(text: &str) -> Flags {
        Flags::new(text.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn takes_each_form_and_refuses_the_rest() {
        let mut given = flags("gateway --kills 2_000 --seconds=5 --keep-going -- --seconds 9");
        assert_eq!(given.number("--kills"), Ok(Some(2_000)));
        assert_eq!(given.number("--seconds"), Ok(Some(5)));
        assert_eq!(given.number("--seconds"), Ok(None));
        assert!(given.switch("--keep-going"));
        assert_eq!(given.positional().as_deref(), Some("gateway"));
        assert_eq!(
            given.finish(),
            Ok(vec!["--seconds".to_owned(), "9".to_owned()])
        );

        assert!(flags("--kills").number("--kills").is_err());
        assert!(flags("--kills many").number("--kills").is_err());
        assert!(flags("--typo").finish().is_err());
    }
}
