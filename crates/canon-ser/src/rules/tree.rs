//! A document as a tree whose numbers keep their spelling, and the rules at work on it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::buf::{Buf as _, Growing};
use crate::error::{Error, Fail};
use crate::json::number::Literal;
use crate::json::text::{Piece, Sink, Token, drive};
use crate::json::{self, string, text_error};
use crate::rules::decimal::Decimal;
use crate::rules::time::Time;
use crate::rules::{NullIs, Rules, Source, TimeForm};

enum Node {
    /// `null`, `true` or `false`.
    Word(&'static str),
    Number(String),
    Text(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    fn is_null(&self) -> bool {
        matches!(self, Node::Word("null"))
    }
}

/// The canonical text of what a document means under the rules.
pub(crate) fn normalize(
    text: &[u8],
    rules: &Rules,
    options: json::Options,
) -> Result<Vec<u8>, Error> {
    // First as it stands: what is wrong with the text is told with line and column, and the depth is bounded from here on.
    json::canonicalize_with(text, options)?;
    let mut builder = Builder {
        open: Vec::new(),
        root: None,
    };
    drive::<_, false>(text, &mut builder).map_err(|fail| text_error(fail, text))?;
    let root = builder.root.unwrap_or(Node::Word("null"));
    let root = Walk {
        rules,
        pointer: String::new(),
    }
    .apply(root)?;
    let mut out = Growing::with_room(text.len());
    write(&mut out, &root).map_err(Error::new)?;
    json::canonicalize_with(out.bytes(), options).map_err(Error::without_place)
}

struct Walk<'r> {
    rules: &'r Rules,
    /// JSON Pointer to the value at hand, in the document's own names.
    pointer: String,
}

impl Walk<'_> {
    fn apply(&mut self, node: Node) -> Result<Node, Error> {
        match node {
            Node::Array(elements) => {
                let mut done = Vec::with_capacity(elements.len());
                for (index, element) in elements.into_iter().enumerate() {
                    let element = self.inside(&index.to_string(), |walk| walk.apply(element))?;
                    done.push(element);
                }
                Ok(Node::Array(done))
            }
            Node::Object(members) => {
                let mut done = Vec::with_capacity(members.len());
                for (name, value) in members {
                    let value = match self.null_is(&name) {
                        Some(container) if value.is_null() => container,
                        _ => value,
                    };
                    if self.rules.null_is_absent && value.is_null() {
                        continue;
                    }
                    done.push(self.inside(&name, |walk| walk.member(&name, value))?);
                }
                Ok(Node::Object(done))
            }
            other => Ok(other),
        }
    }

    /// What null stands for in a member of this name, if not for itself.
    fn null_is(&self, name: &str) -> Option<Node> {
        let (_, source) = self.rules.source(name)?;
        Some(match source.null_is? {
            NullIs::EmptyObject => Node::Object(Vec::new()),
            NullIs::EmptyArray => Node::Array(Vec::new()),
        })
    }

    fn inside<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let len = self.pointer.len();
        self.pointer.push('/');
        self.pointer
            .push_str(&name.replace('~', "~0").replace('/', "~1"));
        let result = work(self)?;
        self.pointer.truncate(len);
        Ok(result)
    }

    fn member(&mut self, name: &str, value: Node) -> Result<(String, Node), Error> {
        let Some((field, source)) = self.rules.source(name) else {
            return Ok((name.to_string(), self.apply(value)?));
        };
        // Null stays what it is, whatever the field is.
        let value = match (source, value) {
            (_, null @ Node::Word("null")) => null,
            (
                Source {
                    time: Some(form), ..
                },
                value,
            ) => Node::Text(self.time(form, &value)?),
            (
                Source {
                    factor: Some(factor),
                    ..
                },
                value,
            ) => Node::Number(self.scaled(factor, &value)?),
            (_, value) => self.apply(value)?,
        };
        Ok((field.to_string(), value))
    }

    fn time(&self, form: TimeForm, value: &Node) -> Result<String, Error> {
        let time = match (value, form) {
            (Node::Text(text), _) => Time::parse(text),
            (Node::Number(number), TimeForm::EpochS) => {
                Decimal::parse(number).and_then(|number| Time::of_epoch(number, 0))
            }
            (Node::Number(number), TimeForm::EpochMs) => {
                Decimal::parse(number).and_then(|number| Time::of_epoch(number, -3))
            }
            _ => None,
        };
        let wanted = match form {
            TimeForm::Rfc3339 => "an RFC 3339 time",
            TimeForm::EpochS => "an RFC 3339 time or seconds since 1970",
            TimeForm::EpochMs => "an RFC 3339 time or milliseconds since 1970",
        };
        time.map(|time| time.canonical())
            .ok_or_else(|| self.refuse(&format!("the rules want {wanted} here")))
    }

    fn scaled(&self, factor: Decimal, value: &Node) -> Result<String, Error> {
        let Node::Number(number) = value else {
            return Err(self.refuse("the rules want a number here, for its unit factor"));
        };
        Decimal::parse(number)
            .and_then(|number| number.times(factor))
            .map(Decimal::literal)
            .ok_or_else(|| self.refuse("the number has too many digits for its unit factor"))
    }

    fn refuse(&self, reason: &str) -> Error {
        let fail = <Fail as serde::de::Error>::custom(reason);
        Error::new(fail).with_pointer(self.pointer.clone())
    }
}

