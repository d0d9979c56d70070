//! The timeout of a call, from the header `grpc-timeout`.

use std::time::Duration;

use tonic::codegen::http::HeaderMap;

/// Maximum number of digits, from the gRPC specification.
const MAX_DIGITS: usize = 8;

/// The timeout that the client requests. None if the header is missing or malformed.
pub(super) fn requested(headers: &HeaderMap) -> Option<Duration> {
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
    fn a_timeout_is_at_most_eight_digits_and_a_unit() {
        let requested = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("a value"));
            requested(&headers)
        };
        assert_eq!(requested("250m"), Some(Duration::from_millis(250)));
        assert_eq!(requested("0n"), Some(Duration::ZERO));
        assert_eq!(requested("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for text in ["", "S", "1", "1s", "123456789S", "-1S", "+1S", "1.5S", " 1S"] {
            assert_eq!(requested(text), None, "{text}");
        }
    }
}
