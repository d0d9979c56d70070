//! Finds the end of an object or array without parsing it: 64 bytes at a time and without a branch
//! per byte, so that no text is slower than another.

const BLOCK: usize = 64;

/// The index after the bracket that closes the object or array whose content continues at `at`.
/// `None` if it is not closed.
pub(super) fn end_of_container(bytes: &[u8], at: usize) -> Option<usize> {
    let mut depth = 1_usize;
    let mut strings = Strings::default();
    let mut start = at;
    for chunk in bytes.get(at..)?.chunks(BLOCK) {
        let mut block = [b' '; BLOCK];
        block[..chunk.len()].copy_from_slice(chunk);
        let within = strings.mask(&block);
        // `[` and `{`, and `]` and `}`, differ only in this bit.
        let opening = mask(&block, 0x20, b'{') & !within;
        let closing = mask(&block, 0x20, b'}') & !within;
        if (closing.count_ones() as usize) < depth {
            depth = depth + opening.count_ones() as usize - closing.count_ones() as usize;
        } else {
            let mut brackets = opening | closing;
            while brackets != 0 {
                let bracket = brackets.trailing_zeros();
                brackets &= brackets - 1;
                let closes = (closing >> bracket & 1) as usize;
                depth = depth + 1 - 2 * closes;
                if depth == 0 {
                    return Some(start + bracket as usize + 1);
                }
            }
        }
        start += BLOCK;
    }
    None
}

/// State of strings between blocks.
#[derive(Default)]
struct Strings {
    /// All bits set if a string continues in the next block.
    open: u64,
    /// 1 if the first byte of the next block is escaped.
    escaped: u64,
}

impl Strings {
    /// One bit for each byte of the next block that is inside a string, including its opening
    /// quote.
    fn mask(&mut self, block: &[u8; BLOCK]) -> u64 {
        let escaped = self.escaped(mask(block, 0, b'\\'));
        // Prefix xor: each bit becomes the parity of the quotes up to it.
        let mut within = mask(block, 0, b'"') & !escaped;
        for shift in [1, 2, 4, 8, 16, 32] {
            within ^= within << shift;
        }
        within ^= self.open;
        self.open = 0_u64.wrapping_sub(within >> 63);
        within
    }

    /// The bytes after an odd number of backslashes. Adding a run of backslashes to its first bit
    /// carries a bit to its end; the position of the start tells whether its length is odd.
    fn escaped(&mut self, backslashes: u64) -> u64 {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        let backslashes = backslashes & !self.escaped;
        let behind = backslashes << 1 | self.escaped;
        let odd_starts = backslashes & !EVEN & !behind;
        let (carried, overflow) = odd_starts.overflowing_add(backslashes);
        self.escaped = u64::from(overflow);
        (EVEN ^ (carried << 1)) & behind
    }
}

/// One bit for each byte of a block that equals `byte` when the bits of `fold` are set in it.
fn mask(block: &[u8; BLOCK], fold: u8, byte: u8) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let (fold, byte) = (LOW * u64::from(fold), LOW * u64::from(byte));
    let (words, _) = block.as_chunks::<8>();
    words.iter().rev().fold(0, |mask, word| {
        let differing = (u64::from_le_bytes(*word) | fold) ^ byte;
        // The highest bit of each byte without any bit set, gathered in one byte.
        let equal = !(((differing & SEVEN) + SEVEN) | differing | SEVEN) >> 7;
        mask << 8 | equal.wrapping_mul(0x0102_0408_1020_4080) >> 56
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reference implementation, byte by byte.
    fn slowly(bytes: &[u8]) -> Option<usize> {
        let (mut depth, mut in_string, mut escaped) = (1, false, false);
        for (at, byte) in bytes.iter().enumerate() {
            let was_escaped = std::mem::take(&mut escaped);
            match byte {
                b'\\' => escaped = !was_escaped,
                b'"' if !was_escaped => in_string = !in_string,
                b'[' | b'{' if !in_string => depth += 1,
                b']' | b'}' if !in_string => depth -= 1,
                _ => (),
            }
            if depth == 0 {
                return Some(at + 1);
            }
        }
        None
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn finds_the_same_end_as_byte_by_byte(text in r#"[\[\]{}" \\a,ü]{0,200}"#, prefix in 0..3_usize) {
            let text = "[".repeat(prefix * 20) + &text + &"\"]".repeat(100);
            prop_assert_eq!(end_of_container(text.as_bytes(), 0), slowly(text.as_bytes()));
        }

        #[test]
        fn finds_the_same_end_among_backslashes(text in r#"[\\\\\\"\]\[]{0,300}"#) {
            prop_assert_eq!(end_of_container(text.as_bytes(), 0), slowly(text.as_bytes()));
        }
    }
}
