//! What the README says is proved by a test of this name.

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_readme_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("the README");
    let (_, section) = readme
        .split_once("## How it is proved")
        .expect("the section");
    let rows = section.split("\n## ").next().unwrap_or_default().lines();
    let rows: Vec<_> = rows.filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 50, "{} rows", rows.len());
    for row in rows {
        let cells: Vec<_> = row
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        let [_, _, file, test, _] = cells[..] else {
            panic!("not a row of three cells: {row}");
        };
        // The cases of the conformance suite have one list.
        let path = match file {
            "conformance" => root.join("../discovery-api/src/conformance/cases.rs"),
            file => root.join("tests").join(file).with_extension("rs"),
        };
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        assert!(words.any(|word| word == test), "{file}: {test}");
    }
}
