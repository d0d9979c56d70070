//! Compiles the contract in pure Rust, so that building needs no `protoc`.

use std::{env, fs, path::PathBuf};

use miette::{Context, IntoDiagnostic, Result};
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};
use tonic_prost_build::Builder;

const CONTRACT: &str = "event_aggregator/v1/event_aggregator.proto";
const PACKAGE: &str = "event_aggregator.v1";

/// The messages that bring events in, which the service reads in a form of its own.
const INCOMING: [&str; 3] = ["Event", "PublishRequest", "PublishStreamRequest"];

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR").into_diagnostic()?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_file(CONTRACT)?;

    // Reflection serves this set: it has the comments, which is why a person sees them in grpcurl.
    fs::write(out.join("contract.bin"), compiler.encode_file_descriptor_set())
        .into_diagnostic()
        .wrap_err("cannot write the descriptor set")?;

    let contract = compiler.file_descriptor_set();
    builder().build_server(false).compile_fds(contract.clone()).into_diagnostic()?;

    let folder = out.join("incoming");
    fs::create_dir_all(&folder).into_diagnostic()?;
    let builder = builder().build_client(false).out_dir(folder).bytes(".");
    let (contract, builder) = incoming(contract, builder);
    builder.compile_fds(contract).into_diagnostic()
}

fn builder() -> Builder {
    tonic_prost_build::configure()
        .codec_path("crate::grpc::ContractCodec")
        .extern_path(".google.rpc", "::tonic_types::pb")
}

/// The contract for the side that takes events in: the same on the wire, but an event's texts and
/// its structure are left as the bytes that they came in, shared with the message instead of copied.
/// All other messages are those of the first compilation.
fn incoming(mut contract: FileDescriptorSet, mut builder: Builder) -> (FileDescriptorSet, Builder) {
    for file in contract.file.iter_mut().filter(|file| file.package() == PACKAGE) {
        file.message_type.iter_mut().filter(|message| message.name() == "Event").for_each(as_bytes);
        let messages = file.message_type.iter().map(DescriptorProto::name);
        let others = messages.chain(file.enum_type.iter().map(|values| values.name()));
        for name in others.filter(|name| !INCOMING.contains(name)) {
            let (path, known) = (format!(".{PACKAGE}.{name}"), format!("crate::proto::v1::{name}"));
            builder = builder.extern_path(path, known);
        }
    }
    (contract, builder)
}

fn as_bytes(event: &mut DescriptorProto) {
    event.field.retain(|field| !["received_at", "cursor"].contains(&field.name()));
    for field in &mut event.field {
        if field.r#type() == Type::String || field.name() == "payload" {
            field.set_type(Type::Bytes);
            field.type_name = None;
        }
    }
}
