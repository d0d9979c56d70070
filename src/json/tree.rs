//! One of two compared texts, parsed so that the other one is read only once, and only until the
//! result is known.

use std::{borrow::Cow, cell::Cell, ops::Range};

use super::{
    decimal::Decimal,
    tokens::{Raw, Tokens},
};
use crate::limits::MAX_PAYLOAD_DEPTH;

/// A parsed JSON text.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    /// All values, each before its descendants. The first one is the whole text.
    nodes: Vec<Node<'a>>,
    /// The members of each object, sorted by key.
    members: Vec<Member<'a>>,
    /// Number of the last object that was compared.
    objects_compared: Cell<u32>,
}

#[derive(Debug)]
enum Node<'a> {
    /// Members, and the index after all its descendants.
    Object(Range<usize>, usize),
    /// The index after all its descendants.
    List(usize),
    Text(Cow<'a, [u8]>),
    /// The number as written; if it is long, also as a decimal, because it is compared repeatedly.
    Number(&'a [u8], Option<Box<Decimal<'a>>>),
    /// `true`, `false` or `null`.
    Word(&'a [u8]),
}

/// Maximum bytes of a number that is cheap to parse.
const SHORT_NUMBER: usize = 32;

#[derive(Debug)]
struct Member<'a> {
    key: Cow<'a, [u8]>,
    node: usize,
    /// The object in which the key was last found, and whether the values were equal.
    seen: Cell<(u32, bool)>,
}

/// The values differ whatever follows, or the text is invalid.
struct Different;

