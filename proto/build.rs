//! Makes Rust of the `.proto` files without protoc, and keeps their descriptors, comments included, for reflection.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_source_info(true).include_imports(true);
    for file in ["prediction.proto", "inference.proto", "google/rpc/error_details.proto"] {
        println!("cargo:rerun-if-changed={file}");
        compiler.open_file(file)?;
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // The compiler's own encoding keeps what decoding into known types would drop.
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    // Sorted maps: small ones are built faster, and answers print in the same order each time. A transport is the
    // client's choice.
    tonic_prost_build::configure().btree_map(".").build_transport(false).compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
