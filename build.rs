//! Compiles the contract in pure Rust, so that building needs no `protoc`.

use std::{env, path::PathBuf};

use miette::{Context, IntoDiagnostic, Result};

const CONTRACT: &str = "event_aggregator/v1/event_aggregator.proto";

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=proto");

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_file(CONTRACT)?;

    // Reflection serves this set: it has the comments, which is why a person sees them in grpcurl.
    let descriptors = PathBuf::from(env::var("OUT_DIR").into_diagnostic()?).join("contract.bin");
    std::fs::write(&descriptors, compiler.encode_file_descriptor_set())
        .into_diagnostic()
        .wrap_err("cannot write the descriptor set")?;

    tonic_prost_build::configure()
        .codec_path("crate::grpc::ContractCodec")
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_fds(compiler.file_descriptor_set())
        .into_diagnostic()
}
