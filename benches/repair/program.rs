//! The forms in which PyTorch makes the repair.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use crate::options::Options;

/// A program in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Own,
    PyTorch { form: Form, is_channels_last: bool },
}

/// What PyTorch computes in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The block and what stands behind it, from features that are computed once.
    Cached,
    /// The whole network forward, and the gradients of all its weights.
    Everything,
    /// The whole network forward, and the gradients of the block's weights.
    Full,
}

impl Form {
    const ALL: [Self; 3] = [Self::Cached, Self::Everything, Self::Full];

    fn name(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Everything => "everything",
            Self::Full => "full",
        }
    }
}

impl FromStr for Program {
    type Err = String;

    /// `FORM[-channels-last]`
    fn from_str(text: &str) -> Result<Self, String> {
        let last = text.strip_suffix("-channels-last");
        let form = Form::ALL.into_iter().find(|form| form.name() == last.unwrap_or(text));
        let form = form.ok_or("not cached, full or everything, with -channels-last behind it or not")?;
        Ok(Self::PyTorch { form, is_channels_last: last.is_some() })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self::PyTorch { form, is_channels_last } = self else { return f.write_str("archrepair") };
        write!(f, "PyTorch, {}{}", form.name(), if *is_channels_last { ", channels last" } else { "" })
    }
}

impl Program {
    /// What runs it: this program as a child, or the script.
    pub(crate) fn command(self, folder: &Path, options: &Options) -> Command {
        let Self::PyTorch { form, is_channels_last } = self else {
            let mut own = Options::own(folder);
            own.arg("--child");
            return own;
        };
        let mut command = options.script("repair.py", folder);
        command.args(["--form", form.name()]);
        if is_channels_last {
            command.arg("--channels-last");
        }
        command
    }
}
