//! The plan of the sources: every backend has the same files, and no files import each other.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const CRATES: [&str; 8] = [
    "backend-consul",
    "backend-dir",
    "backend-etcd",
    "backend-kit",
    "backend-memory",
    "backend-zk",
    "balancers",
    "discovery-api",
];
/// What whoever has read one networked backend looks for in the next.
const NETWORKED: [&str; 3] = ["backend-consul", "backend-etcd", "backend-zk"];
const PLAN: [&str; 13] = [
    "builder", "codec", "config", "driver", "error", "fuzz", "keys", "lib", "list", "records",
    "registry", "tls", "watch",
];

/// The modules of a crate, by their paths, with what is not of its tests; the root is empty.
fn modules(package: &str) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(package)
        .join("src");
    let mut modules = BTreeMap::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let below = path.strip_prefix(&root).unwrap().with_extension("");
            let parts = below.iter().map(|part| part.to_str().unwrap());
            let parts: Vec<_> = parts
                .filter(|part| !["mod", "lib"].contains(part))
                .collect();
            if !parts.contains(&"tests") {
                let text = fs::read_to_string(&path).unwrap();
                let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                modules.insert(parts.join("::"), own.to_owned());
            }
        }
    }
    modules
}

/// The paths of a `use` without its braces.
fn expanded(path: &str) -> Vec<String> {
    let Some((before, within)) = path.split_once('{') else {
        return vec![path.to_owned()];
    };
    let within = within.strip_suffix('}').unwrap_or(within);
    let (mut parts, mut part, mut depth) = (Vec::new(), String::new(), 0);
    for c in within.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    let whole = parts.iter().map(|part| format!("{before}{part}"));
    whole.flat_map(|path| expanded(&path)).collect()
}

/// The modules that `text`, the module `own`, names in its imports.
fn imports(own: &str, text: &str, modules: &BTreeMap<String, String>) -> BTreeSet<String> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let uses = code.split("use ").skip(1);
    let uses = uses.filter_map(|rest| Some(rest.split_once(';')?.0.split_whitespace().collect()));
    let paths = uses.flat_map(|path: String| expanded(&path));
    let named = paths.filter_map(|path| {
        let mut parts = path.split("::").peekable();
        let mut module: Vec<&str> = own.split("::").filter(|part| !part.is_empty()).collect();
        match parts.next()? {
            "crate" => module.clear(),
            "self" => {}
            "super" => {
                module.pop();
                while parts.next_if_eq(&"super").is_some() {
                    module.pop();
                }
            }
            _ => return None,
        }
        for part in parts {
            let below = [&module[..], &[part]].concat();
            if !modules.contains_key(&below.join("::")) {
                break;
            }
            module = below;
        }
        Some(module.join("::"))
    });
    // A module and what is in it are one.
    let within = |one: &str, other: &str| {
        let rest = one.strip_prefix(other);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    named
        .filter(|other| !other.is_empty() && !within(own, other) && !within(other, own))
        .collect()
}

#[test]
fn no_files_of_a_crate_import_each_other_in_a_circle() {
    for package in CRATES {
        let modules = modules(package);
        assert!(modules.len() > 5, "{package}: {} modules", modules.len());
        let mut left: BTreeMap<_, _> = modules
            .iter()
            .map(|(own, text)| (own.as_str(), imports(own, text, &modules)))
            .collect();
        // Whoever imports nobody that is left goes; what stays is in a circle, or leads into one.
        while let Some(free) = left
            .iter()
            .find(|(_, others)| {
                others
                    .iter()
                    .all(|other| !left.contains_key(other.as_str()))
            })
            .map(|(own, _)| *own)
        {
            left.remove(free);
        }
        assert!(left.is_empty(), "{package}: {left:#?}");
    }
}

#[test]
fn every_networked_backend_has_the_files_of_the_plan() {
    for package in NETWORKED {
        let modules = modules(package);
        let names: BTreeSet<_> = modules
            .keys()
            .map(|path| path.split("::").next().unwrap())
            .map(|name| if name.is_empty() { "lib" } else { name })
            .collect();
        for file in PLAN {
            assert!(names.contains(file), "{package} has no {file}");
        }
    }
}

#[test]
fn a_circle_is_found_through_braces_and_parents() {
    let source = |text: &str| text.to_owned();
    let modules = BTreeMap::from([
        (source("a"), source("use crate::{b::{c, d}, e};")),
        (source("b"), source("")),
        (source("b::c"), source("use super::super::a::X;")),
        (source("e"), source("// use crate::a;\nuse std::fmt;")),
    ]);
    let of = |own: &str| {
        imports(own, &modules[own], &modules)
            .into_iter()
            .collect::<Vec<_>>()
    };
    assert_eq!(of("a"), ["b", "b::c", "e"]);
    assert_eq!(of("b::c"), ["a"]);
    assert!(of("e").is_empty());
}
