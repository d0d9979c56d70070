//! The access token that commands send. It is never printed.

use std::{fs, path::PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use crate::access::Token;

/// Options for the access token.
#[derive(Debug, Default, Args)]
pub(super) struct BearerArgs {
    /// Access token. Visible to other local users in the process list; prefer --token-file
    #[arg(
        long,
        env = "EVENT_AGGREGATOR_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        // Accepts anything: a parser error would print the token.
        value_parser = |text: &str| Ok::<_, String>(Token::from(text.to_owned()))
    )]
    token: Option<Token>,

    /// File that holds the access token; takes precedence over --token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl BearerArgs {
    /// Reads the token into a request header.
    pub(super) fn read(&self) -> anyhow::Result<Bearer> {
        let token = match (&self.token_file, &self.token) {
            (Some(path), _) => {
                let read = fs::read_to_string(path);
                read.with_context(|| format!("cannot read token file {}", path.display()))?
            }
            (None, Some(token)) => token.reveal().to_owned(),
            (None, None) => return Ok(Bearer(None)),
        };
        let token = token.trim();
        // An empty environment variable counts as unset.
        if token.is_empty() && self.token_file.is_none() {
            return Ok(Bearer(None));
        }
        let header = MetadataValue::try_from(format!("Bearer {token}")).ok();
        let mut header = header
            .filter(|_| !token.is_empty() && !token.contains(char::is_whitespace))
            .ok_or_else(|| {
                anyhow!(
                    "invalid token: expected a single word, as printed by `event-aggregator token`"
                )
            })?;
        header.set_sensitive(true);
        Ok(Bearer(Some(header)))
    }
}

/// Adds the token, if any, to each request.
#[derive(Debug, Clone)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// Whether a token is set.
    pub(super) fn is_shown(&self) -> bool {
        self.0.is_some()
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}
