//! Exact decimal numbers.

/// A JSON number as `0.digits × 10^exponent`, without leading and trailing zeros, so that equal
/// numbers have equal parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decimal<'a> {
    negative: bool,
    /// The digits as written, possibly with a decimal point among them.
    digits: &'a [u8],
    /// Index of the decimal point in [`Self::digits`].
    point: Option<usize>,
    exponent: i64,
}

impl<'a> Decimal<'a> {
    pub(super) fn of(number: &'a [u8]) -> Self {
        let negative = number.first() == Some(&b'-');
        let number = &number[usize::from(negative)..];
        let e = number.iter().position(|byte| matches!(byte, b'e' | b'E'));
        let (mantissa, written) = match e {
            Some(e) => (&number[..e], exponent(&number[e + 1..])),
            None => (number, 0),
        };
        let whole = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
        let is_digit = |byte: &u8| !matches!(byte, b'0' | b'.');
        let Some(first) = mantissa.iter().position(is_digit) else {
            return Self { negative: false, digits: &[], point: None, exponent: 0 };
        };
        let last = mantissa.iter().rposition(is_digit).unwrap_or(first);
        // The number of remaining digits before the point, or minus the number of zeros dropped
        // after it.
        let shift = match whole.checked_sub(first) {
            Some(before) => before as i64,
            None => whole as i64 + 1 - first as i64,
        };
        Self {
            negative,
            digits: &mantissa[first..=last],
            point: (first..last).contains(&whole).then(|| whole - first),
            exponent: written.saturating_add(shift),
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    fn parts(&self) -> (&'a [u8], &'a [u8]) {
        match self.point {
            Some(point) => (&self.digits[..point], &self.digits[point + 1..]),
            None => (self.digits, &[]),
        }
    }
}

impl PartialEq for Decimal<'_> {
    fn eq(&self, other: &Self) -> bool {
        let ((a, b), (c, d)) = (self.parts(), other.parts());
        (self.negative, self.exponent) == (other.negative, other.exponent)
            && a.len() + b.len() == c.len() + d.len()
            && a.iter().chain(b).eq(c.iter().chain(d))
    }
}

/// The exponent, which fits in an i64 because payloads were validated.
fn exponent(written: &[u8]) -> i64 {
    let text = std::str::from_utf8(written).unwrap_or_default();
    text.parse().unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_are_equal_in_any_notation() {
        let same = [
            &["0", "-0", "0.000", "0e5", "-0.0E-7"][..],
            &["1", "1.0", "10e-1", "0.1e1", "0.001E+3", "1000e-3"],
            &["-120.50", "-1.205e2", "-12050e-2", "-0.0012050e5"],
            &["1001", "1.001e3", "100.1e1", "0.01001e5"],
            &["100", "1e2", "100.00"],
            &["0.05", "5e-2", "0.50e-1"],
        ];
        for (group, numbers) in same.iter().enumerate() {
            for (other, others) in same.iter().enumerate() {
                for (a, b) in numbers.iter().flat_map(|a| others.iter().map(move |b| (a, b))) {
                    let same = Decimal::of(a.as_bytes()) == Decimal::of(b.as_bytes());
                    assert_eq!(same, group == other, "{a} {b}");
                }
            }
        }
    }
}
