//! The service under test, as a program to start.

use std::{env, ffi::OsString};

use crate::mutants::{Made, Mutant, patched, serve};

/// The service of this tree.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_event-aggregator");

/// A program with the arguments that precede the options of `serve`.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: OsString,
    pub arguments: Vec<&'static str>,
}

impl Program {
    /// The service of this tree, or a mutant of it.
    pub fn of(mutant: Option<&Mutant>) -> Self {
        match mutant.map(|mutant| (mutant.name, &mutant.made)) {
            None => Self { path: PROGRAM.into(), arguments: vec!["serve"] },
            Some((name, Made::Store(_))) => {
                let test = env::current_exe().expect("the path of this program");
                Self { path: test.into(), arguments: vec![serve::FLAG, name] }
            }
            Some((name, Made::Patch)) => {
                Self { path: patched::program(name).into(), arguments: vec!["serve"] }
            }
        }
    }
}
