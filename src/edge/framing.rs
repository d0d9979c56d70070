//! gRPC framing: where the length-prefixed messages of a body begin and end.

/// A scanner of a body: each message follows a flag and its length.
#[derive(Debug, Default)]
pub(super) struct Framing {
    prefix: [u8; 5],
    /// Bytes of the prefix that have passed.
    known: usize,
    /// Bytes of the message that have not passed yet.
    left: usize,
    /// Messages that have begun so far.
    begun: u64,
}

impl Framing {
    /// How many messages have begun in `data`.
    pub(super) fn pass(&mut self, mut data: &[u8]) -> u64 {
        let before = self.begun;
        while !data.is_empty() {
            let of_message = self.left.min(data.len());
            self.left -= of_message;
            data = &data[of_message..];
            let of_prefix = (self.prefix.len() - self.known).min(data.len());
            self.prefix[self.known..self.known + of_prefix].copy_from_slice(&data[..of_prefix]);
            self.known += of_prefix;
            data = &data[of_prefix..];
            if self.known == self.prefix.len() {
                let [_, length @ ..] = self.prefix;
                (self.left, self.known) = (u32::from_be_bytes(length) as usize, 0);
                self.begun += 1;
            }
        }
        self.begun - before
    }

    /// Bytes of the message that has begun and not ended yet.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Whether all of the first message has passed.
    pub(super) fn has_passed_one(&self) -> bool {
        self.begun > 1 || (self.begun == 1 && self.left == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::Framing;

    #[test]
    fn messages_are_counted_however_the_data_is_split() {
        let mut body = Vec::new();
        for message in [&b"one"[..], b"", b"three three"] {
            body.push(0);
            body.extend((message.len() as u32).to_be_bytes());
            body.extend(message);
        }
        for size in 1..=body.len() {
            let mut framing = Framing::default();
            let counted: u64 = body.chunks(size).map(|data| framing.pass(data)).sum();
            assert_eq!(counted, 3, "in pieces of {size}");
        }
    }

    #[test]
    fn the_first_message_has_passed_with_its_last_byte() {
        let mut framing = Framing::default();
        for (data, has_passed) in [
            (&[0, 0, 0][..], false),
            (&[0, 2], false),
            (b"a", false),
            (b"b", true),
            (&[0, 0, 0, 0, 9], true),
        ] {
            framing.pass(data);
            assert_eq!(framing.has_passed_one(), has_passed, "{data:?}");
        }
    }
}
