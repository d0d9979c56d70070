//! Tables for people: one line per row.

use std::fmt;

use super::terminal;

/// A table that escapes its cells.
#[derive(Debug)]
pub(super) struct Table(comfy_table::Table);

impl Table {
    /// An empty table.
    pub(super) fn new<const N: usize>(header: [&str; N]) -> Self {
        let mut table = comfy_table::Table::new();
        table
            .load_style(comfy_table::presets::ASCII_MARKDOWN)
            .set_content_arrangement(comfy_table::ContentArrangement::Disabled)
            .set_header(header);
        Self(table)
    }

    /// Adds a row.
    pub(super) fn add_row<const N: usize>(&mut self, cells: [impl AsRef<str>; N]) {
        self.0.add_row(cells.map(|cell| terminal::cell(cell.as_ref())));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
