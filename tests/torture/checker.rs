//! Judges what a round recorded.

use std::fmt;

use crate::history::History;

/// A promise that was not kept.
#[derive(Debug, Clone)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything in a history that must not be.
pub fn check(_: &History) -> Vec<Violation> {
    Vec::new()
}
