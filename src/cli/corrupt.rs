//! `archrepair corrupt`: labelled images under the common corruptions, as files.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::base::corruptions;
use super::{Console, Global};
use crate::data::corrupt::Corruption;
use crate::data::{self, Images, idx, npy, pictures};
use crate::error::{Error, Result};
use crate::report::{Table, units};
use crate::storage::{check_free, publish_folder};

/// Write labelled images under the common corruptions of the robustness benchmarks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  archrepair corrupt t10k-images-idx3-ubyte.gz --corruption fog:3,contrast:5 --out damaged --format idx
  archrepair corrupt photos/ --corruption all:imagenet --out photos-c --format folder

Corruptions: gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur,
snow, frost, fog, brightness, contrast, elastic_transform, pixelate, jpeg_compression, and speckle_noise,
gaussian_blur, spatter, saturate. The ice of frost is generated.")]
pub(super) struct Corrupt {
    /// Labelled images: an IDX images file or a folder of images by class
    data: PathBuf,
    /// Corruptions: NAME:SEVERITY for images of about 32 pixels, NAME:SEVERITY:tinyimagenet for 64,
    /// NAME:SEVERITY:imagenet for 224; all, all:tinyimagenet or all:imagenet
    #[arg(long, value_delimiter = ',', num_args = 1, required = true, value_name = "CORRUPTION")]
    corruption: Vec<String>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// npy: NAME.npy with severities one after another, and labels.npy, as CIFAR-10-C;
    /// folder: NAME/SEVERITY/CLASS/NUMBER.png; idx: NAME/SEVERITY with an IDX pair
    #[arg(long)]
    format: Format,
}

/// How images are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Folder,
    Idx,
    Npy,
}

/// What was done by one corruption.
struct Row {
    corruption: Corruption,
    images_per_second: f64,
    /// The mean of the distances between bytes before and after.
    distance: f64,
}

impl Corrupt {
    pub(super) fn run(&self, global: &Global, console: &Console) -> Result<u8> {
        let corruptions = corruptions(&self.corruption)?;
        check_free(&self.out)?;
        if self.format == Format::Npy {
            check_blocks(&corruptions)?;
        }
        let images = data::open(&self.data, "clean")?;
        let start = Instant::now();
        let mut rows = Vec::new();
        publish_folder(&self.out, |folder| {
            let bar = console.bar(images.len() * corruptions.len(), "corrupting");
            for corruption in &corruptions {
                let start = Instant::now();
                let corrupted = corruption.apply_telling(&images, global.seed, || bar.inc(1));
                let images_per_second = images.len() as f64 / start.elapsed().as_secs_f64();
                bar.set_message(format!("{} images a second", units::count(images_per_second as u64)));
                let distance = distance(&images, &corrupted);
                rows.push(Row { corruption: *corruption, images_per_second, distance });
                self.format.write(&corrupted, *corruption, (folder, &corruptions))?;
            }
            bar.finish_and_clear();
            match self.format {
                Format::Npy => write_labels(&images, &corruptions, folder),
                Format::Folder | Format::Idx => Ok(()),
            }
        })?;
        let seconds = start.elapsed().as_secs_f64();
        console.result(&self.text(&rows, images.len(), seconds), &self.json(&rows, images.len(), seconds))?;
        Ok(0)
    }

    fn text(&self, rows: &[Row], n: usize, seconds: f64) -> String {
        let mut table = Table::new(&["corruption", "images a second", "distance"])
            .legend("images a second", "without reading and writing, all threads together")
            .legend("distance", "mean of |after - before| over all values, of 255");
        for row in rows {
            let rate = units::count(row.images_per_second as u64);
            table.row([row.corruption.to_string(), rate, format!("{:.2}", row.distance)]);
        }
        let (n, written) = (units::count(n as u64), units::count((n * rows.len()) as u64));
        format!("{table}\n{written} images of {n} written to {} in {seconds:.1} s", self.out.display())
    }

    fn json(&self, rows: &[Row], n: usize, seconds: f64) -> Value {
        let row = |row: &Row| {
            json!({
                "name": row.corruption.to_string(),
                "images_per_second": row.images_per_second,
                "distance": row.distance,
            })
        };
        let rows: Vec<Value> = rows.iter().map(row).collect();
        json!({ "out": self.out, "images": n, "seconds": seconds, "corruptions": rows })
    }
}

