//! The rules of the house that clippy cannot check, read from the tokens of `src/`: which module
//! may name which, cycles of imports between files, names that are kept to one place, and the
//! length of files. What clippy can check is in `Cargo.toml`, `clippy.toml` and `src/lib.rs`.
//!
//! A module is a folder of `src/` or a file directly in it. An edge is a path from one module into
//! another, outside tests. A new edge is a new line of [`EDGES`] with its reason, in the same
//! commit.

mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Who may name whom, in the order of the house. The leaves name nothing but other leaves.
const EDGES: &[(&str, &[&str])] = &[
    // Its calls: flush and render; what was described; raw points; and what they return.
    ("handle", &["flush", "record", "queue", "wire", "stats", "clock", "error"]),
    // A snapshot reads the cells and becomes lines, which go to the writer in batches; ticks,
    // counts, and why a raw point was not taken; one log line a minute and cause.
    ("flush", &["record", "wire", "queue", "clock", "stats", "error", "log_limiter"]),
    // The first sight of a key renders its line; counts of series; the atomics, which loom
    // replaces.
    ("record", &["wire", "stats", "sync"]),
    // Takes batches, reads replies by class; deadlines and backoff; counts what it sends; one log
    // line a minute and cause.
    ("send", &["wire", "queue", "clock", "stats", "log_limiter"]),
    // Counts what it drops; the age of a batch; the lock, which loom replaces.
    ("queue", &["stats", "clock", "sync"]),
    // Atomics of 64 bits, where the target has none.
    ("stats", &["sync"]),
    // A minute has passed.
    ("log_limiter", &["clock"]),
    // Points as the server reads them; `exporter` hands out a builder without a rate limit, and a
    // `Flavor` says which server it is.
    ("testing", &["wire", "builder", "send"]),
    // Its targets: lines and replies, addresses, variables, the parser of `FakeTsd`.
    ("fuzzing", &["wire", "send", "builder", "testing"]),
];
/// `lib.rs` and the builder may name every module.
const OUTSIDE: &[&str] = &["lib", "builder"];

/// A path that only these modules may name, and why.
type Ban = (&'static str, &'static [&'static str], &'static str);
const BANS: &[Ban] = &[
    ("std::net::", &["send", "builder", "testing"], "only `send` opens sockets"),
    ("metrics::", &["lib", "builder", "handle", "record", "flush"], "the facade ends at `record`"),
    ("hostname::", &["host"], "ask `host`, which asks the system once"),
];
/// Drawers: a type lives in the stage that acts on it.
const DRAWERS: &[&str] = &["common", "util", "utils", "types", "helpers", "misc"];
const FILE_LINES: usize = 350;

/// By the path of the module, `crate::record::series`.
type Files<'a> = BTreeMap<String, File<'a>>;

struct File<'a> {
    name: &'a str,
    lines: usize,
    /// With the line of each.
    paths: Vec<(usize, String)>,
}

/// A file without its tests; `None` for a file of tests.
fn file((name, text): &(String, String)) -> Option<(String, File<'_>)> {
    let path = name.strip_prefix("src/")?.strip_suffix(".rs")?.trim_end_matches("/mod");
    let (mut paths, mut lines) = (Vec::new(), BTreeSet::new());
    scan::paths(scan::code(text.parse().expect("Rust"), &mut lines), "", &mut paths);
    let module = format!("crate::{path}").replace("::lib", "").replace('/', "::");
    let file = File { name, lines: lines.len(), paths };
    (!path.contains("/tests")).then_some((module, file))
}

/// The module of the file that `path` leads to from the file of `own`.
fn target<'f>(path: &str, own: &str, files: &'f Files<'_>) -> Option<&'f str> {
    let (first, _) = path.split_once("::")?;
    if !matches!(first, "crate" | "self" | "super") {
        files.get(&format!("{own}::{first}"))?;
    }
    let mut module: Vec<_> = own.split("::").collect();
    for segment in path.split("::") {
        match segment {
            "crate" => module.truncate(1),
            "super" => drop(module.pop()),
            "self" => {}
            child => module.push(child),
        }
    }
    while !files.contains_key(&module.join("::")) {
        module.pop()?;
    }
    files.get_key_value(&module.join("::")).map(|(module, _)| &**module)
}

type Imports<'f> = BTreeMap<&'f str, BTreeSet<&'f str>>;

/// What each file names.
fn imports<'f>(files: &'f Files<'_>) -> Imports<'f> {
    let of = |(own, file): (&'f String, &'f File<'_>)| {
        let targets = file.paths.iter().filter_map(|(_, path)| target(path, own, files));
        (&**own, targets.filter(|target| target != own).collect())
    };
    files.iter().map(of).collect()
}

/// A way from one module to another that leads through none of `seen`.
fn way(from: &str, to: &str, all: &Imports<'_>, seen: &mut BTreeSet<String>) -> Option<String> {
    let step = |next: &&str| match *next {
        next if next == to => Some(format!("{from} -> {to}")),
        next if !seen.insert(next.to_owned()) => None,
        next => way(next, to, all, seen).map(|rest| format!("{from} -> {rest}")),
    };
    all[from].iter().find_map(step)
}

/// The files that are in a cycle, each with one.
fn cycles<'f>(files: &'f Files<'_>) -> BTreeMap<&'f str, String> {
    let all = imports(files);
    let cycle = |own| Some((files[own].name, way(own, own, &all, &mut BTreeSet::new())?));
    all.keys().filter_map(|own| cycle(*own)).collect()
}

