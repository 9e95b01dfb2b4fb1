//! What holds of the source itself: layers, lengths, no paths of one machine.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the ground up. A file may use only its own module and those of rows before its.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["rng", "device", "meter"],
    &["storage"],
    &["graph"],
    &["kernels"],
    &["engine"],
    &["memory", "zoo", "data"],
    &["eval"],
    &["fit"],
    &["search"],
    &["localize"],
    &["repair"],
    &["export", "report"],
    &["cli"],
];

/// Lines of a file, its tests included.
const MOST_LINES: usize = 500;

/// Lines of a file before its `mod tests`.
const MOST_LINES_WITHOUT_TESTS: usize = 300;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files under `folder`, sorted, without what builds and version control leave.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let is_left = ["target", "tmp", ".git"].iter().any(|name| entry.file_name() == *name);
        match entry.file_type().unwrap() {
            kind if kind.is_dir() && !is_left => found.extend(files(&entry.path())),
            kind if kind.is_file() && !is_left => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// Paths below the root, and texts, of all files of the source.
fn sources() -> Vec<(String, String)> {
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    files(&root().join("src")).into_iter().filter(is_rust).map(named).collect()
}

/// The top-level module that a file of the source belongs to; none for the two roots.
fn module(name: &str) -> Option<&str> {
    let module = name.strip_prefix("src/")?.split('/').next()?.trim_end_matches(".rs");
    (!["lib", "main"].contains(&module)).then_some(module)
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The modules that a line names behind `crate::`, one by one or in braces.
fn used(line: &str) -> Vec<&str> {
    let word = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut found = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => found.extend(heads(list)),
            None => found.push(&rest[..word(rest)]),
        }
    }
    // The crate's root names these two again.
    found.into_iter().map(|name| if ["Error", "Result"].contains(&name) { "error" } else { name }).collect()
}

/// First words of the entries of a list that stands in braces, its opening brace left out.
fn heads(list: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut depth, mut start) = (1, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            found.extend(list[start..at].trim().split("::").next().filter(|head| !head.is_empty()));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// One line a problem, so that a failure names all of them.
#[track_caller]
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn modules_use_only_lower_layers() {
    let mut problems = Vec::new();
    for (name, text) in sources() {
        let Some(own) = module(&name) else { continue };
        for (number, line) in text.lines().enumerate() {
            for used in used(line).into_iter().filter(|used| *used != own) {
                if layer(used).zip(layer(own)).is_none_or(|(used, own)| used >= own) {
                    problems
                        .push(format!("{name}:{}: `{own}` uses `{used}`, which is not below it", number + 1));
                }
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn every_module_has_a_layer() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared = lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    let unknown = declared.map(|name| name.trim_end_matches(';')).filter(|name| layer(name).is_none());
    assert_eq!(unknown.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn used_modules_are_found_in_every_form() {
    assert_eq!(used("use crate::graph::{Graph, op};"), ["graph"]);
    assert_eq!(used("use crate::{Error, data::{Images, idx}, fit};"), ["error", "data", "fit"]);
    assert_eq!(used("fn f(x: &crate::rng::Rng) -> crate::Result<()> {"), ["rng", "error"]);
    assert_eq!(used("let crates = 1;"), Vec::<&str>::new());
}

#[test]
fn no_file_is_too_long() {
    let mut problems = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        let tests = text.lines().position(|line| line.starts_with("mod tests"));
        let code = tests.map_or(lines, |at| at.saturating_sub(1));
        if lines > MOST_LINES {
            problems.push(format!("{name} has {lines} lines, {MOST_LINES} at most"));
        }
        if code > MOST_LINES_WITHOUT_TESTS {
            problems
                .push(format!("{name} has {code} lines without tests, {MOST_LINES_WITHOUT_TESTS} at most"));
        }
    }
    assert_none(&problems);
}

#[test]
fn tests_stand_at_the_end_of_their_file() {
    let is_late = |text: &str| match text.split_once("\nmod tests {\n") {
        Some((_, tests)) => tests.trim_end().find("\n}").is_none_or(|end| end + 2 == tests.trim_end().len()),
        None => true,
    };
    let early = sources().into_iter().filter(|(_, text)| !is_late(text)).map(|(name, _)| name);
    assert_none(&early.collect::<Vec<_>>());
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    // Put together here, or this file would be one of them.
    let folder = ["", "work", ""].join("/");
    let names_it =
        |path: &PathBuf| fs::read(path).unwrap().windows(folder.len()).any(|w| w == folder.as_bytes());
    let found = files(root()).into_iter().filter(names_it).map(|path| path.display().to_string());
    assert_none(&found.collect::<Vec<_>>());
}
