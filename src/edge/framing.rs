//! Scanner for gRPC framing: finds where the length-prefixed messages of a body begin and end.

/// The state of a scan. Each message has a prefix: a flag and its length.
#[derive(Debug, Default)]
pub(super) struct Framing {
    prefix: [u8; 5],
    /// Bytes of the prefix that were scanned.
    prefix_bytes: usize,
    /// Bytes of the message that were not scanned yet.
    left: usize,
    /// Number of messages that have begun.
    begun: u64,
}

impl Framing {
    /// Scans data. Returns the number of messages that begin in it.
    pub(super) fn scan(&mut self, mut data: &[u8]) -> u64 {
        let before = self.begun;
        while !data.is_empty() {
            let of_message = self.left.min(data.len());
            self.left -= of_message;
            data = &data[of_message..];
            let of_prefix = (self.prefix.len() - self.prefix_bytes).min(data.len());
            self.prefix[self.prefix_bytes..self.prefix_bytes + of_prefix]
                .copy_from_slice(&data[..of_prefix]);
            self.prefix_bytes += of_prefix;
            data = &data[of_prefix..];
            if self.prefix_bytes == self.prefix.len() {
                let [_, length @ ..] = self.prefix;
                (self.left, self.prefix_bytes) = (u32::from_be_bytes(length) as usize, 0);
                self.begun += 1;
            }
        }
        self.begun - before
    }

    /// Remaining bytes of the current message.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Whether the first message is complete.
    pub(super) fn is_first_complete(&self) -> bool {
        self.begun > 1 || (self.begun == 1 && self.left == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::Framing;

    #[test]
    fn messages_are_counted_in_chunks_of_any_size() {
        let mut body = Vec::new();
        for message in [&b"one"[..], b"", b"three three"] {
            body.push(0);
            body.extend((message.len() as u32).to_be_bytes());
            body.extend(message);
        }
        for size in 1..=body.len() {
            let mut framing = Framing::default();
            let counted: u64 = body.chunks(size).map(|data| framing.scan(data)).sum();
            assert_eq!(counted, 3, "in chunks of {size}");
        }
    }

    #[test]
    fn first_message_is_complete_with_its_last_byte() {
        let mut framing = Framing::default();
        for (data, is_complete) in [
            (&[0, 0, 0][..], false),
            (&[0, 2], false),
            (b"a", false),
            (b"b", true),
            (&[0, 0, 0, 0, 9], true),
        ] {
            framing.scan(data);
            assert_eq!(framing.is_first_complete(), is_complete, "{data:?}");
        }
    }
}
