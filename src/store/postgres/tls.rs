//! TLS of database connections. The server's certificate and its name are always verified:
//! otherwise an attacker in the network could intercept the connection.

use std::{error::Error as StdError, io, net::IpAddr, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Removes from a database URL what tokio-postgres does not support: the verifying SSL modes, since
/// all modes verify here, and the file of CA certificates, which is returned.
pub(super) fn split(url: &str) -> (String, Option<String>) {
    // A question mark before the last @ is part of a password.
    let host = url.rfind('@').map_or(0, |at| at + 1);
    let Some(parameters) = url[host..].find('?').map(|at| host + at + 1) else {
        return (url.to_owned(), None);
    };
    let mut trusted = None;
    let mut known = Vec::new();
    for parameter in url[parameters..].split('&') {
        match parameter.split_once('=') {
            Some(("sslmode", "verify-ca" | "verify-full")) => known.push("sslmode=require"),
            Some(("sslmode", "allow")) => known.push("sslmode=prefer"),
            // As in libpq, the system's CA certificates, which are the default here.
            Some(("sslrootcert", "system")) => (),
            // A plus sign is not a space in a database URL.
            Some(("sslrootcert", _)) => {
                trusted = form_urlencoded::parse(parameter.replace('+', "%2B").as_bytes())
                    .next()
                    .map(|(_, file)| file.into_owned());
            }
            _ => known.push(parameter),
        }
    }
    (format!("{}{}", &url[..parameters], known.join("&")), trusted)
}

/// Whether connections use TLS. The usual default, `prefer`, can be downgraded by an attacker. Here
/// it requires TLS, except to a server on this machine.
pub(super) fn mode(config: &Config) -> SslMode {
    let by_socket = |host: &Host| matches!(host, Host::Unix(_));
    let by_loopback = |host: &Host| match host {
        Host::Tcp(name) if name == "localhost" => true,
        Host::Tcp(name) => name.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
        Host::Unix(_) => true,
    };
    let hosts = config.get_hosts();
    let here = hosts.iter().all(by_loopback)
        && config.get_hostaddrs().iter().all(|address| address.is_loopback());
    match config.get_ssl_mode() {
        // Unix sockets are local, and PostgreSQL has no TLS on them. A host address overrides a
        // socket.
        _ if hosts.iter().all(by_socket) && config.get_hostaddrs().is_empty() => SslMode::Disable,
        SslMode::Prefer if here => SslMode::Disable,
        SslMode::Prefer => SslMode::Require,
        given => given,
    }
}

/// The TLS connector. Trusts the CA certificates in a file, or else those of the system. The error
/// describes the problem with the file.
pub(super) fn connector(mode: SslMode, trusted: Option<&str>) -> Result<MakeRustlsConnect, String> {
    let mut roots = RootCertStore::empty();
    match trusted {
        Some(file) => read(Path::new(file), &mut roots)
            .map_err(|reason| format!("cannot read CA certificates from {file}: {reason}"))?,
        None if mode == SslMode::Disable => (),
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Required if TLS starts without negotiation (sslnegotiation=direct).
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

fn read(file: &Path, roots: &mut RootCertStore) -> Result<(), String> {
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    match roots.is_empty() {
        true => Err("no certificates found; expected a PEM file".to_owned()),
        false => Ok(()),
    }
}

/// Why TLS failed for good, with the cure, if it did.
pub(super) fn refusal(error: &tokio_postgres::Error) -> Option<String> {
    let cause = error.source()?;
    if cause.to_string() == "server does not support TLS" {
        return Some(
            "the server does not support TLS, which is required except on this machine; enable TLS \
             on the server, or add ?sslmode=disable to the URL on a trusted network"
                .to_owned(),
        );
    }
    let refused = cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(reason) = refused else { return None };
    Some(match reason {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "the server certificate does not match the host name: {reason}; connect by a name \
                 in the certificate"
            )
        }
        // BadSignature if the CA was recreated under its old name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server certificate is not signed by a trusted CA; pass the CA certificate with \
             ?sslrootcert=FILE in the URL"
                .to_owned()
        }
        _ => format!("the server certificate is invalid: {reason}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_url_parameters_are_removed() {
        let split = |url: &str| {
            let (url, trusted) = split(url);
            (url, trusted.unwrap_or_default())
        };
        let none = String::new;
        let plain = "postgres://u:p?w@h/d";
        assert_eq!(split(plain), (plain.to_owned(), none()));
        assert_eq!(
            split("postgres://u@h/d?sslmode=verify-full&sslrootcert=%2Fa%20b+c&application_name=x"),
            ("postgres://u@h/d?sslmode=require&application_name=x".to_owned(), "/a b+c".to_owned())
        );
        assert_eq!(
            split("postgres://h/d?sslrootcert=system&sslmode=disable"),
            ("postgres://h/d?sslmode=disable".to_owned(), none())
        );
    }

    #[test]
    fn only_local_servers_may_skip_tls() {
        let mode = |url: &str| mode(&url.parse().expect("a URL"));
        for url in [
            "postgres://u@localhost/d",
            "postgres://u@127.0.0.1,[::1]/d?sslmode=prefer",
            "postgres://u@%2Frun%2Fpostgresql/d?sslmode=require",
            "postgres://u@db.example/d?sslmode=disable",
        ] {
            assert_eq!(mode(url), SslMode::Disable, "{url}");
        }
        for url in [
            "postgres://u@db.example/d",
            "postgres://u@localhost,db.example/d",
            "postgres://u@10.0.0.1/d?sslmode=prefer",
            "postgres://u@localhost/d?sslmode=require",
            "postgres://u@localhost/d?hostaddr=10.0.0.1",
            "postgres://u@db.example/d?hostaddr=127.0.0.1",
            "postgres://u@%2Frun%2Fpostgresql/d?hostaddr=10.0.0.1&sslmode=require",
            "postgres://u@%2Frun%2Fpostgresql/d?hostaddr=10.0.0.1",
        ] {
            assert_eq!(mode(url), SslMode::Require, "{url}");
        }
    }
}
