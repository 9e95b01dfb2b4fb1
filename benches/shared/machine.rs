//! The machine that measures, in words for a heading.

use archrepair::kernels::instructions::Instructions;

/// Its load, processor and vector instructions, as far as it says.
pub(crate) fn text() -> String {
    let instructions = instructions();
    let known = if instructions.is_empty() { String::new() } else { format!(" ({instructions})") };
    format!("load {}, {}{known}, kernels by {}", load(), processor(), Instructions::in_use())
}

/// How many processes ran or waited over the last minute, this bench included.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().into()
}

/// The name of the processor, or its family.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.trim().strip_prefix(':'));
    name.unwrap_or(std::env::consts::ARCH).trim().into()
}

/// Names of features that this processor has.
macro_rules! known {
    ($is:ident: $($feature:tt)*) => {
        [$(($feature, std::arch::$is!($feature))),*].into_iter().filter(|(_, has)| *has)
            .map(|(feature, _)| feature).collect::<Vec<_>>().join(" ")
    };
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> String {
    known!(is_x86_feature_detected: "avx" "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vnni" "avx512bf16")
}

#[cfg(target_arch = "aarch64")]
fn instructions() -> String {
    known!(is_aarch64_feature_detected: "neon" "fp16" "dotprod" "bf16" "i8mm" "sve" "sve2")
}

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
fn instructions() -> String {
    String::new()
}
