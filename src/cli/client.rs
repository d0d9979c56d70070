//! Connections to a service, and its errors as messages for people.

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use tonic::{
    Code, Status,
    service::interceptor::InterceptedService,
    transport::{self, Endpoint},
};
use tonic_types::StatusExt;

use self::trust::Trust;
use super::{
    bearer::{Bearer, BearerArgs},
    terminal::one_line,
};
use crate::{
    access::exposure::is_loopback, limits::MAX_MESSAGE_BYTES,
    proto::v1::event_aggregator_service_client::EventAggregatorServiceClient,
};

mod trust;

/// Options for the connection to a service.
#[derive(Debug, Args)]
pub(super) struct Server {
    /// Address of the service: host:port, http://host:port, or https://host for TLS
    #[arg(
        long,
        env = "EVENT_AGGREGATOR_ADDR",
        default_value = "127.0.0.1:50051",
        value_name = "ADDRESS"
    )]
    addr: String,

    #[command(flatten)]
    trust: Trust,

    #[command(flatten)]
    bearer: BearerArgs,

    /// Allow sending the token to another machine without TLS
    #[arg(long)]
    insecure: bool,
}

pub(super) type Client = EventAggregatorServiceClient<Channel>;

/// A connection that adds the access token to each request.
pub(super) type Channel = InterceptedService<transport::Channel, Bearer>;

impl Server {
    /// The service at an address, with default options.
    pub(super) fn at(address: SocketAddr) -> Self {
        let (trust, bearer) = (Trust::default(), BearerArgs::default());
        Self { addr: address.to_string(), trust, bearer, insecure: false }
    }

    /// Connects to the service.
    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        Ok(self.client(self.channel().await?))
    }

    /// Opens a connection, whatever service listens there.
    pub(super) async fn channel(&self) -> anyhow::Result<Channel> {
        let bearer = self.bearer.read()?;
        let endpoint = self.endpoint()?;
        if bearer.is_shown() && !self.insecure && is_readable(&endpoint) {
            bail!(
                "refusing to send a token over plaintext to {}; use https://, or pass --insecure \
                 on a trusted network",
                self.addr
            );
        }
        let endpoint = endpoint.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(|error| {
            anyhow!(
                "cannot connect to {}: {}; start a service with `event-aggregator serve`, or \
                 choose another address with --addr",
                self.addr,
                root_cause(&error)
            )
        })?;
        Ok(InterceptedService::new(channel, bearer))
    }

    /// Parses the address. The default scheme is plaintext, or TLS if certificates are given.
    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let default = if self.trust.is_named() { "https" } else { "http" };
        let (scheme, address) = self.addr.split_once("://").unwrap_or((default, &self.addr));
        let address = address.strip_suffix('/').unwrap_or(address);
        let has_port =
            address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let is_address = !address.contains('/') && (scheme == "https" || has_port);
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).ok();
        match (scheme, endpoint.filter(|_| is_address)) {
            ("http", Some(endpoint)) => Ok(endpoint),
            ("https", Some(endpoint)) => {
                endpoint.tls_config(self.trust.config()?).context("cannot load the certificates")
            }
            _ => bail!("invalid address {}: expected host:port or https://host:port", self.addr),
        }
    }

    pub(super) fn client(&self, channel: Channel) -> Client {
        Client::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// Whether requests to the endpoint leave this machine in plaintext.
fn is_readable(endpoint: &Endpoint) -> bool {
    let host = endpoint.uri().host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_here = host.eq_ignore_ascii_case("localhost") || address.is_ok_and(is_loopback);
    endpoint.uri().scheme_str() != Some("https") && !is_here
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// An error status from a service, formatted for people.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe(.0))]
pub(super) struct Refused(pub(super) Status);

fn describe(status: &Status) -> String {
    if std::error::Error::source(status).is_some() {
        return "connection lost, or no gRPC service at this address".to_owned();
    }
    let mut text = one_line(status.message()).into_owned();
    if text.is_empty() {
        text = status.code().description().to_owned();
    }
    if status.code() == Code::Unauthenticated {
        text.push_str("; use --token-file or EVENT_AGGREGATOR_TOKEN");
    }
    // The message repeats the first violation.
    let violations = status.get_details_bad_request().map(|details| details.field_violations);
    for violation in violations.iter().flatten().skip(1) {
        let (field, description) = (one_line(&violation.field), one_line(&violation.description));
        text.push_str(&format!("\n  {field} {description}"));
    }
    text
}

/// Whether a retry may succeed.
pub(super) fn may_recover(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::ResourceExhausted | Code::Unknown)
}

/// Exit code of an error: 64 plus the gRPC code of an error status, as in grpcurl, or else 1.
pub(super) fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Refused>() {
        Some(Refused(status)) => ExitCode::from(64 + status.code() as u8),
        None => ExitCode::FAILURE,
    }
}
