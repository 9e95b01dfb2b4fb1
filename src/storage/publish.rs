//! Writing files so that a kill or a power cut at any instant leaves nothing half-written.
//!
//! ```text
//! write the bytes to a file without a name    a kill here leaves nothing at all
//! fsync the file                              its bytes are on the disk
//! give it the name                            one step: all of it is there, or nothing
//! fsync the folder                            the name is on the disk
//! ```
//!
//! Linux can keep a file without a name (`O_TMPFILE`) and link it later. Where the system or the
//! file system cannot, a hidden temporary file beside the output takes its place; it is removed
//! on every error, and only a kill can leave it (`.NAME.` and six letters).
//!
//! Files get mode 0644 less the umask. A symbolic link at the output counts as the output: it is
//! never followed.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use tempfile::{NamedTempFile, PersistError};

use crate::error::{Error, Result};

/// Writes `bytes` to the new file `path`, whole or not at all, and never over another file.
///
/// # Errors
///
/// [`Error::Exists`] when anything is at `path` already, [`Error::File`] when the system refuses
/// a step. Only when the last step fails, the fsync of the folder, is the file there: it is whole
/// but may be gone after a power cut.
pub fn publish(path: &Path, bytes: &[u8]) -> Result<()> {
    refuse_taken(path)?;
    put(path, bytes, unnamed::link, |file, path| file.persist_noclobber(path))
}

/// Writes `bytes` to the file `path`, whole or not at all, in place of what was there. For state
/// of our own: checkpoints and journals.
///
/// A kill in the instant before the rename can leave `.NAME.new`; the next call removes it.
/// Two threads that replace one file leave the bytes of one of them; two processes must agree on
/// who may.
///
/// # Errors
///
/// [`Error::File`] when the system refuses a step. Up to the last step, the fsync of the folder,
/// the old file is then still there.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    put(path, bytes, unnamed::link_over, |file, path| file.persist(path))
}

/// Checks that [`publish`] could write `path` now: nothing is there, and its folder takes files.
/// Asked first, long work does not end at a full stop.
///
/// # Errors
///
/// [`Error::Exists`] or [`Error::File`].
pub fn check_free(path: &Path) -> Result<()> {
    refuse_taken(path)?;
    let folder = folder(path)?;
    // The file has no name or loses it at once, so nothing is left.
    tempfile::tempfile_in(folder).map_err(Error::file("create a file in", folder))?;
    Ok(())
}

pub(super) fn refuse_taken(path: &Path) -> Result<()> {
    // Not `exists`: a link to nowhere takes the name too.
    match path.symlink_metadata() {
        Ok(_) => Err(Error::Exists { path: path.into() }),
        Err(_) => Ok(()),
    }
}

/// The folder of the output `path`.
pub(super) fn folder(path: &Path) -> Result<&Path> {
    match path.parent() {
        Some(folder) if path.file_name().is_some() => {
            Ok(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
        }
        _ => {
            let source = io::Error::new(ErrorKind::InvalidInput, "it does not end in a file name");
            Err(Error::File { action: "write", path: path.into(), source })
        }
    }
}

/// The four steps. `link` names a file without a name, `persist` renames one with a temporary
/// name.
fn put(
    path: &Path,
    bytes: &[u8],
    link: impl FnOnce(&File, &Path) -> io::Result<()>,
    persist: impl FnOnce(NamedTempFile, &Path) -> std::result::Result<File, PersistError>,
) -> Result<()> {
    let folder = folder(path)?;
    let named = match unnamed::create(folder) {
        Ok(mut file) => {
            fill(&mut file, bytes).map_err(Error::file("write", path))?;
            link(&file, path)
        }
        Err(error) => Err(error),
    };
    match named {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Error::Exists { path: path.into() });
        }
        // Whatever is wrong, the plain way works or says so in plainer words.
        Err(_) => put_temporary(path, bytes, persist)?,
    }
    sync(folder)
}

