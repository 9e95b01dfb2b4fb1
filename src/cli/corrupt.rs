//! `archrepair corrupt`: labelled images under the common corruptions, as files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::base::{Pictures, corruptions};
use super::{Console, Global};
use crate::data::corrupt::Corruption;
use crate::data::{self, Images, Set, idx, npy, pictures};
use crate::error::{Error, Result};
use crate::report::{Table, units};
use crate::storage::{check_free, publish, publish_folder};

/// Bytes of images that are in memory together.
const TOGETHER_BYTES: usize = 8 << 20;

/// Write labelled images under the common corruptions of the robustness benchmarks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  archrepair corrupt t10k-images-idx3-ubyte.gz --corruption fog:3,contrast:5 --out damaged --format idx
  archrepair corrupt photos/ --corruption all:imagenet --size 224 --out photos-c --format folder
  archrepair corrupt photos/ --corruption all:imagenet --size 224 --contact-sheet sheet.png

Corruptions: gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur,
snow, frost, fog, brightness, contrast, elastic_transform, pixelate, jpeg_compression, and speckle_noise,
gaussian_blur, spatter, saturate. The ice of frost is generated.")]
pub(super) struct Corrupt {
    /// Labelled images, as `eval` takes them
    data: PathBuf,
    /// Corruptions: NAME:SEVERITY for images of about 32 pixels, NAME:SEVERITY:tinyimagenet for 64,
    /// NAME:SEVERITY:imagenet for 224; all, all:tinyimagenet or all:imagenet
    #[arg(long, value_delimiter = ',', num_args = 1, required = true, value_name = "CORRUPTION")]
    corruption: Vec<String>,
    /// Folder to write
    #[arg(long, value_name = "DIR", required_unless_present = "contact_sheet", requires = "format")]
    out: Option<PathBuf>,
    /// npy: NAME.npy with severities one after another, and labels.npy, as CIFAR-10-C;
    /// folder: NAME/SEVERITY/CLASS/NUMBER.png; idx: NAME/SEVERITY with an IDX pair
    #[arg(long, requires = "out")]
    format: Option<Format>,
    /// PNG file to draw the first image in: a column for each kind of corruption, in their order; clean on
    /// top, then one severity below the other
    #[arg(long, value_name = "FILE")]
    contact_sheet: Option<PathBuf>,
    /// Size that pictures are made to fit: a side, or HEIGHTxWIDTH [default: that of the first]
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    #[command(flatten)]
    pictures: Pictures,
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
        for path in [&self.out, &self.contact_sheet].into_iter().flatten() {
            check_free(path)?;
        }
        if self.format == Some(Format::Npy) {
            check_blocks(&corruptions)?;
        }
        // Decoded once, and not again under each corruption.
        let images =
            data::open_set(&self.data, "clean", &self.pictures.fit_to(self.size.as_deref())?)?.keep()?;
        if matches!(self.format, Some(Format::Idx | Format::Npy)) {
            images.check(images.shape(), 256)?; // labels take a byte there
        }
        if let Some(path) = &self.contact_sheet {
            publish(path, &sheet(&images, &corruptions, global.seed, path)?)?;
        }
        let (Some(out), Some(format)) = (&self.out, self.format) else {
            let sheet = self.contact_sheet.iter().map(|path| format!("drawn in {}", path.display()));
            console.result(&sheet.collect::<String>(), &json!({ "contact_sheet": self.contact_sheet }))?;
            return Ok(0);
        };
        let start = Instant::now();
        let mut rows = Vec::new();
        publish_folder(out, |folder| {
            let bar = console.bar(images.len() * corruptions.len(), "corrupting");
            for corruption in &corruptions {
                let blocks = corruptions.iter().filter(|other| other.kind() == corruption.kind()).count();
                let writer = Writer::new(format, *corruption, (folder, blocks), &images)?;
                let row = corrupt(&images, (*corruption, global.seed), writer, &|n| bar.inc(n))?;
                bar.set_message(format!("{} images a second", units::count(row.images_per_second as u64)));
                rows.push(row);
            }
            bar.finish_and_clear();
            match format {
                Format::Npy => write_labels(&images, &corruptions, folder),
                Format::Folder | Format::Idx => Ok(()),
            }
        })?;
        let seconds = start.elapsed().as_secs_f64();
        console
            .result(&text(&rows, (images.len(), out), seconds), &json(&rows, (images.len(), out), seconds))?;
        Ok(0)
    }
}

fn text(rows: &[Row], (n, out): (usize, &Path), seconds: f64) -> String {
    let mut table = Table::new(&["corruption", "images a second", "distance"])
        .legend("images a second", "without reading and writing, all threads together")
        .legend("distance", "mean of |after - before| over all values, of 255");
    for row in rows {
        let rate = units::count(row.images_per_second as u64);
        table.row([row.corruption.to_string(), rate, format!("{:.2}", row.distance)]);
    }
    let (n, written) = (units::count(n as u64), units::count((n * rows.len()) as u64));
    format!("{table}\n{written} images of {n} written to {} in {seconds:.1} s", out.display())
}

fn json(rows: &[Row], (n, out): (usize, &Path), seconds: f64) -> Value {
    let row = |row: &Row| {
        json!({
            "name": row.corruption.to_string(),
            "images_per_second": row.images_per_second,
            "distance": row.distance,
        })
    };
    let rows: Vec<Value> = rows.iter().map(row).collect();
    json!({ "out": out, "images": n, "seconds": seconds, "corruptions": rows })
}

