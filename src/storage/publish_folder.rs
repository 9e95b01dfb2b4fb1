//! Writing folders so that their name appears when all is in them.
//!
//! ```text
//! make a hidden folder beside the output      a kill here leaves `.NAME.` and six letters
//! fill it, fsync all of it                    its bytes are on the disk
//! rename it                                   one step: all of it is there, or nothing
//! fsync the folder around it                  the name is on the disk
//! ```

use std::fs::{self, File};
use std::path::Path;

use super::publish::{folder, refuse_taken, sync};
use crate::error::{Error, Result};

/// Makes the new folder `path` of what `fill` writes into the folder that it is given.
///
/// # Errors
///
/// [`Error::Exists`] when anything is at `path` already, [`Error::File`] when the system refuses a
/// step, and those of `fill`. Nothing is left then.
pub fn publish_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    refuse_taken(path)?;
    let parent = folder(path)?;
    let prefix = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755));
    // From here on, dropping `made` removes it.
    let made = builder.tempdir_in(parent).map_err(Error::file("make a folder in", parent))?;
    fill(made.path())?;
    sync_all(made.path())?;
    // A rename goes over an empty folder.
    refuse_taken(path)?;
    fs::rename(made.path(), path).map_err(Error::file("write", path))?;
    let _ = made.keep();
    sync(parent)
}

/// Brings everything in a folder to the disk.
fn sync_all(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).map_err(Error::file("list", path))? {
        let path = entry.map_err(Error::file("list", path))?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(Error::file("bring to the disk", &path))?;
        }
    }
    sync(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_folder_appears_with_all_that_is_in_it() {
        let outside = tempfile::tempdir().unwrap();
        let path = outside.path().join("out");
        publish_folder(&path, |folder| {
            assert!(!path.exists());
            fs::create_dir(folder.join("in")).unwrap();
            fs::write(folder.join("in/a"), b"whole").unwrap();
            Ok(())
        })
        .unwrap();
        assert_eq!(fs::read(path.join("in/a")).unwrap(), b"whole");
        assert_eq!(names(outside.path()), ["out"]);
    }

    #[test]
    fn a_failure_leaves_nothing_and_nothing_is_overwritten() {
        let outside = tempfile::tempdir().unwrap();
        let path = outside.path().join("out");
        let fail = |folder: &Path| {
            fs::write(folder.join("a"), b"half").unwrap();
            Err(Error::Exists { path: "a".into() })
        };
        assert_eq!(publish_folder(&path, fail).unwrap_err().to_string().split(' ').next(), Some("a"));
        assert!(names(outside.path()).is_empty());

        fs::create_dir(&path).unwrap();
        assert_eq!(publish_folder(&path, |_| panic!("nothing is written")).unwrap_err().code(), 12);
        assert_eq!(names(outside.path()), ["out"]);
    }
}
