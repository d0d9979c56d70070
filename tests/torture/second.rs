//! A second checker, which shares no rule and no code of judging with the first: the same keys are sent
//! with different contents over three ways at once, while services and sessions are ended, and each key
//! is judged as a register in which the first write wins.

mod breaking;
mod clients;
mod judge;
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

pub use runner::{hunt, run};
