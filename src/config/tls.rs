//! Configuration of TLS.

use std::path::PathBuf;

use clap::Args;

/// Certificate files, all PEM. They are reloaded when they change, and on SIGHUP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct TlsArgs {
    /// Server certificate chain (PEM). Enables TLS and disables plaintext
    #[arg(long, env = "EVENT_AGGREGATOR_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the server certificate (PEM)
    #[arg(long, env = "EVENT_AGGREGATOR_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// CA certificates for client certificates (PEM). Clients without a valid certificate are
    /// rejected; its DNS names identify them in the access file. Without --access they may do
    /// everything
    #[arg(long, env = "EVENT_AGGREGATOR_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
}
