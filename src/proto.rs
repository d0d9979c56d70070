//! The code generated from the contract. Inside the program only the gRPC edge and the clients of
//! the command line see it.

#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("event_aggregator.v1");
}

/// The service of the contract, and the messages that bring events in, as it reads them: an event's
/// texts and its structure are the bytes that they came in, not looked at yet.
#[allow(missing_docs, clippy::all)]
pub mod incoming {
    include!(concat!(env!("OUT_DIR"), "/incoming/event_aggregator.v1.rs"));

    pub use self::fields::{Event as Fields, event::Content};
    pub use super::incoming_event::Event;

    pub mod fields {
        include!(concat!(env!("OUT_DIR"), "/incoming_event/event_aggregator.v1.rs"));
    }
}

mod incoming_event;

/// The messages that give events back, as the service writes them: the structure of an event is the bytes
/// that it has on the wire.
#[allow(missing_docs, clippy::all)]
pub mod outgoing {
    include!(concat!(env!("OUT_DIR"), "/outgoing/event_aggregator.v1.rs"));
}

/// A time for the wire.
pub fn timestamp(time: crate::event::Timestamp) -> prost_types::Timestamp {
    let micros = time.as_micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: (micros.rem_euclid(1_000_000) * 1_000) as i32,
    }
}

/// The contract with its comments, as reflection serves it.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contract.bin"));
