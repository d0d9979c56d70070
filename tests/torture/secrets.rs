//! Words that nobody may find in a log or in an error: put where a careless program would copy
//! them from.

/// The password in the database's URL.
pub const PASSWORD: &str = "canary-password-5f0c";

/// A part of every payload.
pub const PAYLOAD: &str = "canary-payload-91d7";

/// Whether a text contains one of the secrets.
pub fn are_in(text: &str) -> bool {
    text.contains(PASSWORD) || text.contains(PAYLOAD)
}
