//! Who runs the work: this library in two forms, and programs of others.

use std::fmt;
use std::path::Path;
use std::process::Command;

use archrepair::engine::packing::has_bf16;

use crate::Arguments;
use crate::options::Options;
use crate::own::Weights;

/// A program in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Own(Weights),
    OnnxRuntime,
    PyTorch(Form),
}

/// How PyTorch runs a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A module as one writes it.
    Eager,
    /// The same traced and frozen.
    Frozen,
    /// That prepared for inference.
    Optimized,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Own(Weights::Bf16) => "archrepair, bf16",
            Self::Own(Weights::Heap) => "archrepair",
            Self::Own(Weights::Mapped) => "archrepair, mapped",
            Self::OnnxRuntime => "ONNX Runtime",
            Self::PyTorch(Form::Eager) => "PyTorch",
            Self::PyTorch(Form::Frozen) => "PyTorch, frozen",
            Self::PyTorch(Form::Optimized) => "PyTorch, optimized",
        })
    }
}

impl Program {
    const OWN: [Self; 3] = [Self::Own(Weights::Heap), Self::Own(Weights::Mapped), Self::Own(Weights::Bf16)];
    pub(crate) const PEERS: [Self; 4] = [
        Self::OnnxRuntime,
        Self::PyTorch(Form::Eager),
        Self::PyTorch(Form::Frozen),
        Self::PyTorch(Form::Optimized),
    ];

    /// Those of this library that this processor can run.
    pub(crate) fn own() -> impl Iterator<Item = Self> {
        Self::OWN.into_iter().filter(|program| has_bf16() || !program.is_bf16())
    }

    pub(crate) fn is_bf16(self) -> bool {
        matches!(self, Self::Own(Weights::Bf16))
    }

    pub(crate) fn is_own(self) -> bool {
        matches!(self, Self::Own(_))
    }

    pub(crate) fn is_pytorch(self) -> bool {
        matches!(self, Self::PyTorch(_))
    }

    /// What runs it: this program as a child, or the script.
    pub(crate) fn command(self, folder: &Path, arguments: &Arguments) -> Command {
        let mut command = match self {
            Self::Own(weights) => {
                let mut own = Options::own(folder);
                own.args(["--child", weights.name()]);
                own
            }
            Self::OnnxRuntime => script("onnxruntime", folder, &arguments.options),
            Self::PyTorch(Form::Eager) => script("eager", folder, &arguments.options),
            Self::PyTorch(Form::Frozen) => script("frozen", folder, &arguments.options),
            Self::PyTorch(Form::Optimized) => script("optimized", folder, &arguments.options),
        };
        command.arg(format!("--seconds={}", arguments.seconds));
        command
    }

    /// What writes `model.onnx`.
    pub(crate) fn export(folder: &Path, options: &Options) -> Command {
        script("export", folder, options)
    }
}

fn script(program: &str, folder: &Path, options: &Options) -> Command {
    let mut command = options.script("inference.py", folder);
    command.args(["--program", program]);
    command
}
