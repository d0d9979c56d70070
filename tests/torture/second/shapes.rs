//! Generates payloads: random values in hostile shapes, and many texts of each value. The judge
//! compares the texts, and does not rely on the intended equality.

use fastrand::Rng;

/// Texts of numbers, equal within a line. Some lines are equal as 64-bit floats and different as
/// decimals.
const NUMBERS: [&[&str]; 12] = [
    &["1", "1.0", "1e0", "10e-1", "0.1E1", "100E-2"],
    &["0", "-0", "0.0", "0e5", "-0.00E-3"],
    &["42", "4.2e1", "42.000", "420e-1"],
    &["-2.5", "-25e-1", "-2.50", "-0.25E+1"],
    &["9007199254740992", "9007199254740992.0", "9.007199254740992e15"],
    &["9007199254740993", "9007199254740993.0", "9.007199254740993e15"],
    &["0.1", "0.10", "1e-1", "0.01E1"],
    &["0.1000000000000000055511151231257827", "0.10000000000000000555111512312578270"],
    &["1e300", "10e299", "0.1e301"],
    &["123456789012345678901234567890", "1.2345678901234567890123456789e29"],
    &["5e-324", "50e-325"],
    &["18446744073709551616", "1.8446744073709551616E19"],
];

/// Number of lines of [`NUMBERS`] that a `Struct` represents exactly.
const SAFE_NUMBERS: usize = 4;

/// Strings in their shortest form; `"` and `\` are escaped when they are written.
const WORDS: [&str; 8] =
    ["", "a", "é", "e\u{301}", "\"\\/", "tab\tline\n", "😀", "\u{7f}\u{85}\u{2028}"];

/// Maximum nesting depth of the service.
const DEPTH: usize = 24;

/// A JSON value.
#[derive(Debug, Clone)]
pub enum Shape {
    Number(usize),
    Word(String),
    Other(&'static str),
    List(Vec<Shape>),
    Object(Vec<(String, Shape)>),
}

/// The shape of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Representable as a `Struct`.
    Plain,
    Small,
    Deep,
    Wide,
    /// About this many bytes.
    Large(usize),
}

impl Shape {
    pub fn new(form: Form, rng: &mut Rng) -> Self {
        let leaf = |rng: &mut Rng| Self::leaf(NUMBERS.len(), rng);
        match form {
            Form::Plain => {
                let member = |number| (format!("k{number}"), Self::leaf(SAFE_NUMBERS, rng));
                Self::Object((0..4).map(member).collect())
            }
            Form::Small => {
                let list = Self::List((0..3).map(|_| leaf(rng)).collect());
                let names = ["n", "s", "é\"", ""];
                let mut members: Vec<_> =
                    names.iter().map(|name| ((*name).to_owned(), leaf(rng))).collect();
                members.push(("l".to_owned(), list));
                Self::Object(members)
            }
            Form::Deep => {
                // The leaf may be an empty list, and everything is in an object.
                let mut value = leaf(rng);
                for level in 2..DEPTH {
                    value = match rng.bool() {
                        true => Self::List(vec![value, leaf(rng)]),
                        false => Self::Object(vec![(format!("d{level}"), value)]),
                    };
                }
                Self::Object(vec![("deep".to_owned(), value)])
            }
            Form::Wide => {
                let count = rng.usize(40..300);
                let member = |number| (format!("w{number}"), leaf(rng));
                Self::Object((0..count).map(member).collect())
            }
            Form::Large(bytes) => {
                // Arrays of short strings are expensive to parse, and long strings are cheap.
                let value = match rng.usize(..3) {
                    0 => Self::Word("x".repeat(bytes)),
                    1 => Self::List(vec![Self::Word(String::new()); bytes / 3]),
                    _ => {
                        let member = |number| (format!("w{number:06}"), Self::Number(0));
                        Self::Object((0..bytes / 18).map(member).collect())
                    }
                };
                Self::Object(vec![("large".to_owned(), value), ("n".to_owned(), leaf(rng))])
            }
        }
    }

