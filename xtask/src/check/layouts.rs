//! Event structs that BPF programs write and Rust reads: both sides assert the size and every offset, alike.

use std::collections::BTreeMap;
use std::path::Path;

use super::source::{self, File};
use crate::stages::Outcome;

/// Where the Rust twins live.
const TWINS: &str = "crates/kernel-scope/src/";
/// The name under which a struct's size stands among its offsets.
const SIZE: &str = "(size)";

/// Offset of each field, and [`SIZE`].
type Layout = BTreeMap<String, u64>;

pub(crate) fn check(root: &Path) -> Result<Outcome, String> {
    let files = source::files(root, &["h", "rs"])?;
    let headers = files.iter().filter(|file| is_event_header(&file.path));
    let mut count = 0;
    let mut wrong = Vec::new();
    for header in headers {
        for (name, fields) in event_structs(&header.text) {
            count += 1;
            let twins = files
                .iter()
                .filter(|file| file.path.starts_with(TWINS) && file.text.contains(&name));
            wrong.extend(compare(header, &name, &fields, twins));
        }
    }
    if !wrong.is_empty() {
        return Err(format!(
            "an event's layout is not locked on both sides\n{}",
            wrong.join("\n")
        ));
    }
    if count == 0 {
        return Ok(Outcome::Skipped(
            "there are no event structs in bpf/".into(),
        ));
    }
    Ok(Outcome::Passed(format!("{count} event structs")))
}

fn is_event_header(path: &str) -> bool {
    path.strip_prefix("bpf/")
        .is_some_and(|name| name.ends_with(".h") && !name.contains('/'))
}

fn compare<'a>(
    header: &File,
    name: &str,
    fields: &[String],
    twins: impl Iterator<Item = &'a File>,
) -> Vec<String> {
    let c = c_asserts(&header.text, name);
    let mut wrong: Vec<String> = [SIZE]
        .into_iter()
        .chain(fields.iter().map(String::as_str))
        .filter(|field| !c.contains_key(*field))
        .map(|field| format!("{}: struct {name}: {field} is not asserted", header.path))
        .collect();
    let rust: Vec<(&str, Layout)> = twins
        .map(|file| (file.path.as_str(), rust_asserts(&file.text)))
        .filter(|(_, layout)| !layout.is_empty())
        .collect();
    if rust.is_empty() {
        wrong.push(format!(
            "{TWINS}: no file that names {name} asserts its offsets"
        ));
    }
    for (path, layout) in rust.iter().filter(|(_, layout)| *layout != c) {
        wrong.push(format!(
            "{path}: asserts {layout:?}, but {} asserts {c:?}",
            header.path
        ));
    }
    wrong
}

/// Name and fields of each `struct *_event { ... };`.
fn event_structs(text: &str) -> Vec<(String, Vec<String>)> {
    let text = without_comments(text);
    let mut found = Vec::new();
    for part in text.split("struct ").skip(1) {
        let Some((name, body)) = part.split_once('{') else {
            continue;
        };
        let Some((body, _)) = body.split_once("};") else {
            continue;
        };
        if name.trim().ends_with("_event") {
            let fields = body.split(';').filter_map(field_name).collect();
            found.push((name.trim().to_owned(), fields));
        }
    }
    found
}

/// `__u32 pid` and `char comm[16]` to `pid` and `comm`.
fn field_name(declaration: &str) -> Option<String> {
    let name = declaration.split('[').next()?.split_whitespace().last()?;
    Some(name.trim_start_matches('*').to_owned())
}

fn without_comments(text: &str) -> String {
    let mut parts = text.split("/*");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    kept.extend(parts.filter_map(|part| Some(part.split_once("*/")?.1)));
    kept
}

/// What `_Static_assert(sizeof(struct NAME) == N` and `offsetof(struct NAME, FIELD) == N` say.
fn c_asserts(text: &str, name: &str) -> Layout {
    let mut layout = asserted(text, &format!("offsetof(struct {name},"));
    layout.extend(
        asserted(text, &format!("sizeof(struct {name}"))
            .into_values()
            .map(|size| (SIZE.into(), size)),
    );
    layout
}

/// What `offset_of!(TYPE, FIELD) == N` and `size_of::<TYPE>() == N` say.
fn rust_asserts(text: &str) -> Layout {
    let mut layout = asserted(text, "offset_of!(");
    layout.extend(
        asserted(text, "size_of::<")
            .into_values()
            .map(|size| (SIZE.into(), size)),
    );
    layout
}

/// For each `PREFIX ... NAME ) == NUMBER`: the last word before the parenthesis, and the number.
fn asserted(text: &str, prefix: &str) -> Layout {
    let mut layout = Layout::new();
    for (at, _) in text.match_indices(prefix) {
        let rest = &text[at + prefix.len()..];
        let Some((inside, after)) = rest.split_once(')') else {
            continue;
        };
        let field = inside
            .rsplit([',', ' '])
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        let Some(number) = after.trim_start().strip_prefix("==") else {
            continue;
        };
        let operand: String = number.trim_start().chars().take_while(is_operand).collect();
        if let Some(number) = operand.parse().ok().or_else(|| constant(text, &operand)) {
            layout.insert(field, number);
        }
    }
    layout
}

fn is_operand(letter: &char) -> bool {
    letter.is_alphanumeric() || "_:".contains(*letter)
}

/// The value of `const NAME: usize = N`, for `Type::NAME` too.
fn constant(text: &str, path: &str) -> Option<u64> {
    let name = path.rsplit("::").next()?;
    let (_, value) = text.split_once(&format!("const {name}: usize = "))?;
    value.split(';').next()?.replace('_', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{File, compare, event_structs};

    const HEADER: &str = "
/* struct no_event { }; */
struct x_event {
	__u64 a; /* the first; */
	char b[16];
};
_Static_assert(sizeof(struct x_event) == 24, \"size\");
_Static_assert(__builtin_offsetof(struct x_event, a) == 0, \"a\");
_Static_assert(offsetof(struct x_event, b) == 8, \"b\");
";
    const TWIN: &str = "/// x_event\nconst _: () = {\n    assert!(size_of::<Event>() == 24);
    assert!(offset_of!(Event, a) == 0);\n    assert!(std::mem::offset_of!(Event, b) == 8);\n};";

    fn wrong(header: &str, twin: &str) -> usize {
        let file = |path: &str, text: &str| File {
            path: path.into(),
            text: text.into(),
        };
        let (name, fields) = event_structs(header).remove(0);
        compare(
            &file("bpf/x.h", header),
            &name,
            &fields,
            [file("event.rs", twin)].iter(),
        )
        .len()
    }

    #[test]
    fn both_sides_must_assert_the_same() {
        assert_eq!(
            event_structs(HEADER),
            [("x_event".to_owned(), vec!["a".to_owned(), "b".to_owned()])]
        );
        assert_eq!(wrong(HEADER, TWIN), 0);
        assert_eq!(wrong(&HEADER.replace("== 8", "== 16"), TWIN), 1);
        assert_eq!(wrong(HEADER, &TWIN.replace("== 24", "== 32")), 1);
        assert_eq!(wrong(HEADER, "x_event"), 1);
        let named = TWIN.replace("== 24", "== Event::BYTES") + "const BYTES: usize = 24;";
        assert_eq!(wrong(HEADER, &named), 0);
        assert_eq!(wrong(HEADER, &named.replace("= 24", "= 32")), 1);
        // Not asserted in C, and therefore also different from Rust.
        assert_eq!(
            wrong(&HEADER.replace("char b[16];", "char b[16]; __u32 c;"), TWIN),
            1
        );
    }
}
