//! Reading our own files: which they are, and their code without comments and strings.

use std::path::{Path, PathBuf};

/// One text file of ours.
pub(crate) struct File {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// Written by a program: limits on size and style do not hold for it.
    pub(crate) fn is_generated(&self) -> bool {
        self.path.ends_with(".skel.rs")
            || self
                .text
                .lines()
                .take(5)
                .any(|line| line.contains("@generated"))
    }
}

/// Folders that hold nothing of ours.
const FOREIGN: &[&str] = &[
    "node_modules",
    "corpus",
    "artifacts",
    "coverage",
    "mainstay-data",
];

/// Every file below `root` with one of these extensions, sorted by path.
pub(crate) fn files(root: &Path, extensions: &[&str]) -> Result<Vec<File>, String> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        let entries = std::fs::read_dir(&dir)
            .map_err(|error| format!("cannot list {}: {error}", dir.display()))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                let hidden = name.starts_with('.') && name != ".github";
                if !hidden && !name.starts_with("target") && !FOREIGN.contains(&name.as_str()) {
                    dirs.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|found| extensions.iter().any(|wanted| found == *wanted))
            {
                found.push(read(root, path)?);
            }
        }
    }
    found.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(found)
}

fn read(root: &Path, path: PathBuf) -> Result<File, String> {
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let path = path
        .strip_prefix(root)
        .unwrap_or(&path)
        .to_string_lossy()
        .replace('\\', "/");
    Ok(File { path, text })
}

/// Rust code with comments and the insides of literals blanked; lines keep their numbers.
pub(crate) fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let skip = literal_or_comment(rest, before);
        let (taken, blank) = if skip > 0 {
            (skip, true)
        } else {
            (first.len_utf8(), false)
        };
        for letter in rest[..taken].chars() {
            code.push(if blank && letter != '\n' { ' ' } else { letter });
        }
        before = if blank { ' ' } else { first };
        rest = &rest[taken..];
    }
    code
}

/// The length in bytes of the comment or literal that `rest` begins with, 0 when it begins with code.
fn literal_or_comment(rest: &str, before: char) -> usize {
    let until = |end: &str, from: usize| {
        rest[from..]
            .find(end)
            .map_or(rest.len(), |at| from + at + end.len())
    };
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until("*/", 2);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    let in_a_word = before.is_alphanumeric() || before == '_';
    if rest.starts_with('r') && (!in_a_word || before == 'b') {
        let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
        if rest[1 + hashes..].starts_with('"') {
            return until(&format!("\"{}", "#".repeat(hashes)), hashes + 2);
        }
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        // 'x' and '\n' are letters; 'a is a lifetime.
        let mut letters = inside.chars();
        let letter = letters.next();
        if letter == Some('\\') || letters.next() == Some('\'') {
            return quoted(rest, '\'');
        }
    }
    0
}

/// The length of a literal with escapes, both quotes included.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at + letter.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// Byte positions of `word` where it is a whole identifier.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| {
            !code[..*at].ends_with(part) && !code[at + word.len()..].starts_with(part)
        })
}

/// The line number of a byte position, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::{code_only, words};

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let text = "let a = \"unsafe \\\" unsafe\"; // unsafe\n/* unsafe\n*/ let b = r#\"unsafe \"x\" \"#;\nlet c = '\"'; fn f<'a>(x: &'a str) { unsafe { '\\'' } }";
        let code = code_only(text);
        assert_eq!(code.matches('\n').count(), text.matches('\n').count());
        assert_eq!(words(&code, "unsafe").count(), 1);
        assert!(code.contains("fn f<'a>(x: &'a str)"));
    }

    #[test]
    fn only_whole_words_count() {
        assert_eq!(
            words("unsafe_code unsafe my_unsafe unsafe{", "unsafe").count(),
            2
        );
    }
}
