//! What stands beside a model file, for what its tensors do not tell.
//!
//! `NAME.archrepair.json` beside `NAME.safetensors` or `NAME.pth` is ours, every field may be left out:
//!
//! ```json
//! {"architecture": "tf_efficientnet_lite0", "class_names": ["tench", "goldfish"],
//!  "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "size": [224, 224]}
//! ```
//!
//! Else `config.json` in the same folder is read, if it is timm's: with `architecture` and `pretrained_cfg`.

use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;

use super::Overrides;
use crate::error::{Error, Result};

/// What a side file says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Side {
    /// timm's name of the network: those that start with `tf_` pad as TensorFlow does.
    architecture: Option<String>,
    class_names: Option<Vec<String>>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    /// Height and width.
    size: Option<[usize; 2]>,
}

/// timm's `config.json`.
#[derive(Deserialize)]
struct Timm {
    architecture: String,
    label_names: Option<Vec<String>>,
    pretrained_cfg: Pretrained,
}

#[derive(Deserialize)]
struct Pretrained {
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    input_size: Option<[usize; 3]>,
}

/// Longest file that is read.
const MOST_BYTES: u64 = 16 << 20;

impl Side {
    /// What stands beside the model at `path`, if anything does.
    ///
    /// # Errors
    ///
    /// [`Error::File`] and [`Error::Malformed`] for a side file that cannot be read.
    pub(super) fn beside(path: &Path) -> Result<Option<Self>> {
        let own = path.with_extension("archrepair.json");
        if let Some(text) = text(&own)? {
            let malformed =
                |error: serde_json::Error| Error::Malformed { path: own, problem: error.to_string() };
            return serde_json::from_str(&text).map(Some).map_err(malformed);
        }
        let other = path.with_file_name("config.json");
        let Some(text) = text(&other)? else { return Ok(None) };
        // Other programs have a file of this name too.
        let is_timm = serde_json::from_str::<serde_json::Value>(&text)
            .is_ok_and(|value| value.get("architecture").is_some() && value.get("pretrained_cfg").is_some());
        if !is_timm {
            return Ok(None);
        }
        let malformed =
            |error: serde_json::Error| Error::Malformed { path: other, problem: error.to_string() };
        serde_json::from_str::<Timm>(&text).map(|timm| Some(timm.into())).map_err(malformed)
    }

    pub(super) fn architecture(&self) -> Option<&str> {
        self.architecture.as_deref()
    }

    /// What the user says, and where that is nothing, what the file says.
    pub(super) fn under(self, overrides: &Overrides) -> Overrides {
        let Overrides { class_names, mean, std, size } = overrides.clone();
        Overrides {
            class_names: class_names.or(self.class_names),
            mean: mean.or(self.mean),
            std: std.or(self.std),
            size: size.or(self.size),
        }
    }
}

impl From<Timm> for Side {
    fn from(timm: Timm) -> Self {
        let Pretrained { mean, std, input_size } = timm.pretrained_cfg;
        Self {
            architecture: Some(timm.architecture),
            class_names: timm.label_names,
            mean,
            std,
            size: input_size.map(|[_, h, w]| [h, w]),
        }
    }
}

/// The text of a file; `None` when there is none of this name.
fn text(path: &Path) -> Result<Option<String>> {
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    if !about.is_file() || about.len() > MOST_BYTES {
        let problem = format!("it is no file of at most {MOST_BYTES} bytes");
        return Err(Error::Malformed { path: path.into(), problem });
    }
    std::fs::read_to_string(path).map(Some).map_err(Error::file("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(files: &[(&str, &str)]) -> Result<Option<Side>> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Side::beside(&folder.path().join("net.v1.safetensors"))
    }

    const OWN: &str = "net.v1.archrepair.json";
    const TIMM: &str = r#"{"architecture": "tf_x", "num_classes": 2, "label_names": ["a", "b"],
        "pretrained_cfg": {"mean": [0.5], "std": [0.25], "input_size": [1, 8, 9], "tag": "in1k"}}"#;

    #[test]
    fn the_own_file_goes_first_and_flags_before_both() {
        let side = beside(&[(OWN, r#"{"size": [4, 5]}"#), ("config.json", TIMM)]).unwrap().unwrap();
        assert_eq!(side, Side { size: Some([4, 5]), ..Side::default() });
        let flags = Overrides { mean: Some(vec![0.1]), ..Overrides::default() };
        let under = side.under(&flags);
        assert_eq!((under.mean, under.size), (flags.mean, Some([4, 5])));
    }

    #[test]
    fn the_file_of_timm_is_read_and_that_of_others_is_not() {
        let side = beside(&[("config.json", TIMM)]).unwrap().unwrap();
        assert_eq!(side.architecture(), Some("tf_x"));
        assert_eq!((side.size, side.class_names.unwrap()), (Some([8, 9]), vec!["a".into(), "b".into()]));
        for text in [r#"{"architectures": ["A"]}"#, "no JSON"] {
            assert_eq!(beside(&[("config.json", text)]).unwrap(), None);
        }
        assert_eq!(beside(&[]).unwrap(), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_side_file_that_cannot_be_looked_for_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Side::beside(&file.path().join("net.safetensors")).unwrap_err().code(), 11);
    }

    #[test]
    fn a_side_file_with_a_mistake_is_refused() {
        for text in [r#"{"sizes": [4, 5]}"#, r#"{"size": 4}"#, "{"] {
            assert_eq!(beside(&[(OWN, text)]).unwrap_err().code(), 13);
        }
        let text = r#"{"architecture": "x", "pretrained_cfg": {"mean": 1}}"#;
        assert_eq!(beside(&[("config.json", text)]).unwrap_err().code(), 13);
    }
}