impl Format {
    /// Writes one corruption into a folder; `all` are those that the folder is for.
    fn write(self, images: &Images, one: Corruption, (folder, all): (&Path, &[Corruption])) -> Result<()> {
        let name = one.kind().name();
        match self {
            Self::Folder => pictures::write(images, &place(folder, one)),
            Self::Idx => write_idx(images, &place(folder, one)),
            Self::Npy => {
                let blocks = all.iter().filter(|other| other.kind() == one.kind()).count();
                npy::append(&folder.join(format!("{name}.npy")), images, blocks * images.len())
            }
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "folder" => Ok(Self::Folder),
            "idx" => Ok(Self::Idx),
            "npy" => Ok(Self::Npy),
            other => {
                let known = "npy, folder, idx".into();
                Err(Error::UnknownName { kind: "format", got: other.into(), known })
            }
        }
    }
}

/// `NAME/SEVERITY`, with the constants behind it where they are not those of small images.
pub(super) fn place(folder: &Path, corruption: Corruption) -> PathBuf {
    let text = corruption.to_string().replacen(':', "/", 1).replace(':', "-");
    folder.join(text)
}

/// Makes sure that one file of labels fits all kinds.
fn check_blocks(corruptions: &[Corruption]) -> Result<()> {
    let of = |one: &Corruption| {
        let same = corruptions.iter().filter(|other| other.kind() == one.kind());
        same.map(|other| (other.severity(), other.constants())).collect::<Vec<_>>()
    };
    let wrong = corruptions.iter().find(|one| of(one) != of(&corruptions[0]));
    wrong.map_or(Ok(()), |one| {
        let got =
            format!("other severities for {} than for {}", one.kind().name(), corruptions[0].kind().name());
        Err(Error::Config { field: "corruption", got, want: "the same for all in the format npy".into() })
    })
}

/// The labels of the images once for each severity.
fn write_labels(images: &Images, corruptions: &[Corruption], folder: &Path) -> Result<()> {
    images.check(images.shape(), 256)?;
    let labels: Vec<u8> = images.labels().iter().map(|label| *label as u8).collect();
    let blocks = corruptions.iter().filter(|one| one.kind() == corruptions[0].kind()).count();
    let bytes = [npy::header(&[blocks * labels.len()]), labels.repeat(blocks)].concat();
    let path = folder.join("labels.npy");
    fs::write(&path, bytes).map_err(Error::file("write", &path))
}

fn write_idx(images: &Images, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::file("make the folder", folder))?;
    let (pixels, labels) = idx::encode(images)?;
    let rank = if images.shape()[0] == 1 { 3 } else { 4 };
    for (name, bytes) in
        [(format!("images-idx{rank}-ubyte.gz"), pixels), ("labels-idx1-ubyte.gz".into(), labels)]
    {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(Error::file("write", &path))?;
    }
    Ok(())
}

/// The mean of the distances between the bytes of two sets.
fn distance(a: &Images, b: &Images) -> f64 {
    let of = |i| a.image(i).iter().zip(b.image(i)).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
    (0..a.len()).map(of).sum::<u64>() as f64 / a.pixels().len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_that_differ_by_kind_fit_no_file_of_labels() {
        let check = |names: &[&str]| {
            check_blocks(&corruptions(&names.iter().map(ToString::to_string).collect::<Vec<_>>())?)
        };
        assert!(check(&["all"]).is_ok() && check(&["fog:3", "contrast:3"]).is_ok());
        assert_eq!(
            check(&["fog:3", "contrast:1"]).unwrap_err().to_string(),
            "corruption is other severities for contrast than for fog, expected the same for all in the format npy"
        );
        assert_eq!(check(&["fog:3", "contrast:3", "contrast:4"]).unwrap_err().code(), 10);
    }

    #[test]
    fn places_name_severity_and_constants() {
        let place = |text: &str| place(Path::new("o"), text.parse().unwrap());
        assert_eq!(place("fog:3"), Path::new("o/fog/3"));
        assert_eq!(place("fog:3:imagenet"), Path::new("o/fog/3-imagenet"));
    }
}