fn put_temporary(
    path: &Path,
    bytes: &[u8],
    persist: impl FnOnce(NamedTempFile, &Path) -> std::result::Result<File, PersistError>,
) -> Result<()> {
    let folder = folder(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!(".{name}.");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(MODE));
    let mut file = builder.tempfile_in(folder).map_err(Error::file("create a file in", folder))?;
    // From here on, dropping `file` removes it.
    fill(file.as_file_mut(), bytes).map_err(Error::file("write", path))?;
    match persist(file, path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
            Err(Error::Exists { path: path.into() })
        }
        Err(error) => Err(Error::File { action: "write", path: path.into(), source: error.error }),
    }
}

fn fill(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// Brings the names in `folder` to the disk. Elsewhere than on Unix a folder cannot be opened,
/// and a rename is as durable as the system makes it.
pub(super) fn sync(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(Error::file("bring to the disk the folder", folder))?;
    }
    Ok(())
}

/// Permissions of what is written, before the umask.
#[cfg(unix)]
const MODE: u32 = 0o644;

/// Files that have no name yet.
#[cfg(target_os = "linux")]
mod unnamed {
    use std::ffi::OsString;
    use std::fs::{File, OpenOptions};
    use std::io::{self, ErrorKind};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;
    use std::sync::{Mutex, PoisonError};

    use rustix::fs::{AtFlags, CWD, OFlags, linkat};

    /// A new file in `folder` that vanishes with its handle.
    pub(super) fn create(folder: &Path) -> io::Result<File> {
        let flags = OFlags::TMPFILE.bits().cast_signed();
        OpenOptions::new().write(true).mode(super::MODE).custom_flags(flags).open(folder)
    }

    /// Gives `file` the name `path`, which must be free.
    pub(super) fn link(file: &File, path: &Path) -> io::Result<()> {
        // The documented way to link an open file that needs no privilege: open(2), O_TMPFILE.
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Gives `file` the name `path` in place of what has it.
    ///
    /// A link cannot replace, so the file is `.NAME.new` for the instant before the rename. The
    /// name is always the same: what a kill at that instant left is removed by the next call.
    pub(super) fn link_over(file: &File, path: &Path) -> io::Result<()> {
        // Two threads must not take each other's `.NAME.new`.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".new");
        let hidden = path.with_file_name(name);
        match link(file, &hidden) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                std::fs::remove_file(&hidden)?;
                link(file, &hidden)?;
            }
            linked => linked?,
        }
        std::fs::rename(&hidden, path).inspect_err(|_| {
            // The rename's error is the one to tell; the next call removes what is left.
            let _ = std::fs::remove_file(&hidden);
        })
    }
}

