//! The event of the `wire` form. Decoding detects a repeated payload: Protobuf would merge the
//! payloads, and the last one alone is not what was sent.

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut},
    encoding::{DecodeContext, WireType, skip_field},
};

use super::wire::EventFields;

/// A received event, or one that is returned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    /// Its fields, with the last payload if there are several.
    pub fields: EventFields,
    /// The field of a repeated payload, if there is one.
    pub repeated_content: Option<&'static str>,
}

impl From<EventFields> for Event {
    fn from(fields: EventFields) -> Self {
        Self { fields, repeated_content: None }
    }
}

impl Message for Event {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        self.fields.encode_raw(buffer);
        if let (Some(_), Some(content)) = (self.repeated_content, &self.fields.content) {
            content.encode(buffer);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let had_content = self.fields.content.is_some();
        match tag {
            5 if had_content => self.repeated_content = Some("payload"),
            6 if had_content => self.repeated_content = Some("payload_json"),
            // `received_at` and `cursor`, which only the server sets.
            7 | 8 => return skip_field(wire_type, tag, buffer, context),
            _ => (),
        }
        self.fields.merge_field(tag, wire_type, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        let again = self.repeated_content.and(self.fields.content.as_ref());
        self.fields.encoded_len() + again.map_or(0, |content| content.encoded_len())
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_payload_is_detected_and_round_trips() {
        for (message, repeated) in [
            (&b"\x0a\x01t"[..], None),
            (b"\x0a\x01t\x0a\x01u\x2a\x02\x0a\x00", None),
            (b"\x2a\x02\x0a\x00\x2a\x02\x0a\x00", Some("payload")),
            (b"\x2a\x00\x0a\x01t\x2a\x00", Some("payload")),
            (b"\x32\x02{}\x32\x02{}", Some("payload_json")),
            (b"\x2a\x00\x32\x02{}", Some("payload_json")),
            (b"\x32\x02{}\x2a\x00\x32\x02{}", Some("payload_json")),
            (b"\x0a\x01t\x3a\x02\xff\xff\x42\x01\xff", None),
        ] {
            let event = Event::decode(message).expect("an event");
            assert_eq!(event.repeated_content, repeated, "{message:?}");
            assert_eq!((&event.fields.received_at, &*event.fields.cursor), (&None, &[][..]));
            let written = event.encode_to_vec();
            assert_eq!(written.len(), event.encoded_len());
            assert_eq!(Event::decode(&*written), Ok(event));
        }
    }
}
