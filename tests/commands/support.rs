//! A folder with a model and images, and the program run inside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use archrepair::data::{Images, idx};
use archrepair::eval::Deployed;
use archrepair::rng::Rng;
use archrepair::storage::{Bytes, Storage};
use archrepair::zoo::Model;
use candle_core::Tensor;
use tempfile::TempDir;

/// The network of all tests: 1x28x28, 10 classes, random weights.
const MODEL: &[u8] = include_bytes!("../data/resnet18_cifar.safetensors");

/// A folder that is gone after the test.
///
/// It holds `model.safetensors`, and as IDX pairs `failures` (30 bright images whose labels the
/// network does not give) and `replay` (60 dark images whose labels it gives).
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.path("model.safetensors"), MODEL).unwrap();
        let [failures, replay] = sets();
        folder.put_images("failures", &failures);
        folder.put_images("replay", &replay);
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Writes an IDX pair into the folder `name`.
    pub(crate) fn put_images(&self, name: &str, images: &Images) {
        let (pixels, labels) = idx::encode(images).unwrap();
        fs::create_dir(self.path(name)).unwrap();
        self.put(&format!("{name}/images-idx3-ubyte.gz"), &pixels);
        self.put(&format!("{name}/labels-idx1-ubyte.gz"), &labels);
    }

    /// The program with these arguments, ready to start in this folder.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_archrepair"));
        command.args(arguments.split_whitespace()).current_dir(self.0.path());
        command.env("TMPDIR", self.0.path()).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &str) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs the program, which must end well, and reads its JSON.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &str) -> serde_json::Value {
        let ran = self.run(&format!("{arguments} --json"));
        assert_eq!((ran.status, &*ran.stderr), (0, ""), "{}", ran.stdout);
        assert_eq!(ran.stdout.lines().count(), 1, "one JSON object");
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// Every file below the folder, with its bytes.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.0.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        files
    }
}

/// How a run ended.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// The network of [`MODEL`].
pub(crate) fn network() -> (Model, Deployed) {
    let model = Model::from_bytes(Bytes::from_static(MODEL), Path::new("model.safetensors")).unwrap();
    let deployed = Deployed::new(model.network.clone(), model.params().unwrap());
    (model, deployed)
}

/// The bytes of the model with `change` made to its tensors.
pub(crate) fn changed(change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> Vec<u8> {
    let (_, deployed) = network();
    let mut tensors = deployed.params.tensors().unwrap();
    change(&mut tensors);
    archrepair::storage::serialize(&tensors, Storage::F16, &BTreeMap::new()).unwrap()
}

/// `n` images of noise around a brightness, with label 0.
pub(crate) fn noise(n: usize, brightness: u8, seed: u64) -> Images {
    let mut rng = Rng::new(seed);
    let pixels = (0..n * 28 * 28).map(|_| brightness + rng.below(100) as u8).collect();
    Images::from_parts([1, 28, 28], pixels, vec![0; n], "noise").unwrap()
}

/// `images` with labels that are `offset` above what the network says.
pub(crate) fn labelled(images: &Images, offset: usize) -> Images {
    let classes = network().1.runner().unwrap().classes(images).unwrap();
    let labels = classes.into_iter().map(|class| ((class + offset) % 10) as u32).collect();
    Images::from_parts(images.shape(), images.pixels().to_vec(), labels, images.path()).unwrap()
}

fn sets() -> [Images; 2] {
    [labelled(&noise(30, 150, 1), 1), labelled(&noise(60, 0, 2), 0)]
}

/// A repair of a second or two that the gate lets pass: it is judged on what it learns from.
pub(crate) const REPAIR: &str = "repair model.safetensors --failures failures --replay replay \
    --guard-failures failures --guard-passes replay \
    --min-fixed 0 --max-drop 1 --max-broken 1 --max-class-drop 1 --max-p 1";
