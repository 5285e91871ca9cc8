//! The documents of the conformance run: the same in every run, each a JSON text without a line break.
//!
//! They are about key order (surrogates against private use, shared prefixes, escapes in keys, keys like numbers), spellings of
//! numbers, escapes, depth, unusual characters and empty containers. No document has duplicate keys, lone surrogates or
//! integers that a double cannot hold: what is an error has no canonical form to compare.

use std::collections::HashSet;

/// Characters where implementations differ: control, quotes, HTML, line separators, private use, the ends of planes.
const CHARS: &[char] = &[
    '\0',
    '\u{1}',
    '\u{8}',
    '\t',
    '\n',
    '\u{b}',
    '\u{c}',
    '\r',
    '\u{1f}',
    ' ',
    '"',
    '/',
    '\\',
    '<',
    '>',
    '&',
    '\'',
    '\u{7f}',
    '\u{80}',
    'é',
    'ß',
    'İ',
    'ı',
    '\u{301}',
    '\u{2028}',
    '\u{2029}',
    '€',
    '\u{d7ff}',
    '\u{e000}',
    '\u{f8ff}',
    '\u{fb33}',
    '\u{feff}',
    '\u{fffd}',
    '\u{ffff}',
    '\u{10000}',
    '😀',
    '𝄞',
    '\u{f0000}',
    '\u{10ffff}',
];

const KEYS: &[&str] = &[
    "",
    "0",
    "1",
    "10",
    "2",
    "-1",
    "a",
    "A",
    "aa",
    "b",
    "id",
    "length",
    "__proto__",
    "constructor",
    "toJSON",
    "true",
];

const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "0.0",
    "-0.0e0",
    "0e-7",
    "1.0",
    "1e0",
    "1E2",
    "1e+2",
    "100.000",
    "-1.50",
    "0.1e1",
    "1e20",
    "1e21",
    "1e22",
    "1e23",
    "100000000000000000000",
    "1000000000000000000000e0",
    "123456789012345680000",
    "1e-6",
    "1e-7",
    "0.0000012",
    "0.00000012",
    "9007199254740991",
    "9007199254740992",
    "-9007199254740992",
    "9007199254740994",
    "5e-324",
    "2.2250738585072014e-308",
    "1.7976931348623157e308",
    "1e-400",
    "-1e-400",
    "0.30000000000000004",
    "0.300000000000000044408920985006",
    "333333333.33333329",
    "4.50",
    "2e-3",
    "0.000000000000000000000000001",
    "1424953923781206.2",
    "1.1e1",
    "4.35",
    "9.5367431640625e-7",
    "295147905179352830000",
    "999999999999999700000",
    "1234567890123456.70",
];

/// How deep a document goes: every implementation at hand takes this.
const DEPTH_MAX: u64 = 100;

/// Makes documents.
pub(crate) struct Source {
    state: u64,
}

impl Source {
    pub(crate) fn new() -> Source {
        Source {
            state: 0x2545_f491_4f6c_dd1d,
        }
    }

