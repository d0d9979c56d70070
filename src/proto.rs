//! Code generated from the API definition. Only the gRPC server and the CLI's clients use it.

#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("event_aggregator.v1");
}

/// The gRPC service, and the requests that contain events as the server decodes them: text fields
/// and structs remain undecoded bytes of the message.
#[allow(missing_docs, clippy::all)]
pub mod incoming {
    include!(concat!(env!("OUT_DIR"), "/incoming/event_aggregator.v1.rs"));

    pub use self::fields::{Event as Fields, event::Content};
    pub use super::incoming_event::Event;

    pub mod fields {
        include!(concat!(env!("OUT_DIR"), "/incoming_event/event_aggregator.v1.rs"));
    }
}

mod codec;
mod incoming_event;

pub use codec::ContractCodec;

/// The responses that contain events as the server encodes them: structs are bytes in wire format.
#[allow(missing_docs, clippy::all)]
pub mod outgoing {
    include!(concat!(env!("OUT_DIR"), "/outgoing/event_aggregator.v1.rs"));
}

/// A time as a Protobuf timestamp.
pub fn timestamp(time: crate::event::Timestamp) -> prost_types::Timestamp {
    let micros = time.as_micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: (micros.rem_euclid(1_000_000) * 1_000) as i32,
    }
}

/// The API definition with its comments, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contract.bin"));
