//! Pictures whose classes stand in a table: a CSV file of two columns.
//!
//! ```text
//! file,label
//! street/1.jpg,car
//! ```
//!
//! The first line may be this header. Files are beside the table or below it. Labels that are all whole
//! numbers are classes; otherwise they are names, which get their numbers in byte order.

use std::path::{Path, PathBuf};

use super::set::Set;
use super::{Fit, decode};
use crate::error::{Error, Result};

/// The table's name in a folder.
pub(super) const NAME: &str = "labels.csv";

/// The pictures that the table at `path` lists, in its order.
///
/// # Errors
///
/// [`Error::File`] when it cannot be read, [`Error::Malformed`] when a line has not two columns or names a
/// file elsewhere, and those of pictures.
pub(super) fn open(path: &Path, set: &'static str, fit: &Fit) -> Result<Set> {
    let folder = path.parent().unwrap_or(path);
    let (files, names) = rows(path)?;
    let files: Vec<PathBuf> = files.iter().map(|file| folder.join(file)).collect();
    if let Some(labels) = names.iter().map(|name| name.parse().ok()).collect::<Option<Vec<u32>>>() {
        return decode::set(files, labels, (path, set), fit);
    }
    let mut classes = names.clone();
    classes.sort();
    classes.dedup();
    let label = |name: &String| classes.binary_search(name).map_or(0, |at| at as u32);
    let labels = names.iter().map(label).collect();
    decode::set(files, labels, (path, set), fit)?.named(classes)
}

/// Both columns.
fn rows(path: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let malformed = |problem| Error::Malformed { path: path.into(), problem };
    let reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_path(path);
    let read = |error: csv::Error| {
        let problem = error.to_string();
        match error.into_kind() {
            csv::ErrorKind::Io(source) => Error::file("read", path)(source),
            _ => malformed(problem),
        }
    };
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    for (i, row) in reader.map_err(read)?.into_records().enumerate() {
        let row = row.map_err(read)?;
        let line = row.position().map_or(i as u64 + 1, csv::Position::line);
        let (Some(file), Some(label), 2) = (row.get(0), row.get(1), row.len()) else {
            return Err(malformed(format!("line {line} has {} columns, expected file and label", row.len())));
        };
        if i > 0 || !file.eq_ignore_ascii_case("file") || !label.eq_ignore_ascii_case("label") {
            if !decode::is_below(file) {
                let want = "expected one beside it or below";
                return Err(malformed(format!("line {line} names the file `{file}`, {want}")));
            }
            files.push(file.into());
            labels.push(label.into());
        }
    }
    Ok((files, labels))
}