/// Writes all images under one corruption, some at a time.
fn corrupt(
    images: &Images,
    (corruption, seed): (Corruption, u64),
    mut writer: Writer,
    tell: &dyn Fn(u64),
) -> Result<Row> {
    let start = Instant::now();
    let corrupted = corruption.over(&Set::from(images.clone()), seed);
    let (mut seconds, mut distance) = (start.elapsed().as_secs_f64(), 0);
    let values: usize = images.shape().iter().product();
    let together = (TOGETHER_BYTES / values).clamp(1, 256);
    for first in (0..images.len()).step_by(together) {
        let start = Instant::now();
        let some = corrupted.batch(first..images.len().min(first + together))?;
        seconds += start.elapsed().as_secs_f64();
        distance += (0..some.len()).map(|i| apart(some.image(i), images.image(first + i))).sum::<u64>();
        writer.add(&some, first)?;
        tell(some.len() as u64);
    }
    writer.finish()?;
    let n = images.len() as f64;
    Ok(Row { corruption, images_per_second: n / seconds, distance: distance as f64 / n / values as f64 })
}

/// The sum of the distances between bytes.
fn apart(a: &[u8], b: &[u8]) -> u64 {
    a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
}

/// The first image, clean and under all corruptions, as a PNG file.
fn sheet(images: &Images, corruptions: &[Corruption], seed: u64, path: &Path) -> Result<Vec<u8>> {
    let mut severities = corruptions.chunk_by(|a, b| a.kind() == b.kind()).map(<[Corruption]>::len);
    let n = severities.next().unwrap_or(0);
    if severities.any(|other| other != n) {
        let want = "as many severities of each kind for a contact sheet".into();
        return Err(Error::Config { field: "corruption", got: "of uneven numbers".into(), want });
    }
    let clean = images.subset(&[0]);
    let mut cells = images.subset(&[]);
    for of_kind in corruptions.chunk_by(|a, b| a.kind() == b.kind()) {
        cells.extend(&clean)?;
        for corruption in of_kind {
            cells.extend(&corruption.apply(&clean, seed))?;
        }
    }
    pictures::sheet(&cells, n + 1, path)
}

/// Where the images of one corruption go.
enum Writer {
    Folder { path: PathBuf, n: usize },
    Idx(Box<idx::Writer<File>>),
    Npy { path: PathBuf, n: usize },
}

impl Writer {
    /// Into `folder`; of its kind of corruption there are as many `blocks` of images.
    fn new(
        format: Format,
        one: Corruption,
        (folder, blocks): (&Path, usize),
        images: &Images,
    ) -> Result<Self> {
        let (place, n) = (place(folder, one), images.len());
        match format {
            Format::Folder => Ok(Self::Folder { path: place, n }),
            Format::Npy => {
                Ok(Self::Npy { path: folder.join(format!("{}.npy", one.kind().name())), n: blocks * n })
            }
            Format::Idx => {
                fs::create_dir_all(&place).map_err(Error::file("make the folder", &place))?;
                let labels = place.join("labels-idx1-ubyte.gz");
                let bytes = idx::encode_labels(images.labels(), &labels)?;
                fs::write(&labels, bytes).map_err(Error::file("write", &labels))?;
                let rank = if images.shape()[0] == 1 { 3 } else { 4 };
                let path = place.join(format!("images-idx{rank}-ubyte.gz"));
                let file = File::create(&path).map_err(Error::file("write", &path))?;
                Ok(Self::Idx(Box::new(idx::Writer::images(file, images.shape(), n, &path)?)))
            }
        }
    }

    /// Writes the next images, of which the first has the number `first`.
    fn add(&mut self, images: &Images, first: usize) -> Result<()> {
        match self {
            Self::Folder { path, n } => pictures::write(images, path, (first, *n)),
            Self::Idx(file) => file.add(&images.pixels()),
            Self::Npy { path, n } => npy::append(path, images, *n),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Folder { .. } | Self::Npy { .. } => Ok(()),
            Self::Idx(file) => file.finish().map(drop),
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

/// The labels of the images, which take a byte, once for each severity.
fn write_labels(images: &Images, corruptions: &[Corruption], folder: &Path) -> Result<()> {
    let labels: Vec<u8> = images.labels().iter().map(|label| *label as u8).collect();
    let blocks = corruptions.iter().filter(|one| one.kind() == corruptions[0].kind()).count();
    let bytes = [npy::header(&[blocks * labels.len()]), labels.repeat(blocks)].concat();
    let path = folder.join("labels.npy");
    fs::write(&path, bytes).map_err(Error::file("write", &path))
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
    fn a_contact_sheet_takes_as_many_severities_of_each_kind() {
        let images = Images::from_parts([1, 32, 32], vec![128; 1024], vec![0], "t").unwrap();
        let sheet = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            sheet(&images, &corruptions(&names)?, 0, Path::new("t.png"))
        };
        assert!(sheet(&["contrast:1", "contrast:2", "brightness:1", "brightness:3"]).is_ok());
        // Six cells with those of the clean image, in two columns.
        assert_eq!(sheet(&["fog:1", "fog:2", "fog:3", "snow:1"]).unwrap_err().code(), 10);
    }

    #[test]
    fn places_name_severity_and_constants() {
        let place = |text: &str| place(Path::new("o"), text.parse().unwrap());
        assert_eq!(place("fog:3"), Path::new("o/fog/3"));
        assert_eq!(place("fog:3:imagenet"), Path::new("o/fog/3-imagenet"));
    }
}
