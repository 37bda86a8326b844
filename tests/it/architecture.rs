//! The architecture: dependencies between modules point one way, and no files import each other in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The top-level modules from the lowest layer to the highest. A module may import modules of lower layers only; modules
/// of one layer are independent of each other.
const LAYERS: &[&[&str]] = &[
    &["digest", "mac", "network", "random", "sync", "timestamps"],
    &["error"],
    &["validation"],
    &["http", "db", "redis"],
    &["versions"],
    &["cache"],
    &["limits"],
    &["auth"],
    &["config"],
    &["app"],
    &["lists"],
    &["accounts", "products", "taxonomy", "ops"],
    &["admin_page", "docs"],
    &["routes"],
    &["server"],
    &["cli"],
    &["main", "lib"],
];

fn layer(module: &str) -> usize {
    let found = LAYERS.iter().position(|modules| modules.contains(&module));
    found.unwrap_or_else(|| panic!("the module {module} has no layer: add it to LAYERS"))
}

/// The sources of a crate: the text of each file by its module path, such as `["products", "list", "query"]`.
#[derive(Default)]
struct Sources {
    files: BTreeMap<Vec<String>, String>,
}

impl Sources {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut sources = Self::default();
        for path in rust_files(&root) {
            let text = fs::read_to_string(&path).unwrap();
            sources.add(path.strip_prefix(&root).unwrap(), &text);
        }
        sources
    }

    /// Adds a file by its path below `src/`. Comments, string literals and unit tests are left out.
    fn add(&mut self, path: &Path, text: &str) {
        let mut module: Vec<String> =
            path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        module.pop_if(|last| last == "mod");
        self.files.insert(module, code_of(text));
    }

    /// Returns the module whose file defines what `path` names: re-exports are followed.
    fn defining_module(&self, path: &[String]) -> Option<Vec<String>> {
        let length = (1..=path.len()).rev().find(|&length| self.files.contains_key(&path[..length]))?;
        let (module, rest) = path.split_at(length);
        let Some(item) = rest.first() else { return Some(module.to_vec()) };
        let text = &self.files[module];
        let reexports = uses(text).into_iter().filter(|found| found.is_public);
        let reexported =
            reexports.filter_map(|found| absolute(&found.path, module)).find(|found| found.last() == Some(item));
        match reexported {
            Some(target) if target != path => self.defining_module(&target),
            _ => Some(module.to_vec()),
        }
    }

    /// Returns the modules that each module imports, by module. A re-export is not an import.
    fn imports(&self) -> BTreeMap<&[String], BTreeSet<Vec<String>>> {
        let imports = self.files.iter().map(|(module, text)| {
            let private = uses(text).into_iter().filter(|found| !found.is_public).map(|found| found.path);
            let paths = private.chain(inline_paths(text));
            let absolute = paths.filter_map(|path| absolute(&path, module));
            let targets = absolute.filter_map(|path| self.defining_module(&path)).filter(|target| target != module);
            (module.as_slice(), targets.collect())
        });
        imports.collect()
    }

    /// Returns one line for each import that does not point to a lower layer, and one for each circle of imports.
    fn violations(&self) -> Vec<String> {
        let imports = self.imports();
        let mut violations = Vec::new();
        for (module, targets) in &imports {
            for target in targets.iter().filter(|target| target[0] != module[0]) {
                if layer(&target[0]) >= layer(&module[0]) {
                    violations.push(format!("{} imports {}", module.join("::"), target.join("::")));
                }
            }
        }
        // a module that reaches itself is part of a circle
        for module in imports.keys() {
            if let Some(path) = find_cycle(module, &imports) {
                violations.push(format!("circle: {}", path.join(" -> ")));
            }
        }
        violations
    }
}

/// Returns the shortest chain of imports from a module back to itself.
fn find_cycle(start: &[String], imports: &BTreeMap<&[String], BTreeSet<Vec<String>>>) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut paths = vec![vec![start.to_vec()]];
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            let last = path.last().unwrap();
            for next in imports.get(last.as_slice()).into_iter().flatten() {
                if next == start {
                    return Some(path.iter().chain([next]).map(|module| module.join("::")).collect());
                }
                if seen.insert(next.clone()) {
                    longer.push([path.clone(), vec![next.clone()]].concat());
                }
            }
        }
        paths = longer;
    }
    None
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(rust_files(&entry.path()));
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            found.push(entry.path());
        }
    }
    found
}

/// Returns a source without its unit tests, comments and string literals.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    let code: String = lines.flat_map(|line| [line, "\n"]).collect();
    code.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// A path that a `use` item names.
struct Use {
    is_public: bool,
    path: Vec<String>,
}

/// Returns all paths of the `use` items of a source.
fn uses(text: &str) -> Vec<Use> {
    let mut found = Vec::new();
    for (start, _) in text.match_indices("use ") {
        let line = &text[text[..start].rfind('\n').map_or(0, |end| end + 1)..start];
        let visibility = line.trim();
        if !visibility.is_empty() && !visibility.starts_with("pub") {
            continue;
        }
        let tree = text[start + "use ".len()..].split(';').next().unwrap();
        for path in leaves(tree) {
            found.push(Use { is_public: !visibility.is_empty(), path });
        }
    }
    found
}

