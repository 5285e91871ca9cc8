//! A relative link in a Markdown file leads somewhere.

use std::path::Path;

use super::source::{self, File};
use crate::stages::Outcome;

pub(crate) fn check(root: &Path) -> Result<Outcome, String> {
    let files = source::files(root, &["md"])?;
    let mut count = 0;
    let mut wrong = Vec::new();
    for file in &files {
        for (line, target) in relative_links(file) {
            count += 1;
            let here = root.join(&file.path);
            let dir = here.parent().expect("a file has a folder");
            if !dir.join(&target).exists() {
                wrong.push(format!("{}:{line}: {target} does not exist", file.path));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(Outcome::Passed(format!(
            "{count} links in {} pages",
            files.len()
        )));
    }
    Err(format!("{} dead links\n{}", wrong.len(), wrong.join("\n")))
}

/// Line number and path of each `](path)`, without the part behind `#`.
fn relative_links(file: &File) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in file.text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let Some(end) = rest.find([')', ' ']) else {
                continue;
            };
            let target = rest[..end].split('#').next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:");
            // Links between items of rustdoc are checked by rustdoc.
            if !target.is_empty() && !outside && !target.contains("::") {
                found.push((number + 1, target.to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{File, relative_links};

    #[test]
    fn only_relative_targets_outside_fences_are_links() {
        let text = "[a](docs/A.md#part) [b](https://example.org/x) [c](#here)\n```\n[d](no.md)\n```\n![e](e.svg \"t\")";
        let file = File {
            path: "README.md".into(),
            text: text.into(),
        };
        assert_eq!(
            relative_links(&file),
            [(1, "docs/A.md".to_owned()), (5, "e.svg".to_owned())]
        );
    }
}
