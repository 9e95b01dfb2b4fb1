//! Programs of others, and the settings that spare memory there too.
//!
//! glibc keeps what a program frees: PyTorch's process then stands at two to five times what its
//! tensors ever held, and at another figure each time. `-trimmed` makes glibc hand back every
//! block over 64 KiB, which takes time. Micro-batches are open to everyone, so PyTorch has them.

use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use crate::options::Options;

/// `PROGRAM[-trimmed][:MICRO-BATCH]`
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    program: Program,
    /// How it was asked for, without the program.
    pub(crate) levers: String,
    is_trimmed: bool,
    micro_batch: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Candle,
    Checkpoint,
    Eager,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, micro_batch) = text.split_once(':').map_or((text, None), |(name, n)| (name, Some(n)));
        let micro_batch = match micro_batch.map(str::parse) {
            None => None,
            Some(Ok(n)) if n > 0 => Some(n),
            Some(_) => return Err("the micro-batch is not a number over 0".into()),
        };
        let (name, is_trimmed) = name.strip_suffix("-trimmed").map_or((name, false), |name| (name, true));
        let program = match name {
            "candle" if micro_batch.is_some() => return Err("candle's row has no micro-batches".into()),
            "candle" => Program::Candle,
            "checkpoint" => Program::Checkpoint,
            "eager" => Program::Eager,
            _ => return Err("not eager, checkpoint or candle".into()),
        };
        Ok(Self { program, levers: text.into(), is_trimmed, micro_batch })
    }
}

impl Peer {
    pub(crate) fn who(&self) -> &'static str {
        if self.program == Program::Candle { "candle" } else { "PyTorch" }
    }

    /// What runs it: this program as a child, or the script.
    pub(crate) fn command(&self, folder: &Path, options: &Options) -> Command {
        let mut command = if self.program == Program::Candle {
            let mut own = Options::own(folder);
            own.args(["--child", "candle"]);
            own
        } else {
            options.script("search_step.py", folder)
        };
        if self.program == Program::Checkpoint {
            command.arg("--checkpoint");
        }
        if let Some(n) = self.micro_batch {
            command.args(["--micro-batch", &n.to_string()]);
        }
        if self.is_trimmed {
            command.env("MALLOC_MMAP_THRESHOLD_", "65536");
        }
        command
    }
}
