//! The codec of the server: that of prost, with typed errors for messages that cannot be decoded or
//! would take far more memory than their bytes.

use std::marker::PhantomData;

use prost::{
    DecodeError, Message,
    bytes::{Buf, Bytes},
    encoding::{DecodeContext, decode_key, skip_field},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{
    api::Error,
    event::Violation,
    limits::{MAX_MESSAGE_ITEMS, SHARED_MESSAGE_BYTES},
};

/// The codec of the calls of the contract.
#[derive(Debug)]
pub struct ContractCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ContractCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for ContractCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ContractEncoder<T>;
    type Decoder = ContractDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ContractEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ContractDecoder(PhantomData)
    }
}

/// Encodes messages.
#[derive(Debug)]
pub struct ContractEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for ContractEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // At once: growing step by step would copy a large message several times.
        buffer.reserve(message.encoded_len());
        message.encode(buffer).map_err(|_| Error::internal().into())
    }
}

/// Decodes messages.
#[derive(Debug)]
pub struct ContractDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for ContractDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let unreadable = |error: DecodeError| {
            let fault = format!("cannot be decoded: {error}");
            Status::from(Error::invalid(vec![Violation::new("message", fault)]))
        };
        // An empty event takes two bytes on the wire and some two hundred in memory.
        let items = items(message.chunk()).map_err(unreadable)?;
        if items > MAX_MESSAGE_ITEMS {
            let fault = format!("has {items} items; the limit is {MAX_MESSAGE_ITEMS}");
            return Err(Error::too_large(Violation::new("message", fault)).into());
        }
        let length = message.remaining();
        let bytes = match length < SHARED_MESSAGE_BYTES {
            true => {
                let copy = Bytes::copy_from_slice(message.chunk());
                message.advance(length);
                copy
            }
            false => message.copy_to_bytes(length),
        };
        let mut decoded = U::decode(bytes).map_err(unreadable)?;
        // What is left of a message with much that is not understood must not keep all of it.
        if decoded.encoded_len() < length / 2 {
            decoded = U::decode(Bytes::from(decoded.encode_to_vec())).map_err(unreadable)?;
        }
        Ok(Some(decoded))
    }
}

/// How many fields a message has at its top level, each item of a repeated one counted.
fn items(mut message: &[u8]) -> Result<usize, DecodeError> {
    let mut items = 0;
    while message.has_remaining() {
        let (tag, wire_type) = decode_key(&mut message)?;
        skip_field(wire_type, tag, &mut message, DecodeContext::default())?;
        items += 1;
    }
    Ok(items)
}
