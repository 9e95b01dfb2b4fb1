//! The model, the patch and the images that subcommands are given.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::data::corrupt::{Corruption, Kind};
use crate::data::resize::Filter;
use crate::data::{self, Fit, Images, Set};
use crate::error::{Error, Result};
use crate::eval::Deployed;
use crate::graph::Network;
use crate::graph::network::MOST_PIXELS;
use crate::repair::patching::deploy;
use crate::storage::Patch;
use crate::zoo::{Model, Overrides};

/// A model and what its file does not say.
#[derive(Clone, Debug, Args)]
pub(super) struct Base {
    /// Model file: safetensors, the index of several, or a state dict that PyTorch saved (.pth)
    pub(super) model: PathBuf,
    /// Mean of each channel of pixels in 0 to 1, as 0.485,0.456,0.406
    #[arg(long, value_delimiter = ',', num_args = 1, value_name = "M,...", allow_negative_numbers = true)]
    mean: Option<Vec<f32>>,
    /// Deviation of each channel, as 0.229,0.224,0.225
    #[arg(long, value_delimiter = ',', num_args = 1, value_name = "S,...", allow_negative_numbers = true)]
    std: Option<Vec<f32>>,
    /// Size of the images: a side, or height x width, as 224 or 240x320
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// Names of the classes: a text file with one a line
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
}

/// How pictures of another size than the network takes are made to fit.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Pictures {
    /// Resize the shorter side of pictures to this before the middle is cut out; smaller pictures are
    /// refused without it, those of exactly the network's size stay as they are [default: 8/7 of the
    /// network's side, as 256 for 224]
    #[arg(long, value_name = "PIXELS")]
    resize: Option<usize>,
    /// How pixels are mixed then, as Pillow and torchvision do it: bilinear or bicubic
    #[arg(long, default_value = "bilinear", value_name = "FILTER")]
    filter: Filter,
}

impl Pictures {
    /// What pictures for `network` become.
    pub(super) fn fit(&self, network: &Network) -> Fit {
        Fit { resize: self.resize, filter: self.filter, ..Fit::network(&network.input.shape) }
    }

    /// What pictures become that are all to be of one size, or are.
    pub(super) fn fit_to(&self, size: Option<&str>) -> Result<Fit> {
        let size = size.map(sides).transpose()?;
        Ok(Fit { size, resize: self.resize, filter: self.filter, channels: None })
    }
}

impl Base {
    /// Opens the model, with the flags in place of what its file says.
    pub(super) fn open(&self) -> Result<Model> {
        let size = self.size.as_deref().map(sides).transpose()?;
        let class_names = self.classes.as_deref().map(lines).transpose()?;
        let (mean, std) = (self.mean.clone(), self.std.clone());
        Model::open(&self.model, &Overrides { class_names, mean, std, size })
    }

    /// The same flags for another model.
    pub(super) fn at(&self, model: &Path) -> Self {
        Self { model: model.into(), ..self.clone() }
    }

    /// What the user typed, for another process; the model stands last.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let list = |values: &[f32]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let [mean, std] = [&self.mean, &self.std].map(|values| values.as_deref().map(list));
        let flags = [("--mean", mean), ("--std", std), ("--size", self.size.clone())];
        let given = flags.into_iter().filter_map(|(flag, value)| Some(format!("{flag}={}", value?).into()));
        let classes = self.classes.iter().flat_map(|path| ["--classes".into(), path.clone().into()]);
        given.chain(classes).chain(["--".into(), self.model.clone().into()]).collect()
    }

    /// Opens the model, and the patch if there is one.
    pub(super) fn deploy(&self, patch: Option<&Path>) -> Result<Opened> {
        let model = self.open()?;
        let patch = patch.map(|path| Ok((Patch::open(path)?, path))).transpose()?;
        let deployed = deploy(&model, patch.as_ref().map(|(patch, path)| (patch, *path)))?;
        Ok(Opened { model, deployed })
    }
}

/// A model file and the network that runs.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) model: Model,
    pub(super) deployed: Deployed,
}

/// The lines of a text file.
fn lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    Ok(text.lines().map(Into::into).collect())
}

fn sides(text: &str) -> Result<[usize; 2]> {
    let (h, w) = text.split_once('x').unwrap_or((text, text));
    let side = |text: &str| text.parse().ok().filter(|side| (1..=MOST_PIXELS).contains(side));
    side(h).zip(side(w)).map(|(h, w)| [h, w]).ok_or_else(|| Error::Config {
        field: "size",
        got: text.into(),
        want: format!("a side or HEIGHTxWIDTH, as 224 or 240x320, each 1 to {MOST_PIXELS}"),
    })
}

/// The labelled images at `path`, made to fit `network` and with its labels.
///
/// A folder by class says its classes by name, and often holds only some: names are looked up
/// among the network's, so that a folder of three classes does not become classes 0 to 2.
pub(super) fn set(path: &Path, set: &'static str, network: &Network, pictures: &Pictures) -> Result<Set> {
    let opened = data::open_set(path, set, &pictures.fit(network))?;
    let Some(names) = opened.class_names() else { return Ok(opened) };
    let classes = classes_of(names, path, network).or_else(|error| match opened.other_names() {
        Some(words) => classes_of(words, path, network).map_err(|_| error),
        None => Err(error),
    })?;
    let labels = opened.labels().iter().map(|&label| classes[label as usize]).collect();
    Ok(opened.relabelled(labels))
}

