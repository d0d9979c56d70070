//! Takes in events that producers may send more than once, keeps each exactly once under its key
//! `(topic, event_id)`, counts what came and what was repeated, and gives it back.
//!
//! Data flows one way: edge ([`grpc`], [`http`]) → [`ingest`] → [`store`] → [`feed`] → edge.

#![warn(clippy::disallowed_types)]

pub mod access;
pub mod admission;
pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod cursor;
pub mod edge;
pub mod event;
pub mod feed;
pub mod grpc;
pub mod http;
pub mod ingest;
mod json;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod page;
pub mod peer;
pub mod proto;
pub mod store;
pub mod tls;
pub mod token;
pub mod trace;
