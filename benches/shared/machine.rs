//! The machine that measures, in words for a heading.

/// How many processes ran or waited over the last minute, this bench included.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().into()
}