impl<'a> Tree<'a> {
    /// Parses a text. `None` if it is invalid.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        let mut tree =
            Self { nodes: Vec::new(), members: Vec::new(), objects_compared: Cell::new(0) };
        let mut tokens = Tokens::of(text);
        tree.value(&mut tokens, &mut Vec::new(), 0)?;
        tokens.peek().is_none().then_some(tree)
    }

    /// Parses the next value. `open` has the members of the objects that contain it.
    fn value(
        &mut self,
        tokens: &mut Tokens<'a>,
        open: &mut Vec<Member<'a>>,
        depth: usize,
    ) -> Option<()> {
        match tokens.peek()? {
            b'{' | b'[' if depth == MAX_PAYLOAD_DEPTH => return None,
            b'{' => {
                let (node, first) = (self.nodes.len(), open.len());
                self.nodes.push(Node::Object(0..0, 0));
                let mut more = tokens.pass(b'{') && !tokens.pass(b'}');
                while more {
                    let key = tokens.key()?.decoded()?;
                    open.push(Member { key, node: self.nodes.len(), seen: Cell::default() });
                    self.value(tokens, open, depth + 1)?;
                    more = tokens.pass(b',');
                    if !more && !tokens.pass(b'}') {
                        return None;
                    }
                }
                self.nodes[node] = Node::Object(self.close(open, first), self.nodes.len());
            }
            b'[' => {
                let node = self.nodes.len();
                self.nodes.push(Node::List(0));
                let mut more = tokens.pass(b'[') && !tokens.pass(b']');
                while more {
                    self.value(tokens, open, depth + 1)?;
                    more = tokens.pass(b',');
                    if !more && !tokens.pass(b']') {
                        return None;
                    }
                }
                self.nodes[node] = Node::List(self.nodes.len());
            }
            b'"' => self.nodes.push(Node::Text(tokens.string()?.decoded()?)),
            b'-' | b'0'..=b'9' => {
                let number = tokens.scalar()?;
                let is_long = number.len() > SHORT_NUMBER;
                let decimal = is_long.then(|| Box::new(Decimal::of(number)));
                self.nodes.push(Node::Number(number, decimal));
            }
            _ => self.nodes.push(Node::Word(tokens.scalar()?)),
        }
        Some(())
    }

    /// Adds the members of an object that ends. The last of repeated keys counts.
    fn close(&mut self, open: &mut Vec<Member<'a>>, first: usize) -> Range<usize> {
        let own = &mut open[first..];
        // Later members first. The sort is unstable, so their order is part of the comparison.
        own.sort_unstable_by(|a, b| a.key.cmp(&b.key).then(b.node.cmp(&a.node)));
        let start = self.members.len();
        for member in open.drain(first..) {
            let is_repeated =
                self.members[start..].last().is_some_and(|last| last.key == member.key);
            if !is_repeated {
                self.members.push(member);
            }
        }
        start..self.members.len()
    }

    /// Whether another valid text is the same value. Reads it once, and stops when the result is
    /// known.
    pub(super) fn is(&self, text: &str) -> bool {
        let mut tokens = Tokens::of(text);
        let is_same = self.same(0, &mut tokens, true);
        is_same.is_ok_and(|is_same| is_same) && tokens.peek().is_none()
    }

    /// Consumes the next value of another text, and returns whether it equals a node. With
    /// `decides`, an inequality is an error, because nothing that follows can replace the value.
    fn same(&self, node: usize, tokens: &mut Tokens<'_>, decides: bool) -> Result<bool, Different> {
        let first = tokens.peek().ok_or(Different)?;
        let is_same = match (&self.nodes[node], first) {
            (Node::Object(members, _), b'{') => {
                self.same_members(members.clone(), tokens, decides)?
            }
            (&Node::List(end), b'[') => self.same_items(node + 1..end, tokens, decides)?,
            (Node::Text(text), b'"') => tokens.string().ok_or(Different)?.is(text),
            (Node::Number(number, decimal), b'-' | b'0'..=b'9') => {
                let other = tokens.scalar().ok_or(Different)?;
                let decimal = || decimal.as_deref().map_or_else(|| Decimal::of(number), |it| *it);
                *number == other
                    || !(is_whole(other) && number.len() <= SHORT_NUMBER && is_whole(number))
                        && decimal() == Decimal::of(other)
            }
            (Node::Word(word), b't' | b'f' | b'n') => tokens.scalar().ok_or(Different)? == *word,
            _ if decides => false,
            _ => tokens.skip().map(|()| false).ok_or(Different)?,
        };
        if is_same || !decides { Ok(is_same) } else { Err(Different) }
    }

    fn same_items(
        &self,
        items: Range<usize>,
        tokens: &mut Tokens<'_>,
        decides: bool,
    ) -> Result<bool, Different> {
        let mut item = items.start;
        let mut more = tokens.pass(b'[') && !tokens.pass(b']');
        while more {
            if item == items.end || !self.same(item, tokens, decides)? {
                return leave(tokens, decides);
            }
            item = match self.nodes[item] {
                Node::Object(_, behind) | Node::List(behind) => behind,
                _ => item + 1,
            };
            more = tokens.pass(b',');
            if !more && !tokens.pass(b']') {
                return Err(Different);
            }
        }
        Ok(item == items.end)
    }

    /// A member whose key is missing decides the comparison. One with another value does not,
    /// because its key may be repeated.
    fn same_members(
        &self,
        members: Range<usize>,
        tokens: &mut Tokens<'_>,
        decides: bool,
    ) -> Result<bool, Different> {
        let members = &self.members[members];
        let object = self.objects_compared.get().wrapping_add(1);
        self.objects_compared.set(object);
        let (mut seen, mut different, mut next) = (0, 0_usize, 0);
        let mut more = tokens.pass(b'{') && !tokens.pass(b'}');
        while more {
            let key = tokens.key().and_then(Raw::decoded).ok_or(Different)?;
            let Some(found) = find(members, &key, next) else {
                return leave(tokens, decides);
            };
            next = found + 1;
            let member = &members[found];
            let is_same = self.same(member.node, tokens, false)?;
            match member.seen.replace((object, is_same)) {
                (at, was_same) if at == object => different -= usize::from(!was_same),
                _ => seen += 1,
            }
            different += usize::from(!is_same);
            more = tokens.pass(b',');
            if !more && !tokens.pass(b'}') {
                return Err(Different);
            }
        }
        Ok(seen == members.len() && different == 0)
    }
}

/// Whether a number consists of digits only, so that equal numbers have equal text.
fn is_whole(number: &[u8]) -> bool {
    number.iter().all(u8::is_ascii_digit)
}

/// The index of a key, which is often the one after the previous key.
fn find(members: &[Member<'_>], key: &[u8], next: usize) -> Option<usize> {
    if members.get(next).is_some_and(|member| *member.key == *key) {
        return Some(next);
    }
    members.binary_search_by(|member| (*member.key).cmp(key)).ok()
}

/// Skips the rest of an object or array that differs.
fn leave(tokens: &mut Tokens<'_>, decides: bool) -> Result<bool, Different> {
    if decides {
        return Err(Different);
    }
    tokens.leave().map(|()| false).ok_or(Different)
}
