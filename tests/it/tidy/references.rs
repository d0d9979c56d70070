//! What a source file refers to: the paths of its `use` declarations, the paths in its code, and its macros.
//! Code that is only in tests is left out.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A path as it is written, from `crate`, `self`, `super`, a name in scope or an external crate on.
#[derive(Debug, PartialEq, Eq)]
pub struct Path {
    /// The modules of this file around it.
    pub inside: Vec<String>,
    pub segments: Vec<String>,
}

#[derive(Debug, Default)]
pub struct References {
    pub paths: Vec<Path>,
    pub macros: Vec<String>,
}

impl References {
    pub fn of(source: &str) -> Self {
        let tokens: TokenStream = source.parse().expect("Rust");
        let mut references = Self::default();
        references.code(tokens, &[]);
        references
    }

    fn code(&mut self, tokens: TokenStream, inside: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                TokenTree::Group(group) => self.code(group.stream(), inside),
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    if let Some(TokenTree::Group(attribute)) = tokens.get(at)
                        && is_left_out(attribute)
                    {
                        at = item_end(&tokens, at + 1);
                    }
                }
                TokenTree::Ident(word) if word == "use" && !is(tokens.get(at), '<') => {
                    let end = position(&tokens, at, ';');
                    self.tree(&tokens[at..end], &[], inside);
                    at = end + 1;
                }
                TokenTree::Ident(word) if word == "mod" => {
                    if let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(content))) =
                        (tokens.get(at), tokens.get(at + 1))
                    {
                        let inside = [inside, &[name.to_string()]].concat();
                        self.code(content.stream(), &inside);
                        at += 2;
                    }
                }
                TokenTree::Ident(word) => {
                    // The end of `<T as Trait>::name` is no path of its own.
                    let is_colon = |back: usize| at > back && is(tokens.get(at - 1 - back), ':');
                    let is_whole = !(is_colon(1) && is_colon(2));
                    let mut segments = vec![word.to_string()];
                    while let Some(TokenTree::Ident(next)) = after_colons(&tokens, at) {
                        segments.push(next.to_string());
                        at += 3;
                    }
                    if is(tokens.get(at), '!') && !is(tokens.get(at + 1), '=') {
                        self.macros.extend(segments.last().cloned());
                    }
                    let is_path = segments.len() > 1 || after_colons(&tokens, at).is_some();
                    if is_whole && is_path {
                        self.paths.push(Path { inside: inside.to_vec(), segments });
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => (),
            }
        }
    }

    /// The paths of a `use` declaration, or of a part of one behind `prefix`.
    fn tree(&mut self, tokens: &[TokenTree], prefix: &[String], inside: &[String]) {
        for branch in tokens.split(|token| is(Some(token), ',')) {
            let mut segments = prefix.to_vec();
            let mut is_leaf = !branch.is_empty();
            for token in branch {
                match token {
                    TokenTree::Group(group) => {
                        let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
                        self.tree(&tokens, &segments, inside);
                        is_leaf = false;
                    }
                    TokenTree::Ident(word) if word == "as" => break,
                    TokenTree::Ident(word) if word == "self" && !segments.is_empty() => (),
                    TokenTree::Ident(word) => segments.push(word.to_string()),
                    TokenTree::Punct(_) | TokenTree::Literal(_) => (),
                }
            }
            if is_leaf {
                self.paths.push(Path { inside: inside.to_vec(), segments });
            }
        }
    }
}

fn is(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

/// The token behind `::`, if that is next.
fn after_colons(tokens: &[TokenTree], at: usize) -> Option<&TokenTree> {
    let is_next = is(tokens.get(at), ':') && is(tokens.get(at + 1), ':');
    is_next.then(|| tokens.get(at + 2)).flatten()
}

fn position(tokens: &[TokenTree], from: usize, mark: char) -> usize {
    let found = tokens[from..].iter().position(|token| is(Some(token), mark));
    found.map_or(tokens.len(), |found| from + found)
}

/// Whether an attribute leaves its item out of the program.
fn is_left_out(attribute: &Group) -> bool {
    let text: String = attribute.stream().to_string().split_whitespace().collect();
    text == "cfg(test)"
}

/// Where the item or statement ends that begins here: behind a semicolon, or behind a block.
fn item_end(tokens: &[TokenTree], from: usize) -> usize {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is(Some(token), ';'),
    };
    // `use` declarations have braces inside.
    let is_use = matches!(&tokens[from..], [TokenTree::Ident(word), ..] if word == "use")
        || matches!(&tokens[from..], [_, TokenTree::Ident(word), ..] if word == "use");
    let end = match is_use {
        true => position(tokens, from, ';'),
        false => {
            let end = tokens[from..].iter().position(is_end);
            end.map_or(tokens.len(), |end| from + end)
        }
    };
    end + 1
}

fn paths(source: &str) -> Vec<String> {
    References::of(source).paths.iter().map(|path| path.segments.join("::")).collect()
}

#[test]
fn use_declarations_are_read_with_nested_braces() {
    let source = "pub use crate::{a, b::{self, c as d, e::*}}; use {super::f, tokio::net::{g}};";
    let expected = ["crate::a", "crate::b", "crate::b::c", "crate::b::e", "super::f"];
    assert_eq!(paths(source), [&expected[..], &["tokio::net::g"]].concat());
}

#[test]
fn paths_in_code_and_macros_are_read() {
    let source = r#"
        //! crate::comment
        #[tokio::main] fn main(x: impl A<crate::b::C> + use<'_>) -> Vec<super::D> {
            let _ = select! { y = crate::e::f::<crate::g::H>() => "crate::text" };
            if x != y { self::i::j(<K as serde::L>::m()) } println!("{}", n.o)
        }"#;
    let read = ["tokio::main", "crate::b::C", "super::D", "crate::e::f", "crate::g::H"];
    assert_eq!(paths(source), [&read[..], &["self::i::j", "serde::L"]].concat());
    assert_eq!(References::of(source).macros, ["select", "println"]);
}

#[test]
fn code_of_tests_is_left_out() {
    let source = r#"
        #[cfg(test)] use crate::{a, b};
        #[cfg(test)] mod tests { use super::*; }
        fn c() { #[cfg(test)] if crate::a::b() { crate::d(); } crate::e() }
        mod inner { use super::f; }"#;
    let paths = References::of(source).paths;
    let inside = vec!["inner".to_owned()];
    assert_eq!(paths[0].segments, ["crate", "e"]);
    assert_eq!(paths[1], Path { inside, segments: vec!["super".to_owned(), "f".to_owned()] });
    assert_eq!(paths.len(), 2);
}
