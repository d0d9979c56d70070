//! Compiles the API definition in pure Rust, so that the build does not need `protoc`.

use std::{env, fs, path::PathBuf};

use miette::{Context, IntoDiagnostic, Result};
use prost_types::{DescriptorProto, FieldDescriptorProto, field_descriptor_proto::Type};
use tonic_prost_build::Builder;

const CONTRACT: &str = "event_aggregator/v1/event_aggregator.proto";
const PACKAGE: &str = "event_aggregator.v1";

/// The messages that contain events.
const WITH_EVENTS: &[&str] = &[
    "PublishRequest",
    "PublishStreamRequest",
    "ListEventsResponse",
    "BatchGetEventsResponse",
    "SubscribeResponse",
    "EventBatch",
];

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR").into_diagnostic()?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_file(CONTRACT)?;
    // Served by reflection. It has the comments, which grpcurl shows.
    fs::write(out.join("contract.bin"), compiler.encode_file_descriptor_set())
        .into_diagnostic()
        .wrap_err("cannot write the descriptor set")?;
    let mut contract = compiler.file_descriptor_set();

    // `proto::v1`, for clients: all messages as they are defined.
    builder().build_server(false).compile_fds(contract.clone()).into_diagnostic()?;

    // `proto::wire`, for the server: the messages with events, whose fields are bytes. All other
    // messages are those of `v1`. `proto::wire::Event` wraps the generated `EventFields`.
    let wire = out.join("wire");
    fs::create_dir_all(&wire).into_diagnostic()?;
    let mut wire = builder().build_client(false).out_dir(wire).bytes(".");
    wire = wire.codec_path("crate::proto::ContractCodec");
    for file in contract.file.iter_mut().filter(|file| file.package() == PACKAGE) {
        let messages = file.message_type.iter().map(|message| message.name());
        let names = messages.chain(file.enum_type.iter().map(|values| values.name()));
        for name in names.filter(|name| !WITH_EVENTS.contains(name)) {
            let module = if name == "Event" { "wire" } else { "v1" };
            let path = format!("crate::proto::{module}::{name}");
            wire = wire.extern_path(format!(".{PACKAGE}.{name}"), path);
        }
        let event = file.message_type.iter().find(|message| message.name() == "Event");
        file.message_type.extend(event.cloned().map(event_fields));
        // Its comments belong to messages by their index.
        file.source_code_info = None;
    }
    wire.compile_fds(contract).into_diagnostic()
}

fn builder() -> Builder {
    tonic_prost_build::configure().extern_path(".google.rpc", "::tonic_types::pb")
}

/// `Event` with bytes for texts and for the struct. On the wire they are the same.
fn event_fields(mut event: DescriptorProto) -> DescriptorProto {
    event.name = Some("EventFields".to_owned());
    let is_text = |field: &&mut FieldDescriptorProto| {
        field.r#type() == Type::String || field.name() == "payload"
    };
    for field in event.field.iter_mut().filter(is_text) {
        field.set_type(Type::Bytes);
        field.type_name = None;
    }
    event
}
