//! What documents name is there: the tests that `TESTING.md` of a backend says prove a claim, the
//! decisions, the files that are linked to.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The backends whose claims are listed, and at least how many tests each list names.
const LISTS: [(&str, usize); 4] = [
    ("backend-consul", 80),
    ("backend-dir", 20),
    ("backend-etcd", 40),
    ("backend-zk", 60),
];

#[test]
fn every_test_that_a_list_of_claims_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (package, at_least) in LISTS {
        let directory = root.join(package);
        let document = fs::read_to_string(directory.join("TESTING.md")).unwrap();
        let sources = sources(vec![
            directory.join("tests"),
            directory.join("src"),
            root.join("discovery-api/src/conformance"),
            root.join("tests"),
        ]);
        let named: Vec<_> = document.lines().flat_map(named_tests).collect();
        assert!(named.len() >= at_least, "{package}: {} tests", named.len());
        for (file, test) in named {
            let definition = format!("fn {test}(");
            let defines = |text: &String| text.contains(&definition);
            // The cases of the suite, and tests of other packages, may be in any file.
            let own = file.filter(|stem| *stem != "conformance");
            let own = own.map(|stem| directory.join("tests").join(stem).with_extension("rs"));
            let there = match own.and_then(|path| sources.get(&path)) {
                Some(text) => defines(text),
                None => sources.values().any(defines),
            };
            assert!(
                there,
                "{package}/TESTING.md names {test}, which is not there"
            );
        }
    }
}

#[test]
fn every_decision_is_in_the_index_and_fits_on_a_page() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/decisions");
    let index = fs::read_to_string(directory.join("README.md")).unwrap();
    let pages: Vec<_> = fs::read_dir(&directory).unwrap().collect();
    assert!(pages.len() > 10, "{} pages", pages.len());
    for page in pages {
        let page = page.unwrap();
        let name = page.file_name().into_string().unwrap();
        let lines = fs::read_to_string(page.path()).unwrap().lines().count();
        assert!(lines < 60, "{name} has {lines} lines");
        assert!(
            name == "README.md" || index.contains(&format!("({name})")),
            "{name}"
        );
    }
}

#[test]
fn every_file_that_a_document_links_to_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut directories = vec![root.to_path_buf()];
    let mut links = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                directories.push(path);
            } else if name.ends_with(".md") {
                let text = fs::read_to_string(&path).unwrap();
                for link in text.split("](").skip(1) {
                    let link = link.split([')', '#']).next().unwrap();
                    // Pages elsewhere, places on the same page, and items that rustdoc finds.
                    if link.is_empty() || link.contains("://") || link.contains("::") {
                        continue;
                    }
                    links += 1;
                    assert!(directory.join(link).exists(), "{}: {link}", path.display());
                }
            }
        }
    }
    assert!(links > 10, "{links} links");
}

/// The tests that a line names, each with the file that it names right before it, if it does.
fn named_tests(line: &str) -> Vec<(Option<&str>, &str)> {
    let parts: Vec<_> = line.split('`').collect();
    let file = |at: usize| {
        let (before, between) = (parts.get(at.checked_sub(2)?)?, parts[at - 1]);
        let right_before = matches!(between, ": " | " | ") && !is_test(before);
        right_before.then_some(*before)
    };
    let spans = (1..parts.len()).step_by(2);
    spans
        .filter(|&at| is_test(parts[at]))
        .map(|at| (file(at), parts[at]))
        .collect()
}

/// Whether it is the name of a test: a claim, so several words.
fn is_test(span: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    span.chars().all(word) && span.matches('_').count() >= 3
}

/// What the Rust files of these directories and of those in them say.
fn sources(mut directories: Vec<PathBuf>) -> HashMap<PathBuf, String> {
    let mut found = HashMap::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path, text);
            }
        }
    }
    found
}
