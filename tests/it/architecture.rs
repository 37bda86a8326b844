//! The house itself: arrows between rooms go one way only.

use std::{fs, path::Path};

/// Rooms in the order in which they may know each other: each knows those above it. What stands on one line does not
/// know its neighbours.
const STOREYS: &[&[&str]] = &[
    &["error", "timestamps"],
    &["http", "db"],
    &["cache"],
    &["auth"],
    &["config"],
    &["app"],
    &["named"],
    &["users", "products", "categories", "tags", "ops"],
    &["docs"],
    &["routes"],
    &["server"],
    &["commands"],
    &["main", "lib"],
];

fn storey(room: &str) -> usize {
    let found = STOREYS.iter().position(|rooms| rooms.contains(&room));
    found.unwrap_or_else(|| panic!("the room {room} stands on no storey: give it one"))
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(sources(&entry.path()));
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            found.push(entry.path());
        }
    }
    found
}

/// The rooms that a source names: in `use crate::{...}`, and in paths that begin with `crate::`.
fn known_rooms(text: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (place, _) in text.match_indices("crate::") {
        let rest = &text[place + "crate::".len()..];
        if let Some(tree) = rest.strip_prefix('{') {
            // the first word of each branch at depth 0
            let (mut depth, mut word) = (0, String::new());
            for letter in tree.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => rooms.push(std::mem::take(&mut word)),
                    _ if depth == 0 => word.push(letter),
                    _ => {}
                }
            }
            rooms.push(word);
        } else {
            rooms.push(rest.to_owned());
        }
    }
    let first_word = |text: &String| -> String {
        text.trim().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
    };
    rooms.iter().map(first_word).filter(|room| !room.is_empty()).collect()
}

#[test]
fn module_dependencies_are_layered() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut arrows = 0;
    for path in sources(&root) {
        let inside = path.strip_prefix(&root).unwrap();
        let room = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).unwrap();
        for known in known_rooms(&text).into_iter().filter(|known| *known != room) {
            arrows += 1;
            if storey(&known) >= storey(&room) {
                wrong.push(format!("{} knows {known}", inside.display()));
            }
        }
    }
    assert!(arrows > 50, "the reader of sources sees nothing: {arrows}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn lib_documents_every_module() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    for room in STOREYS.iter().copied().flatten().filter(|room| !["commands", "main", "lib"].contains(room)) {
        assert!(map.contains(&format!("[`{room}`]")) && map.contains(&format!("pub mod {room};")), "{room}");
    }
}

#[test]
fn http_module_has_no_domain_terms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    for path in sources(&root) {
        let text = fs::read_to_string(&path).unwrap().to_lowercase();
        let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = code.split("#[cfg(test)]").next().unwrap();
        for word in ["product", "category", "price", "username", "postgres", "redis"] {
            assert!(!code.contains(word), "{} speaks of {word}", path.display());
        }
    }
}
