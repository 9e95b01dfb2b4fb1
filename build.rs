//! Compiles the CUDA kernels, and does nothing without the feature `cuda`.
//!
//! `NVCC` is the compiler, else `CUDA_HOME/bin/nvcc`, else the one on the path; `CUDA_COMPUTE_CAP` is the
//! oldest GPU that the kernels run on, 7.5 where it is not set.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const KERNELS: &str = "src/kernels/fused/kernels.cu";

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    println!("cargo::rerun-if-changed={KERNELS}");
    for name in ["NVCC", "CUDA_HOME", "CUDA_COMPUTE_CAP"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let installed = || env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin/nvcc"));
    let compiler = env::var_os("NVCC").map(PathBuf::from).or_else(installed).unwrap_or_else(|| "nvcc".into());
    let capability = env::var("CUDA_COMPUTE_CAP").map_or_else(|_| "75".into(), |text| text.replace('.', ""));
    let folder = env::var_os("OUT_DIR").ok_or("cargo names no folder for results")?;
    let status = Command::new(&compiler)
        .args(["--ptx", "-O3", &format!("-arch=compute_{capability}"), KERNELS, "-o"])
        .arg(PathBuf::from(folder).join("kernels.ptx"))
        .status()
        .map_err(|error| format!("cannot run {}: {error}", compiler.display()))?;
    if status.success() { Ok(()) } else { Err(format!("{} refused {KERNELS}", compiler.display())) }
}
