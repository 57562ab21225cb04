//! The floors of the house: `src/lib.rs` lists the modules bottom to top, and no file imports from
//! a module above its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helper functions of a test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules that stand on one floor with the one listed before them.
const BESIDE: [(&str, &str); 1] = [("error", "stats")];

/// The modules in the order of `lib.rs`, each with the number of its floor.
fn floors(lib: &str) -> Vec<(String, usize)> {
    let mut floors: Vec<(String, usize)> = Vec::new();
    for line in lib.lines() {
        let Some(name) = line.strip_prefix("pub mod ").and_then(|l| l.strip_suffix(';')) else {
            continue;
        };
        let floor = match floors.last() {
            None => 0,
            Some((last, floor)) if BESIDE.contains(&(last.as_str(), name)) => *floor,
            Some((_, floor)) => floor + 1,
        };
        floors.push((name.to_owned(), floor));
    }
    floors
}

/// The line and the module of every path through the root of the crate.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code: String = text
        .lines()
        .map(|line| if line.trim_start().starts_with("//") { "" } else { line })
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let path = &code[at + "crate::".len()..];
        match path.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group).into_iter().map(|head| (line, head))),
            None => found.push((line, identifier(path))),
        }
    }
    found
}

/// The first name of each path in a braced group.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut expected) = (1, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => expected = true,
            c if expected && (c.is_alphabetic() || c == '_') => {
                heads.push(identifier(&group[at..]));
                expected = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Every import in `text`, a file of `module`, that points upward.
fn upward(floors: &[(String, usize)], module: &str, text: &str) -> Vec<(usize, String)> {
    let floor_of = |name: &str| floors.iter().find(|(n, _)| n == name).map(|(_, floor)| *floor);
    let own = floor_of(module).expect("a module that lib.rs lists");
    let above = |(_, name): &(usize, String)| floor_of(name).is_some_and(|floor| floor > own);
    imports(text).into_iter().filter(above).collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_file_imports_from_above_its_floor() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floors = floors(&fs::read_to_string(src.join("lib.rs")).unwrap());
    assert!(floors.len() > 5, "lib.rs lists the floors: {floors:?}");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
        let module = first.trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        assert!(
            floors.iter().any(|(name, _)| name == module),
            "src/{}: lib.rs does not list {module}",
            inside.display()
        );
        let text = fs::read_to_string(&file).unwrap();
        seen += imports(&text).len();
        for (line, name) in upward(&floors, module, &text) {
            wrong.push(format!("src/{}:{line}: {module} imports {name}", inside.display()));
        }
    }
    assert!(wrong.is_empty(), "imports that point upward:\n{}", wrong.join("\n"));
    assert!(seen > 10, "the imports are found: {seen}");
}

/// The test above can fail.
#[test]
fn an_upward_import_is_seen() {
    let floors = floors("pub mod error;\npub mod stats;\n//! x\npub mod http;\npub mod proxy;\n");
    assert_eq!(floors.iter().map(|(_, floor)| *floor).collect::<Vec<_>>(), [0, 0, 1, 2]);
    let text = "//! crate::proxy\nuse crate::error::{Kind, proxy};\n\
        use crate::{http::{head, proxy}, proxy::Route,\n    stats};\nfn f() { crate::proxy::g() }\n";
    assert_eq!(upward(&floors, "http", text), [(3, "proxy".to_owned()), (5, "proxy".to_owned())]);
    assert_eq!(upward(&floors, "proxy", text), []);
    assert_eq!(upward(&floors, "stats", "use crate::error::Kind;"), []);
    assert_eq!(upward(&floors, "error", "use crate::http::head;").len(), 1);
}
