//! Which files hold the certificates of a service.

use std::path::PathBuf;

use clap::Args;

/// Files of certificates, all in PEM. They are read again when they change, and on SIGHUP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct TlsArgs {
    /// Certificate of the service, and those up to its authority: TLS is spoken, and nothing else
    #[arg(long, env = "EVENT_AGGREGATOR_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate
    #[arg(long, env = "EVENT_AGGREGATOR_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Authorities for certificates of clients: whoever has none from them is refused. Their DNS names
    /// say who calls; without --access all of them may do everything
    #[arg(long, env = "EVENT_AGGREGATOR_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
}