    /// The next document.
    pub(crate) fn document(&mut self) -> String {
        let mut out = String::new();
        if self.below(64) == 0 {
            self.deep(&mut out);
        } else {
            self.value(&mut out, 0);
        }
        out
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn deep(&mut self, out: &mut String) {
        let levels = 1 + self.below(DEPTH_MAX);
        let mut ends = Vec::new();
        for _ in 0..levels {
            if self.below(2) == 0 {
                out.push('[');
                ends.push(']');
            } else {
                out.push_str("{\"k\":");
                ends.push('}');
            }
        }
        out.push_str("[]");
        out.extend(ends.iter().rev());
    }

    fn space(&mut self, out: &mut String) {
        if self.below(4) == 0 {
            out.push_str(self.pick(&[" ", "  ", "\t", "\r", " \t "]));
        }
    }

    fn value(&mut self, out: &mut String, depth: u64) {
        self.space(out);
        // A root is a container more often than not, and branches end.
        let kinds = if depth < 4 { 10 } else { 6 };
        match if depth == 0 {
            5 + self.below(5)
        } else {
            self.below(kinds)
        } {
            0 => out.push_str(self.pick(&["null", "true", "false"])),
            1 | 2 => self.number(out),
            3 | 4 => {
                let text = self.text();
                self.string(out, &text);
            }
            5 => out.push_str(self.pick(&["{}", "[]", "{ }", "[\t]", "\"\"", "0"])),
            6 | 7 => self.array(out, depth),
            _ => self.object(out, depth),
        }
        self.space(out);
    }

    fn array(&mut self, out: &mut String, depth: u64) {
        out.push('[');
        for nth in 0..self.below(6) {
            if nth > 0 {
                out.push(',');
            }
            self.value(out, depth + 1);
        }
        out.push(']');
    }

    fn object(&mut self, out: &mut String, depth: u64) {
        let mut seen = HashSet::new();
        // Some objects share a prefix, so that order is decided late; a few are larger than any small-object path.
        let prefix = if self.below(4) == 0 {
            self.text()
        } else {
            String::new()
        };
        let members = if self.below(50) == 0 {
            60
        } else {
            self.below(8)
        };
        out.push('{');
        for _ in 0..members {
            let own = self.key();
            let key = format!("{prefix}{own}");
            if !seen.insert(key.clone()) {
                continue;
            }
            if seen.len() > 1 {
                out.push(',');
            }
            self.space(out);
            self.string(out, &key);
            self.space(out);
            out.push(':');
            self.value(out, depth + 1);
        }
        out.push('}');
    }

    fn key(&mut self) -> String {
        match self.below(3) {
            0 => self.pick(KEYS).to_owned(),
            1 => String::from(self.pick(CHARS)),
            _ => self.text(),
        }
    }

    fn text(&mut self) -> String {
        let len = if self.below(20) == 0 {
            self.below(80)
        } else {
            self.below(7)
        };
        (0..len)
            .map(|_| match self.below(3) {
                0 => self.pick(CHARS),
                1 => char::from(b' ' + self.below(95) as u8),
                _ => loop {
                    // Any scalar value; the surrogates are not among them.
                    if let Some(char) = char::from_u32(self.below(0x11_0000) as u32) {
                        break char;
                    }
                },
            })
            .collect()
    }

    /// A string with some characters escaped that need not be, in either case of hex.
    fn string(&mut self, out: &mut String, text: &str) {
        out.push('"');
        for char in text.chars() {
            let escape = self.below(5) == 0;
            let short = match char {
                '"' => Some("\\\""),
                '\\' => Some("\\\\"),
                '/' if escape => Some("\\/"),
                '\u{8}' if !escape => Some("\\b"),
                '\t' if !escape => Some("\\t"),
                '\n' if !escape => Some("\\n"),
                '\u{c}' if !escape => Some("\\f"),
                '\r' if !escape => Some("\\r"),
                _ => None,
            };
            if let Some(short) = short {
                out.push_str(short);
            } else if escape || char < ' ' {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    if self.below(2) == 0 {
                        out.push_str(&format!("\\u{unit:04x}"));
                    } else {
                        out.push_str(&format!("\\u{unit:04X}"));
                    }
                }
            } else {
                out.push(char);
            }
        }
        out.push('"');
    }

    fn number(&mut self, out: &mut String) {
        match self.below(6) {
            0 | 1 => out.push_str(self.pick(NUMBERS)),
            2 => out.push_str(&(self.below(1 << 53) as i64 - (1 << 52)).to_string()),
            3 => out.push_str(&format!("{:.3}", self.below(1 << 40) as f64 / 1000.0)),
            4 => out.push_str(&format!("{:E}", self.double())),
            _ => match self.double() {
                // More digits than a double has. Not in large integers: it is an error in CBOR to lose any there.
                value if value.abs() < 1e15 => out.push_str(&format!("{value:.20e}")),
                value => out.push_str(&format!("{value:e}")),
            },
        }
    }

    /// Any finite double: its sign and exponent are as random as its digits.
    fn double(&mut self) -> f64 {
        loop {
            let value = f64::from_bits(self.below(1 << 53) << 11 | self.below(1 << 11));
            if value.is_finite() {
                return value;
            }
        }
    }
}
