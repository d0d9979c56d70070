//! What must never be told: tokens, passwords, payloads.
