//! Event Aggregator: a gRPC and HTTP service that stores events exactly once, although producers
//! may send them more than once. It keeps each event under its key `(topic, event_id)`, counts what
//! was received and what was repeated, lists events and streams them to subscribers. Events are
//! stored in PostgreSQL or SQLite.
//!
//! The program is [`cli`]; [`app`] assembles the service.
//!
//! # Layout
//!
//! A request passes these modules, from the socket inwards:
//!
//! - `listener`: accepts connections, with `tls`; `peer` is the other end of one.
//! - `edge`: what surrounds every call: authentication (`access`), limits (`admission`), deadlines.
//! - `grpc` and `http`: the two protocols. [`proto`] is the generated code.
//! - `api`: what a call does, for both protocols.
//! - `ingest`: the queue, and the lanes that commit batches of events.
//! - [`store`]: the database, with an implementation for each.
//! - `feed`: subscriptions, which read the store.
//!
//! Values that they pass on:
//!
//! - [`event`]: events, their names, times and payloads; `json` validates and compares payloads.
//! - [`cursor`] and [`page`]: positions as text, which `token` seals.
//!
//! Around them:
//!
//! - [`config`]: flags and environment variables.
//! - `limits`: the bounds of everything above.
//! - `reload`: files that are reloaded when they change.
//! - `metrics` and `trace`: what operators see.

#![warn(clippy::disallowed_types)]

pub mod app;
pub mod cli;
pub mod config;
pub mod cursor;
pub mod event;
pub mod page;
pub mod proto;
pub mod store;

mod access;
mod admission;
mod api;
mod edge;
mod feed;
mod grpc;
mod http;
mod ingest;
mod json;
mod limits;
mod listener;
mod metrics;
mod peer;
mod reload;
mod tls;
mod token;
mod trace;

/// For integration tests, benchmarks and fuzzing only. Not part of the interface.
#[doc(hidden)]
#[allow(missing_docs)]
pub mod testing {
    pub mod access {
        pub use crate::access::{AccessFile, Account, Caller, CallerKey, Error, Identity, Verb};
    }
    pub mod api {
        pub use crate::api::{Api, ListRequest, Listed, Reason};
    }
    pub mod edge {
        pub use crate::edge::Edge;
    }
    pub mod feed {
        pub use crate::feed::{Error, Frame, Start, Subscription};
    }
    pub mod grpc {
        pub use crate::grpc::{SERVICE_NAME, Services, services};
    }
    pub mod http {
        pub use crate::http::router;
    }
    pub mod ingest {
        pub use crate::ingest::{Settled, Share, WhenFull};
    }
    pub mod limits {
        pub use crate::limits::*;
    }
    pub mod listener {
        pub use crate::listener::Listener;

        pub fn raise_limit() {
            crate::listener::files::raise_limit();
        }
    }
    pub mod metrics {
        pub use crate::metrics::Metrics;
    }
    pub mod token {
        pub use crate::token::{Kind, open, seal};
    }
}
