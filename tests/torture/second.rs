//! A second checker, which shares no rules and no judging code with the first: the same keys are
//! sent with different contents through three APIs concurrently, while services and sessions are
//! killed, and each key is judged as a register in which the first write wins.

mod breaking;
mod clients;
mod keeping;
mod planned;
mod recorder;
mod report;
mod round;
mod runner;
mod sending;
mod service;
mod settling;
mod shapes;
mod table;
mod watching;

use testkit::judge;

pub use runner::{hunt, run};