/// Writes the tree as JSON text, in no particular order.
fn write(out: &mut Growing, node: &Node) -> Result<(), Fail> {
    match node {
        Node::Word(word) => out.extend(word.as_bytes())?,
        Node::Number(number) => out.extend(number.as_bytes())?,
        Node::Text(text) => drop(string::write(out, text.as_bytes())?),
        Node::Array(elements) => {
            out.push(b'[')?;
            for (nth, element) in elements.iter().enumerate() {
                if nth > 0 {
                    out.push(b',')?;
                }
                write(out, element)?;
            }
            out.push(b']')?;
        }
        Node::Object(members) => {
            out.push(b'{')?;
            for (nth, (name, value)) in members.iter().enumerate() {
                if nth > 0 {
                    out.push(b',')?;
                }
                string::write(out, name.as_bytes())?;
                out.push(b':')?;
                write(out, value)?;
            }
            out.push(b'}')?;
        }
    }
    Ok(())
}

struct Builder {
    /// Each open container, with the key that waits for its value and where it starts.
    open: Vec<(Node, Option<String>, usize)>,
    root: Option<Node>,
}

impl Builder {
    fn add(&mut self, node: Node) {
        match self.open.last_mut() {
            Some((Node::Array(elements), ..)) => elements.push(node),
            Some((Node::Object(members), key, _)) => {
                members.push((key.take().unwrap_or_default(), node));
            }
            _ => self.root = Some(node),
        }
    }
}

fn decoded(token: Token<'_>) -> Result<String, Fail> {
    let mut bytes = Vec::with_capacity(token.quoted.len());
    token.decode(|piece| {
        match piece {
            Piece::Run(run) => bytes.extend_from_slice(run),
            Piece::Escape(char, _) => {
                bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        Ok(())
    })?;
    Ok(String::from_utf8(bytes)
        .expect("the driver has checked the text, and escapes are characters"))
}

impl Sink for Builder {
    fn word(&mut self, word: &'static str) -> Result<(), Fail> {
        self.add(Node::Word(word));
        Ok(())
    }

    fn number(&mut self, literal: Literal<'_>) -> Result<(), Fail> {
        let text = core::str::from_utf8(literal.text).expect("a number is ASCII");
        self.add(Node::Number(text.into()));
        Ok(())
    }

    fn string(&mut self, token: Token<'_>) -> Result<(), Fail> {
        let text = decoded(token)?;
        self.add(Node::Text(text));
        Ok(())
    }

    fn key(&mut self, token: Token<'_>, _leading: u64) -> Result<(), Fail> {
        if let Some((_, key, _)) = self.open.last_mut() {
            *key = Some(decoded(token)?);
        }
        Ok(())
    }

    fn open(&mut self, object: bool, offset: usize) -> Result<(), Fail> {
        let node = if object {
            Node::Object(Vec::new())
        } else {
            Node::Array(Vec::new())
        };
        self.open.push((node, None, offset));
        Ok(())
    }

    fn next_element(&mut self) -> Result<(), Fail> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fail> {
        if let Some((node, ..)) = self.open.pop() {
            self.add(node);
        }
        Ok(())
    }

    fn innermost(&self) -> Option<(bool, usize)> {
        let (node, _, offset) = self.open.last()?;
        Some((matches!(node, Node::Object(_)), *offset))
    }
}
