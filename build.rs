//! Compiles the API definition in pure Rust, so that the build does not need `protoc`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use miette::{Context, IntoDiagnostic, Result};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type,
};
use tonic_prost_build::Builder;

const CONTRACT: &str = "event_aggregator/v1/event_aggregator.proto";
const PACKAGE: &str = "event_aggregator.v1";

/// Messages with one received event. The server wraps its decoding.
const INCOMING_EVENT: &[&str] = &["Event"];

/// Requests that contain events, which the server decodes in a form of its own.
const INCOMING: &[&str] = &["PublishRequest", "PublishStreamRequest"];

/// Responses that contain events, which the server encodes in a form of its own.
const OUTGOING: &[&str] =
    &["Event", "EventBatch", "ListEventsResponse", "BatchGetEventsResponse", "SubscribeResponse"];

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR").into_diagnostic()?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_file(CONTRACT)?;

    // Served by reflection. It has the comments, which grpcurl shows.
    fs::write(out.join("contract.bin"), compiler.encode_file_descriptor_set())
        .into_diagnostic()
        .wrap_err("cannot write the descriptor set")?;

    let contract = compiler.file_descriptor_set();
    builder().build_server(false).compile_fds(contract.clone()).into_diagnostic()?;

    let outgoing = in_folder(&out, "outgoing")?.build_server(false).bytes(".");
    form(contract.clone(), outgoing, OUTGOING, &[("outgoing", OUTGOING)], structure_as_bytes)?;
    let event = in_folder(&out, "incoming_event")?.build_server(false).bytes(".");
    form(contract.clone(), event, INCOMING_EVENT, &[], texts_as_bytes)?;
    let incoming =
        in_folder(&out, "incoming")?.bytes(".").codec_path("crate::proto::ContractCodec");
    let forms = [("incoming", INCOMING_EVENT), ("outgoing", OUTGOING)];
    form(contract, incoming, INCOMING, &forms, texts_as_bytes)
}

fn builder() -> Builder {
    tonic_prost_build::configure().extern_path(".google.rpc", "::tonic_types::pb")
}

fn in_folder(out: &Path, name: &str) -> Result<Builder> {
    let folder = out.join(name);
    fs::create_dir_all(&folder).into_diagnostic()?;
    Ok(builder().build_client(false).out_dir(folder))
}

/// Compiles the API definition again with another form of `Event` and of the messages that contain
/// it; the wire format is the same. All other messages refer to types that were generated before.
fn form(
    mut contract: FileDescriptorSet,
    mut builder: Builder,
    compiled: &[&str],
    forms: &[(&str, &[&str])],
    change: fn(&mut DescriptorProto),
) -> Result<()> {
    for file in contract.file.iter_mut().filter(|file| file.package() == PACKAGE) {
        file.message_type.iter_mut().filter(|message| message.name() == "Event").for_each(change);
        let messages = file.message_type.iter().map(DescriptorProto::name);
        let others = messages.chain(file.enum_type.iter().map(|values| values.name()));
        for name in others.filter(|name| !compiled.contains(name)) {
            let form = forms.iter().find(|(_, names)| names.contains(&name));
            let module = form.map_or("v1", |(module, _)| module);
            let (path, known) =
                (format!(".{PACKAGE}.{name}"), format!("crate::proto::{module}::{name}"));
            builder = builder.extern_path(path, known);
        }
    }
    builder.compile_fds(contract).into_diagnostic()
}

/// Received events: text fields and the struct remain bytes that share the message instead of
/// copies.
fn texts_as_bytes(event: &mut DescriptorProto) {
    event.field.retain(|field| !["received_at", "cursor"].contains(&field.name()));
    event.field.iter_mut().filter(|field| field.r#type() == Type::String).for_each(as_bytes);
    structure_as_bytes(event);
}

/// Returned events: the struct is written as bytes, without a tree.
fn structure_as_bytes(event: &mut DescriptorProto) {
    event.field.iter_mut().filter(|field| field.name() == "payload").for_each(as_bytes);
}

fn as_bytes(field: &mut FieldDescriptorProto) {
    field.set_type(Type::Bytes);
    field.type_name = None;
}
