//! `token`: generates an access token and its access-file entry.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::{Output, print_json};
use crate::{access, event::Name};

#[derive(Debug, Args)]
#[command(after_help = "\
The token is shown only once and not stored. The access file holds only its SHA-256 digest.

  event-aggregator token shop
  (umask 077; event-aggregator token shop -o json > shop.json)
  jq -r .entry shop.json >> access.toml
  (umask 077; jq -r .token shop.json > shop.token); rm shop.json")]
pub(super) struct Token {
    /// Name of the identity in the access file
    #[arg(value_parser = name)]
    name: Name,

    /// Output format [default: table on a terminal, else ndjson]
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

fn name(text: &str) -> Result<Name, String> {
    Name::new("name", text.to_owned()).map_err(|fault| fault.to_string())
}

impl Token {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let token = access::Token::random().context("the system random number generator failed")?;
        let entry = entry(&self.name, &token);
        let all = || json!({ "name": &*self.name, "token": token.reveal(), "entry": entry });
        match Output::or_suitable(self.output) {
            // TOML strings have the escapes of JSON.
            Output::Table => print_json(format_args!(
                "Token (shown only once):\n\n  {}\n\nEntry for the access file; adjust the \
                 grants:\n\n{entry}",
                token.reveal()
            ))?,
            Output::Json => print_json(format_args!("{:#}", all()))?,
            Output::Ndjson => print_json(all())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// An entry with an example grant to adjust: one without grants would be useless.
fn entry(name: &str, token: &access::Token) -> String {
    // A JSON string is a valid TOML string.
    let (name, digest) = (json!(name), token.digest());
    format!(
        "[[identity]]\nname = {name}\ntoken_sha256 = [\"{digest}\"]\ngrants = [{{ verbs = \
         [\"publish\", \"read\"], topics = [\"{EXAMPLE}\"] }}]\n"
    )
}

/// Topic of the example grant.
const EXAMPLE: &str = "orders.*";
