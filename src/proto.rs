//! The code generated from the contract. Inside the program only the gRPC edge and the clients of
//! the command line see it.

#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("event_aggregator.v1");
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
