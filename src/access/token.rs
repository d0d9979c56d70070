//! Access tokens, which are secret, and their digests, which are in the access file.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// Prefix of all tokens, by which secret scanners recognize them.
const PREFIX: &str = "ea_";

/// Random bytes of a generated token (256 bits).
const TOKEN_BYTES: usize = 32;

/// A token. `Debug` does not print it.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// Generates a token. Fails if the system random number generator does.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The secret text.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// The SHA-256 digest in hexadecimal, for the access file.
    pub(crate) fn digest(&self) -> String {
        Digest::of(self.0.as_bytes()).0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// The SHA-256 digest of a token. Tokens are random, so a slow hash is not needed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// The digest of the bearer token in an `authorization` header.
    pub(super) fn of_bearer(header: &[u8]) -> Option<Self> {
        let (scheme, token) = header.split_at_checked("Bearer ".len())?;
        let token = token.trim_ascii();
        let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty();
        is_bearer.then(|| Self::of(token))
    }

    /// Parses 64 hexadecimal digits.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let (digits, []) = text.as_bytes().as_chunks::<2>() else { return None };
        let digits: &[_; 32] = digits.try_into().ok()?;
        let mut digest = [0; 32];
        for (byte, [high, low]) in digest.iter_mut().zip(digits) {
            let value = |digit: &u8| char::from(*digit).to_digit(16);
            *byte = u8::try_from(value(high)? << 4 | value(low)?).ok()?;
        }
        Some(Self(digest))
    }
}

impl ConstantTimeEq for Digest {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_matches_its_digest() {
        let (token, other) = (Token::random().expect("random"), Token::random().expect("random"));
        let digest = Digest::from_hex(&token.digest());
        let header = |scheme: &str, token: &Token| format!("{scheme}{}", token.reveal());
        for scheme in ["Bearer ", "bearer ", "BEARER   "] {
            assert_eq!(Digest::of_bearer(header(scheme, &token).as_bytes()), digest);
        }
        assert_ne!(Digest::of_bearer(header("Bearer ", &other).as_bytes()), digest);
        for wrong in ["", "Bearer", "Bearer ", "Basic ", "Bearer\t"] {
            assert_eq!(Digest::of_bearer(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Digest::of_bearer(header("Basic ", &token).as_bytes()), None);
    }

    #[test]
    fn digests_are_64_hexadecimal_digits() {
        let text = "0123456789abcdefABCDEF".repeat(3);
        assert!(Digest::from_hex(&text[..64]).is_some());
        for wrong in [&text[..63], &text[..66], "", &"g".repeat(64), &"ü".repeat(32)] {
            assert_eq!(Digest::from_hex(wrong), None, "{wrong}");
        }
    }
}
