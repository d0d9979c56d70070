//! How long a caller waits, as it says in `grpc-timeout`.

use std::time::Duration;

use tonic::codegen::http::HeaderMap;

/// The most digits that the number may have.
const MAX_DIGITS: usize = 8;

/// The time that a caller gives to its call. None if it gives none, or says so in a way that nobody
/// understands.
pub(super) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.as_bytes();
    let (unit, digits) = text.split_last()?;
    if !(1..=MAX_DIGITS).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 60 * 60)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_at_most_eight_digits_and_a_unit() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("a value"));
            asked(&headers)
        };
        assert_eq!(asked("250m"), Some(Duration::from_millis(250)));
        assert_eq!(asked("0n"), Some(Duration::ZERO));
        assert_eq!(asked("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for text in ["", "S", "1", "1s", "123456789S", "-1S", "+1S", "1.5S", " 1S"] {
            assert_eq!(asked(text), None, "{text}");
        }
    }
}
