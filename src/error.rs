//! Every way this crate can fail, in one enum.
//!
//! The command line turns a failure into an exit status and a log into one line. Both read
//! the same [`Error`], so each variant carries what a person needs to act on it: what, where,
//! expected, got, and what to do.

use std::path::{Path, PathBuf};

/// The result of every fallible function here.
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, where, and what was expected.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A patch was made for other base bytes.
    #[error(
        "patch {patch} is for a base with digest {want}, this base has {got}; use the model the patch was made from"
    )]
    BaseMismatch {
        /// The patch file.
        patch: PathBuf,
        /// Digest the patch is bound to.
        want: String,
        /// Digest of the base that was given.
        got: String,
    },
    /// A setting is outside its range.
    #[error("{field} is {got}, expected {want}")]
    Config {
        /// Name of the flag or field.
        field: &'static str,
        /// What was given.
        got: String,
        /// The allowed range.
        want: String,
    },
    /// Training left the finite numbers.
    #[error("the loss became {loss} at step {step} of {what}; lower the learning rate or check the data")]
    Diverged {
        /// Which training.
        what: String,
        /// Step counted from 0.
        step: usize,
        /// The value of the loss.
        loss: f64,
    },
    /// Nothing that would do fits the memory limit.
    #[error("{what} does not fit into {limit} bytes: the least that would do is {least}, raise --memory")]
    Limit {
        /// What was to be done.
        what: String,
        /// The limit in bytes.
        limit: usize,
        /// The least limit that would do.
        least: usize,
    },
    /// The device exists in the API but not in this build.
    #[error("no {device} in this build, rebuild with `--features {device}`")]
    DeviceNotBuilt {
        /// Name of the Cargo feature.
        device: &'static str,
    },
    /// A data set holds no image.
    #[error("{set} set {path} holds no images, expected at least 1")]
    Empty {
        /// Role of the set: failure, replay, guard.
        set: &'static str,
        /// Where it was read from.
        path: PathBuf,
    },
    /// An output is already there, and nothing is ever overwritten.
    #[error("{path} exists already; choose another name or remove it first")]
    Exists {
        /// The output that was asked for.
        path: PathBuf,
    },
    /// The operating system refused a file operation.
    #[error("cannot {action} {path}")]
    File {
        /// A verb: open, map, write.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own words.
        source: std::io::Error,
    },
    /// A graph that cannot be: wrong wiring, shapes that do not meet.
    #[error("node `{node}`: {problem}")]
    Graph {
        /// Name of the node.
        node: String,
        /// What is wrong, with both shapes where there are two.
        problem: String,
    },
    /// An image has another size than the network takes.
    #[error("{path} holds images of {got} (channels x height x width), the network takes {want}")]
    ImageSize {
        /// File or folder.
        path: PathBuf,
        /// What the network takes.
        want: String,
        /// What the file holds.
        got: String,
    },
    /// A label the network has no class for.
    #[error("label {got} of image {index} in {path}: the network has {classes} classes, 0 to {}", classes - 1)]
    Label {
        /// File or folder.
        path: PathBuf,
        /// Image counted from 0.
        index: usize,
        /// The label.
        got: usize,
        /// Classes of the network.
        classes: usize,
    },
    /// A file's bytes are not what its format says.
    #[error("{path} is damaged or not of this format: {problem}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where, expected, got.
        problem: String,
    },
    /// An allocation would pass the memory limit; it was not made.
    #[error("{what} needs {need} bytes, {in_use} bytes are in use and the limit is {limit}; raise it")]
    Memory {
        /// What the bytes are for.
        what: String,
        /// Bytes that were asked for.
        need: usize,
        /// The most bytes the process may allocate.
        limit: usize,
        /// Bytes allocated at that moment.
        in_use: usize,
    },
    /// A tensor that the architecture needs is not in the file.
    #[error("{path} has no tensor `{name}`, expected one of shape {want:?}")]
    MissingTensor {
        /// The weights file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Shape the architecture asks for.
        want: Vec<usize>,
    },
    /// A weight is NaN or infinite.
    #[error("tensor `{name}` in {path} holds {value} at element {index}; every weight must be finite")]
    NotFinite {
        /// The weights file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Flat index of the first such element.
        index: usize,
        /// NaN, inf or -inf.
        value: f32,
    },
    /// The network already classifies every failure correctly.
    #[error("the network gets all {n} images of the failure set right; nothing to repair")]
    NothingToRepair {
        /// Images in the set.
        n: usize,
    },
    /// Gradients are too large for half precision, whatever the loss is multiplied with.
    #[error("gradients overflow {precision} even where the loss is not multiplied; use --precision f32")]
    Overflow {
        /// The precision.
        precision: &'static str,
    },
    /// Measured runs did not keep to their plan.
    #[error("{runs} of {all} runs took more memory than planned or did not come to an end; see the table")]
    Overrun {
        /// Those runs.
        runs: usize,
        /// All that were made.
        all: usize,
    },
    /// A tensor is present but its shape is not the architecture's.
    #[error("tensor `{name}` in {path} has shape {got:?}, expected {want:?}")]
    Shape {
        /// The weights file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Shape the architecture asks for.
        want: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// A candle operation failed.
    #[error("{during} failed")]
    Tensor {
        /// What was being computed.
        during: &'static str,
        /// candle's own words.
        source: candle_core::Error,
    },
    /// No known family has such tensor names.
    #[error("{path} is of no known architecture: {problem}")]
    UnknownArchitecture {
        /// The weights file.
        path: PathBuf,
        /// What was looked for and not found.
        problem: String,
    },
    /// A name that is not in a list of names.
    #[error("unknown {kind} `{got}`, expected one of {known}")]
    UnknownName {
        /// What the name stands for: corruption, block, method.
        kind: &'static str,
        /// What was given.
        got: String,
        /// All names there are.
        known: String,
    },
    /// A file was written by a newer program than this one.
    #[error("{path} has format version {got}, this program reads version {want}; update archrepair")]
    Version {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        got: u64,
        /// Newest version that is read.
        want: u64,
    },
}

impl Error {
    /// Exit status and C return value: never 0 to 9, never shared by two variants.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Config { .. } => 10,
            Self::File { .. } => 11,
            Self::Exists { .. } => 12,
            Self::Malformed { .. } => 13,
            Self::MissingTensor { .. } => 14,
            Self::Shape { .. } => 15,
            Self::NotFinite { .. } => 16,
            Self::UnknownArchitecture { .. } => 17,
            Self::BaseMismatch { .. } => 18,
            Self::Label { .. } => 19,
            Self::Empty { .. } => 20,
            Self::NothingToRepair { .. } => 21,
            Self::ImageSize { .. } => 22,
            Self::UnknownName { .. } => 23,
            Self::DeviceNotBuilt { .. } => 24,
            Self::Tensor { .. } => 25,
            Self::Graph { .. } => 26,
            Self::Diverged { .. } => 27,
            Self::Version { .. } => 28,
            Self::Memory { .. } => 29,
            Self::Limit { .. } => 30,
            Self::Overrun { .. } => 31,
            Self::Overflow { .. } => 32,
        }
    }

    /// Turns an error of the operating system into [`Error::File`]; made for `map_err`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { action, path: path.into(), source }
    }
}

/// Says what was being computed when candle refused.
pub(crate) trait During<T> {
    fn during(self, what: &'static str) -> Result<T>;
}

impl<T> During<T> for candle_core::Result<T> {
    fn during(self, what: &'static str) -> Result<T> {
        self.map_err(|source| Error::Tensor { during: what, source })
    }
}