/// Other systems have no files without a name.
#[cfg(not(target_os = "linux"))]
mod unnamed {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    pub(super) fn create(_folder: &Path) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn link(_file: &File, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn link_over(_file: &File, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Way = fn(&Path, &[u8]) -> Result<()>;

    /// Both ways to publish, so that tests hold for file systems of either kind.
    const WAYS: [Way; 2] =
        [publish, |path, bytes| put_temporary(path, bytes, |file, path| file.persist_noclobber(path))];

    /// Both ways to replace.
    const REPLACING: [Way; 2] =
        [replace, |path, bytes| put_temporary(path, bytes, |file, path| file.persist(path))];

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = std::fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_published_file_holds_the_bytes_and_is_alone() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.safetensors");
            way(&path, b"whole").unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"whole");
            assert_eq!(names(folder.path()), ["a.safetensors"]);
        }
    }

    #[test]
    fn publishing_never_overwrites() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            std::fs::write(&path, b"old").unwrap();
            let error = way(&path, b"new").unwrap_err();
            assert_eq!(error.code(), 12);
            let want = format!("{} exists already; choose another name or remove it first", path.display());
            assert_eq!(error.to_string(), want);
            assert_eq!(std::fs::read(&path).unwrap(), b"old");
            assert_eq!(names(folder.path()), ["a"]);
        }
    }

    /// The name may be taken after the first look, too.
    #[test]
    fn of_many_who_publish_one_name_only_one_wins() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            let (results, path_of) = (std::sync::Mutex::new(Vec::new()), &path);
            std::thread::scope(|scope| {
                for thread in 0..8u8 {
                    let results = &results;
                    scope.spawn(move || {
                        let result = way(path_of, &vec![thread; 10_000]);
                        results.lock().unwrap().push(result.map(|()| thread));
                    });
                }
            });
            let results = results.into_inner().unwrap();
            let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
            assert_eq!((won.len(), lost.len()), (1, 7));
            assert!(lost.iter().all(|result| matches!(result, Err(Error::Exists { .. }))));
            let winner = *won[0].as_ref().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), vec![winner; 10_000]);
            assert_eq!(names(folder.path()), ["a"]);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nowhere_is_not_followed() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
            assert_eq!(way(&path, b"new").unwrap_err().code(), 12);
            assert_eq!(check_free(&path).unwrap_err().code(), 12);
            assert_eq!(names(folder.path()), ["a"]);
        }
    }

    #[cfg(unix)]
    #[test]
    fn files_are_readable_by_all_and_writable_by_none_but_the_owner() {
        use std::os::unix::fs::PermissionsExt;

        for way in WAYS.into_iter().chain(REPLACING) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            let plain = folder.path().join("plain");
            std::fs::write(&plain, b"").unwrap(); // 0666 less the umask
            way(&path, b"x").unwrap();
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), mode(&plain) & 0o644);
        }
    }

    #[test]
    fn replacing_puts_the_new_bytes_in_place_of_the_old() {
        for way in REPLACING {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.json");
            for bytes in [&b"first"[..], b"second", b""] {
                way(&path, bytes).unwrap();
                assert_eq!(std::fs::read(&path).unwrap(), bytes);
                assert_eq!(names(folder.path()), ["state.json"]);
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_kill_left_is_gone_after_the_next_replacement() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(".a.new");
        std::fs::write(&left, b"left").unwrap();
        replace(&folder.path().join("a"), b"new").unwrap();
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"new");
        assert!(!left.exists());
    }

    #[test]
    fn threads_that_replace_one_file_leave_the_bytes_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("a");
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                scope.spawn(move || replace(path, &[thread; 100]).unwrap());
            }
        });
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(bytes, vec![bytes[0]; 100]);
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let ways = WAYS.into_iter().chain(REPLACING).chain([(|path, _| check_free(path)) as Way]);
        for way in ways {
            let error = way(&missing.join("a"), b"x").unwrap_err();
            assert_eq!(error.code(), 11);
            assert_eq!(error.to_string(), format!("cannot create a file in {}", missing.display()));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_that_takes_no_files_is_found_before_the_work() {
        let error = check_free(Path::new("/proc/a")).unwrap_err();
        assert_eq!(error.to_string(), "cannot create a file in /proc");
        assert_eq!(publish(Path::new("/proc/a"), b"").unwrap_err().code(), 11);
        assert_eq!(replace(Path::new("/proc/a"), b"").unwrap_err().code(), 11);
    }

    #[test]
    fn a_failed_replacement_leaves_the_folder_as_it_was() {
        for way in REPLACING {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            std::fs::create_dir(&path).unwrap(); // a file cannot replace a folder
            let error = way(&path, b"x").unwrap_err();
            assert_eq!(error.to_string(), format!("cannot write {}", path.display()));
            assert_eq!(names(folder.path()), ["a"]);
        }
    }

    #[test]
    fn a_free_name_is_free_and_asking_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        check_free(&folder.path().join("a")).unwrap();
        assert_eq!(names(folder.path()), [""; 0]);
        let error = check_free(Path::new("x/..")).unwrap_err();
        assert_eq!((error.code(), error.to_string()), (11, "cannot write x/..".into()));
    }
}