/// Returns the paths of a `use` tree such as `a::{b, c::{self, d}}`.
fn leaves(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap();
        let segments = path.split("::").map(|segment| segment.trim().to_owned());
        return vec![segments.filter(|segment| !segment.is_empty() && segment != "*").collect()];
    };
    let prefix: Vec<String> =
        prefix.split("::").map(|segment| segment.trim().to_owned()).filter(|segment| !segment.is_empty()).collect();
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut branches, mut depth) = (vec![String::new()], 0);
    for letter in inner.chars() {
        match letter {
            ',' if depth == 0 => branches.push(String::new()),
            _ => {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                branches.last_mut().unwrap().push(letter);
            }
        }
    }
    let branches = branches.iter().filter(|branch| !branch.trim().is_empty());
    let paths = branches.flat_map(|branch| leaves(branch)).map(|mut path| {
        if path == ["self"] {
            path.clear();
        }
        [prefix.clone(), path].concat()
    });
    paths.collect()
}

/// Returns the paths in code that begin with `crate::` or `super::`.
fn inline_paths(text: &str) -> Vec<Vec<String>> {
    let starts = ["crate::", "super::"].into_iter().flat_map(|start| text.match_indices(start));
    let is_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let paths = starts
        .filter(|(start, _)| !text[..*start].ends_with(is_path))
        .map(|(start, _)| text[start..].split(|letter| !is_path(letter)).next().unwrap());
    // a path that ends with `::` is the beginning of a `use` tree
    let complete = paths.filter(|path| !path.ends_with("::"));
    complete.map(|path| path.split("::").map(str::to_owned).collect()).collect()
}

/// Returns the path from the root of this crate, or nothing for a path into another crate.
fn absolute(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" | "testshop" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" => {
            let supers = path.iter().take_while(|segment| *segment == "super").count();
            Some([&module[..module.len().checked_sub(supers)?], &path[supers..]].concat())
        }
        _ => None,
    }
}

fn sources(files: &[(&str, &str)]) -> Sources {
    let mut sources = Sources::default();
    files.iter().for_each(|(path, text)| sources.add(Path::new(path), text));
    sources
}

#[test]
fn module_dependencies_are_layered() {
    let sources = Sources::read();
    let imports: usize = sources.imports().values().map(BTreeSet::len).sum();
    assert!(imports > 200, "the parser sees too few imports: {imports}");
    let violations = sources.violations();
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn planted_violations_are_found() {
    let upward = sources(&[("http/request.rs", "use crate::{cache::Cache, error::Error};"), ("cache/mod.rs", "")]);
    assert_eq!(upward.violations(), ["http::request imports cache"]);

    let inside_a_module = sources(&[
        ("http/mod.rs", "mod body;\nmod request;\npub use self::{body::Body, request::Request};\n"),
        ("http/body.rs", "use super::request::Request;"),
        ("http/request.rs", "// super::body::Body\nfn f() -> super::body::Body {}"),
    ]);
    let circle = ["http::body -> http::request -> http::body", "http::request -> http::body -> http::request"];
    assert_eq!(inside_a_module.violations(), circle.map(|path| format!("circle: {path}")));

    let through_a_re_export = sources(&[
        ("http/mod.rs", "pub use self::{body::Body, request::Request};"),
        ("http/body.rs", "use crate::http::Request;"),
        ("http/request.rs", "use super::Body;"),
    ]);
    assert_eq!(through_a_re_export.violations().len(), 2);

    let back_to_mod_rs = sources(&[
        ("cache/mod.rs", "use self::memory::MemoryCache;\npub struct Key;"),
        ("cache/memory.rs", "use super::Key;"),
    ]);
    assert_eq!(back_to_mod_rs.violations().len(), 2);

    let without_a_circle = sources(&[
        ("http/mod.rs", "pub use self::{body::Body, request::Request};"),
        ("http/body.rs", "#[cfg(test)]\nmod tests { use crate::http::Request; }"),
        ("http/request.rs", "use super::{body::{self, Body}, super::error::Error};"),
        ("error.rs", "/// \"use crate::http::Body;\""),
    ]);
    assert_eq!(without_a_circle.violations(), [""; 0]);
}

#[test]
fn lib_documents_every_module() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    for module in LAYERS.iter().copied().flatten().filter(|module| !["main", "lib"].contains(module)) {
        assert!(lib.contains(&format!("[`{module}`]")) && lib.contains(&format!("mod {module};")), "{module}");
    }
}

#[test]
fn http_module_has_no_domain_terms() {
    let sources = Sources::read();
    let http = sources.files.iter().filter(|(module, _)| module[0] == "http");
    for (module, code) in http {
        let code = code.to_lowercase();
        for word in ["product", "category", "price", "username", "postgres", "redis"] {
            assert!(!code.contains(word), "{} contains {word}", module.join("::"));
        }
    }
}
