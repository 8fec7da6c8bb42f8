//! Compiles the messages of etcd's API with protox, so that no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/etcd.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .include_file("etcd.rs") // one module per package
        .compile_fds(descriptors)?;
    Ok(())
}
