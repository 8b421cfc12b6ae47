//! Compiles the kubelet's protocols, without a protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The linker's own name for a program differs from checkout to checkout: without it images do not.
    println!("cargo:rustc-link-arg-bins=-Wl,--build-id=none");
    let files = ["proto/deviceplugin.proto", "proto/podresources.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let described = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(described)?;
    Ok(())
}
