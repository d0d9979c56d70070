//! Certificates for connections to a service.

use std::{fs, path::PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// Certificate files, all PEM.
#[derive(Debug, Default, Args)]
pub(super) struct Trust {
    /// CA certificate to trust instead of the system's CA certificates
    #[arg(long, env = "EVENT_AGGREGATOR_CA", value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Client certificate for services that require one
    #[arg(long, env = "EVENT_AGGREGATOR_CLIENT_CERT", value_name = "FILE")]
    client_cert: Option<PathBuf>,

    /// Private key of the client certificate
    #[arg(long, env = "EVENT_AGGREGATOR_CLIENT_KEY", value_name = "FILE")]
    client_key: Option<PathBuf>,
}

impl Trust {
    /// Whether any certificate is given, which implies TLS.
    pub(super) fn is_named(&self) -> bool {
        self.ca.is_some() || self.client_cert.is_some() || self.client_key.is_some()
    }

    /// The TLS configuration.
    pub(super) fn config(&self) -> anyhow::Result<ClientTlsConfig> {
        let read = |flag: &str, path: &PathBuf| {
            fs::read(path)
                .with_context(|| format!("cannot read {}; {flag} takes a PEM file", path.display()))
        };
        let config = match &self.ca {
            Some(path) => {
                let authority = Certificate::from_pem(read("--ca", path)?);
                ClientTlsConfig::new().ca_certificate(authority)
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        match (&self.client_cert, &self.client_key) {
            (Some(certificate), Some(key)) => {
                let certificate = read("--client-cert", certificate)?;
                Ok(config.identity(Identity::from_pem(certificate, read("--client-key", key)?)))
            }
            (None, None) => Ok(config),
            _ => bail!("--client-cert and --client-key must be used together"),
        }
    }
}