    fn leaf(numbers: usize, rng: &mut Rng) -> Self {
        match rng.usize(..4) {
            0 | 1 => Self::Number(rng.usize(..numbers)),
            2 => Self::Word(WORDS[rng.usize(..WORDS.len())].to_owned()),
            _ => Self::Other(["true", "false", "null", "[]", "{}"][rng.usize(..5)]),
        }
    }

    /// A different value: one member is changed, removed or added.
    pub fn changed(&self, rng: &mut Rng) -> Self {
        let mut changed = self.clone();
        let Self::Object(members) = &mut changed else { return Self::Object(Vec::new()) };
        match rng.usize(..4) {
            0 => members.push((format!("new{}", rng.u8(..)), Self::Other("null"))),
            1 => drop(members.pop()),
            _ => {
                // At the innermost level of a nested value.
                let number = rng.usize(..members.len());
                members[number].1.change();
            }
        }
        changed
    }

    fn change(&mut self) {
        match self {
            // Some neighboring lines differ only in their last decimals.
            Self::Number(line) => *line ^= 1,
            Self::Word(word) => word.push('x'),
            Self::Other(text) => *text = if *text == "null" { "false" } else { "null" },
            Self::List(items) => match items.first_mut() {
                Some(item) => item.change(),
                None => items.push(Self::Other("null")),
            },
            Self::Object(members) => match members.last_mut() {
                Some((_, value)) => value.change(),
                None => members.push((String::new(), Self::Other("null"))),
            },
        }
    }

    /// A text of this value, with random whitespace, order, numbers and escapes.
    pub fn write(&self, rng: &mut Rng) -> String {
        let mut text = String::new();
        let spaces = rng.bool();
        self.write_to(&mut text, spaces, rng);
        text
    }

    fn write_to(&self, text: &mut String, spaces: bool, rng: &mut Rng) {
        let space = |text: &mut String, rng: &mut Rng| {
            if spaces && rng.u8(..4) == 0 {
                text.push_str([" ", "\n", "\t", "\r\n  "][rng.usize(..4)]);
            }
        };
        match self {
            Self::Number(line) => {
                let line = NUMBERS[*line];
                text.push_str(line[rng.usize(..line.len())]);
            }
            Self::Word(word) => write_word(word, text, rng),
            Self::Other(word) => text.push_str(word),
            // No spaces in large ones, because they would double the size.
            Self::List(items) => {
                text.push('[');
                for (number, item) in items.iter().enumerate() {
                    if number > 0 {
                        text.push(',');
                    }
                    if items.len() < 300 {
                        space(text, rng);
                    }
                    item.write_to(text, spaces, rng);
                }
                text.push(']');
            }
            Self::Object(members) => {
                let mut order: Vec<usize> = (0..members.len()).collect();
                rng.shuffle(&mut order);
                text.push('{');
                for (number, member) in order.into_iter().enumerate() {
                    if number > 0 {
                        text.push(',');
                    }
                    let (name, value) = &members[member];
                    let repeats = members.len() < 300 && rng.u8(..12) == 0;
                    if repeats {
                        // The last one counts.
                        write_word(name, text, rng);
                        text.push_str(":\"not\",");
                    }
                    space(text, rng);
                    match members.len() {
                        // No escapes in large ones, because they could exceed the size limit.
                        300.. => text.push_str(&format!("\"{name}\"")),
                        _ => write_word(name, text, rng),
                    }
                    space(text, rng);
                    text.push(':');
                    value.write_to(text, spaces && members.len() < 300, rng);
                }
                text.push('}');
            }
        }
    }
}

fn write_word(word: &str, text: &mut String, rng: &mut Rng) {
    let escapes = word.len() < 100 && rng.u8(..3) == 0;
    text.push('"');
    for character in word.chars() {
        let must = character < ' ' || matches!(character, '"' | '\\');
        match character {
            '"' | '\\' if rng.bool() => text.extend(['\\', character]),
            '/' if escapes => text.push_str("\\/"),
            '\n' if rng.bool() => text.push_str("\\n"),
            _ if must || escapes => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    text.push_str(&match rng.bool() {
                        true => format!("\\u{unit:04x}"),
                        false => format!("\\u{unit:04X}"),
                    });
                }
            }
            _ => text.push(character),
        }
    }
    text.push('"');
}