/// The module of the edge table that a file belongs to.
fn top(module: &str) -> &str {
    module.split("::").nth(1).unwrap_or("lib")
}

/// Each rule that is broken, as `file:line: what to do`.
fn faults(files: &Files<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    for (module, File { name, lines, paths }) in files {
        let from = top(module);
        let edges = EDGES.iter().find(|(module, _)| *module == from).map_or(&[][..], |(_, to)| to);
        let is_allowed = |to| from == to || OUTSIDE.contains(&from) || edges.contains(&to);
        for (line, path) in paths {
            let to = target(path, module, files).map(top).filter(|to| !is_allowed(*to));
            let edge = to.map(|to| format!("edge {from} -> {to}: move the code, or add the edge"));
            let is_banned = |ban: &&Ban| path.starts_with(ban.0) && !ban.1.contains(&from);
            let bans = BANS.iter().filter(is_banned).map(|ban| ban.2.to_owned());
            faults
                .extend(edge.into_iter().chain(bans).map(|what| format!("{name}:{line}: {what}")));
        }
        if *lines > FILE_LINES {
            faults.push(format!("{name}: {lines} lines of code, {FILE_LINES} allowed: split it"));
        }
        if module.split("::").any(|name| DRAWERS.contains(&name)) {
            faults.push(format!("{name}: name it for what it does, or move its items"));
        }
    }
    faults
}

#[test]
fn the_source_keeps_the_rules_of_the_house() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut sources, mut folders) = (Vec::new(), vec![root.join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).expect("below the root").display().to_string();
            sources.push((name.replace('\\', "/"), fs::read_to_string(path).expect("UTF-8")));
        }
    }
    let files: Files<'_> = sources.iter().filter_map(file).collect();
    let (mut faults, cycles) = (faults(&files), cycles(&files));
    faults.extend(cycles.values().map(|cycle| format!("cycle of imports: {cycle}")));
    assert!(faults.is_empty(), "{} rules broken:\n{}", faults.len(), faults.join("\n"));
}

/// A file below `src/`, what is in it, and words of its fault, if there is one.
const CASES: &str = r#"
flush/x     | use crate::record::{a, b as c};
wire/x      | use crate::{wire, record::a};                    | edge wire -> record
wire/x      | fn f() { super::super::record::a() }             | x.rs:2
wire/x      | use crate::B;                                    | edge wire -> lib
wire/x      | const C: &str = "crate::record::a"; /* crate::record */
wire/x      | mod x { use crate::record::a; }                  | edge wire -> record
wire/x      | #[cfg(test)] mod x { use crate::record::a; }
wire/x      | struct S { #[cfg(all(test, loom))] a: crate::record::A, b: i8 }
wire/x      | struct S { #[cfg(test)] a: i8, b: crate::record::A } | edge wire -> record
wire/tests  | use crate::record::a;
wire/x      | use std::{io, net::TcpStream};                   | opens sockets
wire/x      | use metrics::Key;                                | the facade
send/x      | use std::net::TcpStream; fn f() { let metrics = 1; metrics }
wire/util   | fn f() {}                                        | name it for what it does
"#;

fn sources(files: &[(&str, &str)]) -> Vec<(String, String)> {
    let map = [("lib", "pub use record::A;"), ("record/mod", ""), ("wire/mod", "")];
    let files = map.iter().chain(files);
    files.map(|(name, text)| (format!("src/{name}.rs"), format!("//! m\n{text}"))).collect()
}

#[test]
fn each_rule_flags_what_breaks_it_and_nothing_else() {
    for case in CASES.lines().skip(1) {
        let columns: Vec<_> = case.split(" | ").map(str::trim).collect();
        let sources = sources(&[(columns[0], columns[1])]);
        let found = faults(&sources.iter().filter_map(file).collect()).join("\n");
        let expected = columns.get(2).copied().unwrap_or_default();
        assert_eq!(expected.is_empty(), found.is_empty(), "{case}: {found}");
        assert!(found.contains(expected), "{case}: {found}");
    }
}

#[test]
fn a_cycle_of_files_is_found_inside_a_folder_and_through_its_map() {
    let sources = sources(&[
        ("a/mod", "mod b; mod c; mod d; mod e; fn f() { e::f() }"),
        ("a/b", "use super::c::C;"),
        ("a/c", "fn f() { crate::a::b::g::<super::d::D>() }"),
        ("a/d", "#[cfg(test)] use super::c; pub(in crate::a::c) struct D;"),
        ("a/e", "use super::F;"),
    ]);
    let files: Files<'_> = sources.iter().filter_map(file).collect();
    let found: Vec<_> = cycles(&files).into_keys().collect();
    assert_eq!(found, ["src/a/b.rs", "src/a/c.rs", "src/a/e.rs", "src/a/mod.rs"]);
}

#[test]
fn length_is_counted_in_lines_of_code() {
    let code = "//! m\n\nuse std::{\n    io};\nconst S: &str = \"\n\n\";\n";
    let uncounted = "// c\n/* a\nb */\n#[cfg(test)]\nmod t {\n}\n";
    let source = ("src/x.rs".to_owned(), format!("{code}{uncounted}"));
    assert_eq!(file(&source).map(|(_, file)| file.lines), Some(5));
}