/// As [`set`], for work that looks at the images again and again.
pub(super) fn images(
    path: &Path,
    role: &'static str,
    network: &Network,
    pictures: &Pictures,
) -> Result<Images> {
    set(path, role, network, pictures)?.keep()
}

/// Names of all classes of a network, or their numbers.
pub(super) fn class_names(network: &Network) -> Vec<String> {
    (0..network.classes).map(|class| network.class_name(class)).collect()
}

/// The network's class of each folder.
fn classes_of(folders: &[String], path: &Path, network: &Network) -> Result<Vec<u32>> {
    let known = class_names(network);
    let classes = |name: &String| (0..known.len()).filter(|&class| known[class] == *name).collect::<Vec<_>>();
    let found: Vec<Vec<usize>> = folders.iter().map(classes).collect();
    // A network without names, and a folder for each class: the order that torchvision gives them.
    if network.class_names.is_empty() && found.iter().all(Vec::is_empty) && folders.len() == network.classes {
        return Ok((0..folders.len() as u32).collect());
    }
    let named = |(found, name): (Vec<usize>, &String)| match found[..] {
        [class] => Ok(class as u32),
        [] => Err(Error::UnknownName {
            kind: "class",
            got: format!("{name}` of `{}", path.display()),
            known: known.join(", "),
        }),
        _ => Err(Error::Config {
            field: "class",
            got: format!("`{name}` of `{}`, which classes {found:?} have", path.display()),
            want: "a name that one class has; --classes gives others".into(),
        }),
    };
    found.into_iter().zip(folders).map(named).collect()
}

/// The corruptions of these names; `all` stands for every kind at every severity.
pub(super) fn corruptions(names: &[String]) -> Result<Vec<Corruption>> {
    let mut found = Vec::new();
    for name in names {
        let constants = match name.split_once(':') {
            None if name == "all" => "",
            Some(("all", constants)) => &format!(":{constants}"),
            _ => {
                found.push(name.parse()?);
                continue;
            }
        };
        for kind in Kind::all() {
            for severity in 1..=5 {
                found.push(format!("{}:{severity}{constants}", kind.name()).parse()?);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::network::{Input, VERSION};

    fn network(class_names: &[&str]) -> Network {
        Network {
            version: VERSION,
            architecture: "a".into(),
            input: Input { shape: vec![1, 2, 2], mean: vec![0.0], std: vec![1.0] },
            classes: 3,
            class_names: class_names.iter().map(ToString::to_string).collect(),
            parts: Vec::new(),
        }
    }

    fn classes(folders: &[&str], class_names: &[&str]) -> Result<Vec<u32>> {
        let folders: Vec<String> = folders.iter().map(ToString::to_string).collect();
        classes_of(&folders, Path::new("f"), &network(class_names))
    }

    #[test]
    fn folders_are_classes_by_name_number_or_order() {
        assert_eq!(classes(&["boot", "shirt"], &["shirt", "bag", "boot"]).unwrap(), [2, 0]);
        assert_eq!(classes(&["1", "2"], &[]).unwrap(), [1, 2]);
        assert_eq!(classes(&["a", "b", "c"], &[]).unwrap(), [0, 1, 2]);
    }

    #[test]
    fn a_folder_that_is_no_class_is_named() {
        let error = classes(&["boat"], &["shirt", "bag", "boot"]).unwrap_err();
        assert_eq!(error.to_string(), "unknown class `boat` of `f`, expected one of shirt, bag, boot");
        assert_eq!(classes(&["a", "b"], &[]).unwrap_err().code(), 23);
        let error = classes(&["crane"], &["crane", "bag", "crane"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "class is `crane` of `f`, which classes [0, 2] have, expected a name that one class has; --classes \
             gives others"
        );
    }

    #[test]
    fn sizes_are_a_side_or_two() {
        assert_eq!(sides("28").unwrap(), [28, 28]);
        assert_eq!(sides("240x320").unwrap(), [240, 320]);
        for wrong in ["", "0", "3x", "28x28x28", "99999999"] {
            assert_eq!(sides(wrong).unwrap_err().code(), 10);
        }
    }

    #[test]
    fn arguments_are_what_was_typed() {
        let base = Base {
            model: "-m".into(),
            mean: Some(vec![-0.5, 0.25]),
            std: None,
            size: Some("28".into()),
            classes: Some("names".into()),
        };
        assert_eq!(base.arguments(), ["--mean=-0.5,0.25", "--size=28", "--classes", "names", "--", "-m"]);
    }

    #[test]
    fn all_is_every_kind_at_every_severity() {
        let all = corruptions(&["all:imagenet".into(), "contrast:2".into()]).unwrap();
        assert_eq!(all.len(), 5 * Kind::all().len() + 1);
        assert_eq!(all[0].to_string(), "gaussian_noise:1:imagenet");
        assert_eq!(corruptions(&["all:mnist".into()]).unwrap_err().code(), 23);
        assert_eq!(corruptions(&["smog:3".into()]).unwrap_err().code(), 23);
    }
}
