//! A camera's classifier, as firmware would write it: open the model once, classify one image
//! after another, keep those the network is unsure of as candidates for labelling.
//!
//! ```text
//! classify_stream MODEL FOLDER      [--patch PATCH] [--keep FOLDER] [--keep-below 0.6]
//! classify_stream MODEL --idx DATA  [--patch PATCH] [--keep FOLDER] [--keep-below 0.6]
//! ```
//!
//! Standard output gets one line an image: name, class and probability, with tabs between. An
//! image that cannot be read is told on standard error and the stream goes on; the exit status is
//! then [`Error::code`] of the first such error.
//!
//! Reading order: `run`, `stream`, `Camera::frame`, `classify`, `keep`.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use archrepair::data::{self, Images};
use archrepair::eval::{Deployed, Session};
use archrepair::memory::{Meter, meter};
use archrepair::repair::patching::deploy;
use archrepair::storage::{Digest, Patch, publish};
use archrepair::zoo::{Model, Overrides};
use archrepair::{Error, Result};
use clap::Parser;
use image::{ColorType, ImageFormat, ImageReader};

// Counts every byte the program allocates; the last line on standard error tells the peak.
#[global_allocator]
static METER: Meter = Meter;

/// Classifies a stream of images and keeps those the network is unsure of
#[derive(Debug, Parser)]
struct Arguments {
    /// Model file
    model: PathBuf,
    /// Folder of images; they are classified in the order of their names
    #[arg(required_unless_present = "idx", conflicts_with = "idx")]
    folder: Option<PathBuf>,
    /// IDX images, or a folder with one IDX pair, instead of a folder of images
    #[arg(long, value_name = "DATA")]
    idx: Option<PathBuf>,
    /// Repair of the model
    #[arg(long)]
    patch: Option<PathBuf>,
    /// Folder for copies of the unsure images; nothing in it is ever overwritten
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// An image is unsure when its most probable class is less probable than this
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.6)]
    keep_below: f32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            complain(&error);
            ExitCode::from(error.code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<u8> {
    if !(0.0..=1.0).contains(&arguments.keep_below) {
        let (got, want) = (arguments.keep_below.to_string(), "0 to 1".into());
        return Err(Error::Config { field: "keep-below", got, want });
    }
    let deployed = open(arguments)?;
    let camera = Camera::new(arguments, deployed.network.input.shape[0])?;
    if let Some(folder) = &arguments.keep {
        fs::create_dir_all(folder).map_err(file_error("create", folder))?;
    }
    let status = stream(arguments, &deployed, &camera)?;
    let _ = writeln!(std::io::stderr(), "{} images, at most {} bytes allocated", camera.len(), meter::peak());
    Ok(status)
}

/// Classifies all images and returns the exit status. One bad image, or one that cannot be kept,
/// must not stop the camera: the status is then the code of the first such error, else 0.
///
/// # Errors
///
/// Without a network or a standard output there is nothing left to do.
fn stream(arguments: &Arguments, deployed: &Deployed, camera: &Camera) -> Result<u8> {
    let runner = deployed.runner()?;
    let [c, h, w] = [0, 1, 2].map(|i| deployed.network.input.shape[i]);
    // Memory for one image at a time, made here once and for all.
    let mut session = runner.session([c, h, w], 1)?;
    let mut status = 0;
    for i in 0..camera.len() {
        let seen =
            camera.frame(i).and_then(|frame| Ok((classify(deployed, &mut session, &frame.image)?, frame)));
        let kept = match seen {
            Ok(((class, probability), frame)) => {
                tell(&format!("{}\t{class}\t{probability:.4}", frame.name))?;
                let folder = arguments.keep.as_ref().filter(|_| probability < arguments.keep_below);
                folder.map_or(Ok(()), |folder| keep(&frame, folder))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            complain(&error);
            status = if status == 0 { error.code() } else { status };
        }
    }
    Ok(status)
}

/// The network with its repair, if there is one.
fn open(arguments: &Arguments) -> Result<Deployed> {
    let model = Model::open(&arguments.model, &Overrides::default())?;
    let Some(path) = &arguments.patch else { return deploy(&model, None) };
    deploy(&model, Some((&Patch::open(path)?, path)))
}

/// Where the images come from.
enum Camera {
    /// Image files, decoded one at a time for a network of this many channels.
    Folder { files: Vec<PathBuf>, channels: usize },
    /// A set in memory.
    Idx(Images),
}

/// One image of the stream.
struct Frame {
    name: String,
    /// The image alone.
    image: Images,
    /// The file it came from, byte by byte; `None` without a file of its own.
    file: Option<Vec<u8>>,
}

impl Camera {
    fn new(arguments: &Arguments, channels: usize) -> Result<Self> {
        if let Some(path) = &arguments.idx {
            return data::open(path, "stream").map(Self::Idx);
        }
        let folder = arguments.folder.as_deref().unwrap_or(Path::new("."));
        let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
        let entries = entries.map_err(file_error("list", folder))?;
        let mut files: Vec<_> =
            entries.iter().map(fs::DirEntry::path).filter(|path| is_image(path)).collect();
        files.sort();
        if files.is_empty() {
            return Err(Error::Empty { set: "stream", path: folder.into() });
        }
        Ok(Self::Folder { files, channels })
    }

    fn len(&self) -> usize {
        match self {
            Self::Folder { files, .. } => files.len(),
            Self::Idx(images) => images.len(),
        }
    }

    fn frame(&self, i: usize) -> Result<Frame> {
        match self {
            Self::Folder { files, channels } => {
                let path = &files[i];
                let bytes = fs::read(path).map_err(file_error("read", path))?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                Ok(Frame { name, image: decode(&bytes, path, *channels)?, file: Some(bytes) })
            }
            Self::Idx(images) => {
                Ok(Frame { name: format!("{i:05}.png"), image: images.subset(&[i]), file: None })
            }
        }
    }
}

fn is_image(path: &Path) -> bool {
    let is_known = ImageFormat::from_path(path).is_ok_and(|format| format.reading_enabled());
    is_known && path.is_file()
}

/// The image in `bytes`: grey for one channel, else red, green and blue.
///
/// Colour is not made grey: the network would see other greys than those it was trained on.
fn decode(bytes: &[u8], path: &Path, channels: usize) -> Result<Images> {
    let malformed = |problem: String| Error::Malformed { path: path.into(), problem };
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let picture = reader.map_err(file_error("read", path))?.decode();
    let picture = picture.map_err(|error| malformed(error.to_string()))?;
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    if channels == 1 && !picture.color().has_color() {
        return Images::from_parts([1, h, w], picture.into_luma8().into_raw(), vec![0], path);
    }
    // Pixel by pixel to plane by plane.
    let pixels = picture.into_rgb8().into_raw();
    let planes = (0..3).flat_map(|c| pixels.iter().skip(c).step_by(3)).copied().collect();
    Images::from_parts([3, h, w], planes, vec![0], path)
}

/// The most probable class of one image, and its probability.
fn classify(deployed: &Deployed, session: &mut Session, image: &Images) -> Result<(String, f32)> {
    deployed.check(image)?;
    let row = session.logits(image, &[0])?;
    let (mut class, mut greatest) = (0, f32::NEG_INFINITY);
    for (i, logit) in row.iter().enumerate() {
        if *logit > greatest {
            (class, greatest) = (i, *logit);
        }
    }
    // Softmax of the greatest logit, without overflow.
    let sum: f32 = row.iter().map(|logit| (logit - greatest).exp()).sum();
    Ok((deployed.network.class_name(class), 1.0 / sum))
}

/// Copies an image into `folder`. The name starts with the digest of the bytes: a camera that
/// counts from 0 after every start loses nothing, and the same image is kept once.
fn keep(frame: &Frame, folder: &Path) -> Result<()> {
    let bytes = match &frame.file {
        Some(bytes) => bytes,
        None => &png(&frame.image)?,
    };
    let digest = Digest::of(bytes).to_string();
    match publish(&folder.join(format!("{}-{}", &digest[..16], frame.name)), bytes) {
        Err(Error::Exists { .. }) => Ok(()),
        done => done,
    }
}

/// One image as a PNG file.
fn png(image: &Images) -> Result<Vec<u8>> {
    let [c, h, w] = image.shape();
    let malformed = |problem: String| Error::Malformed { path: image.path().into(), problem };
    let color = match c {
        1 => ColorType::L8,
        3 => ColorType::Rgb8,
        _ => return Err(malformed(format!("{c} channels cannot be kept as PNG, expected 1 or 3"))),
    };
    let planes = image.image(0);
    // Plane by plane to pixel by pixel.
    let pixels: Vec<u8> = (0..h * w).flat_map(|i| (0..c).map(move |c| planes[c * h * w + i])).collect();
    let mut bytes = Cursor::new(Vec::new());
    image::write_buffer_with_format(&mut bytes, &pixels, w as u32, h as u32, color, ImageFormat::Png)
        .map_err(|error| malformed(error.to_string()))?;
    Ok(bytes.into_inner())
}

/// One line on standard output. A reader that has left is an error, not a panic.
fn tell(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").map_err(file_error("write to", Path::new("standard output")))
}

/// One line on standard error, with all causes.
fn complain(error: &Error) {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let line: Vec<_> = causes.map(ToString::to_string).collect();
    let _ = writeln!(std::io::stderr(), "error: {}", line.join(": "));
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::File { action, path: path.into(), source }
}
