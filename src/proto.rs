//! Code generated from the API definition. Only the gRPC server and the CLI's clients use it.

#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("event_aggregator.v1");
}

/// The gRPC service, and the messages that contain events as the server decodes and encodes them:
/// the texts and the struct of an event are bytes, which share the message or the stored text.
#[allow(missing_docs, clippy::all)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/wire/event_aggregator.v1.rs"));

    pub use self::event_fields::Content;
    pub use super::event::Event;
}

mod codec;
mod event;

pub use codec::ContractCodec;

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
