//! The house rules of `ARCHITECTURE.md`, read from the source as text: which module may name which, names that are kept
//! to one place, the size of files and functions, and the opening words of a file.
//!
//! A module is a folder of `src/` or a file directly in it. An edge is a path from one module into another, outside
//! tests: what stands under `#[cfg(test)]`, and the files of a module `tests`, which must stand there. What is allowed is the table [`EDGES`]; a new edge is a new line there, with its reason, in the same commit.
//! Each check is tried in `cases` on snippets that it must flag and on ones that it must not.
mod cases;
mod scan;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

struct Edge {
    from: &'static str,
    to: &'static str,
    #[expect(dead_code, reason = "for the reader of the table")]
    why: &'static str,
}

/// In the order of the house: first who stands outside, then along the way of a value, then the leaves, which use nothing.
const EDGES: &[Edge] = &[
    Edge { from: "lib", to: ANY, why: "re-exports the public names" },
    Edge { from: "builder", to: ANY, why: "hands out the options and joins the stages" },
    Edge { from: "handle", to: "flush", why: "`flush`, `shutdown`, `render` are its requests" },
    Edge { from: "handle", to: "record", why: "`describe` hands out what the recorder was told" },
    Edge { from: "handle", to: "queue", why: "`send` puts a raw point in, `shutdown` closes it" },
    Edge { from: "handle", to: "record", why: "what was described, on request" },
    Edge { from: "handle", to: "wire", why: "`send` takes a `Point`" },
    Edge { from: "handle", to: "stats", why: "`stats` reads the counters" },
    Edge { from: "handle", to: "clock", why: "deadlines" },
    Edge { from: "handle", to: "error", why: "what its calls answer" },
    Edge { from: "flush", to: "record", why: "a snapshot reads the cells" },
    Edge { from: "flush", to: "wire", why: "a reading becomes a line" },
    Edge { from: "flush", to: "queue", why: "lines go to the writer in batches" },
    Edge { from: "flush", to: "error", why: "why a raw point was not taken" },
    Edge { from: "flush", to: "clock", why: "ticks and timestamps" },
    Edge { from: "flush", to: "stats", why: "counts points and ticks, reads all as telemetry" },
    Edge { from: "record", to: "wire", why: "the first sight of a key renders its line" },
    Edge { from: "record", to: "stats", why: "counts series, and those merged or refused" },
    Edge { from: "record", to: "sync", why: "the atomics, which loom replaces" },
    Edge { from: "send", to: "wire", why: "classes of replies" },
    Edge { from: "send", to: "queue", why: "takes batches" },
    Edge { from: "send", to: "clock", why: "tokens, deadlines, backoff" },
    Edge { from: "send", to: "stats", why: "counts what is sent, confirmed, refused" },
    Edge { from: "queue", to: "stats", why: "counts what it drops" },
    Edge {
        from: "queue",
        to: "clock",
        why: "when a batch was taken, and until when somebody waits",
    },
    Edge { from: "queue", to: "sync", why: "the lock and its condition, which loom replaces" },
    Edge { from: "testing", to: "wire", why: "points as the TSD reads them" },
];

/// No path can be called so, unlike `*`.
const ANY: &str = "(any)";

/// A name that is kept to one place, or to none.
struct Ban {
    /// `a::` bans every path that begins so; `.a` the method `a`, also called by path; anything else, the whole segments.
    name: &'static str,
    within: Within,
    except: &'static [&'static str],
    instead: &'static str,
}

enum Within {
    /// Every file of the repository, tests and examples included.
    Everywhere,
    /// `src/`, its unit tests included.
    Source,
    /// `src/` without its unit tests.
    SourceWithoutTests,
    /// These modules, without their unit tests.
    Modules(&'static [&'static str]),
}

const BANS: &[Ban] = &[
    Ban { name: "std::net", ..NET },
    Ban { name: "core::net", ..NET },
    Ban {
        name: "metrics::",
        within: Within::Modules(&["send", "queue", "wire"]),
        except: &[],
        instead: "the facade ends at `record`; behind it there are only lines",
    },
    Ban {
        name: "SystemTime",
        within: Within::SourceWithoutTests,
        except: &["clock"],
        instead: "take the time from a `Clock`, which a test can set",
    },
    Ban {
        name: "thread::sleep",
        within: Within::Everywhere,
        except: &[],
        instead: "wait on a channel with a deadline, so that a stop wakes it",
    },
    Ban {
        name: "hostname::",
        within: Within::SourceWithoutTests,
        except: &["host"],
        instead: "ask `host`, which asks the system once",
    },
    Ban { name: "println!", ..PRINT },
    Ban { name: "eprintln!", ..PRINT },
    Ban { name: "print!", ..PRINT },
    Ban { name: "eprint!", ..PRINT },
    Ban { name: "dbg!", ..PRINT },
    Ban { name: ".unwrap", ..PANIC },
    Ban { name: ".expect", ..PANIC },
    Ban { name: "panic!", ..PANIC },
    Ban { name: "todo!", ..PANIC },
    Ban { name: "unimplemented!", ..PANIC },
];

const NET: Ban = Ban {
    name: "",
    within: Within::SourceWithoutTests,
    except: &["send", "builder", "testing"],
    instead: "only `send` opens sockets; hand over an address as text",
};

const PRINT: Ban = Ban {
    name: "",
    within: Within::Source,
    except: &[],
    instead: "the library prints nothing: count it in `Stats`, or log the change of state with `tracing`",
};

const PANIC: Ban = Ban {
    name: "",
    within: Within::SourceWithoutTests,
    except: &["testing"],
    instead: "a metric must not end its application: return an error, or count and go on",
};

/// Drawers: a type lives in the stage that acts on it.
const DRAWERS: &[&str] = &["common", "util", "utils", "types", "helpers", "misc"];
/// The module of a file's or a folder's tests.
const TESTS: &str = "tests";
const FILE_LINES: usize = 350;
const FUNCTION_LINES: usize = 60;
const FORBID_UNSAFE: &str = "#![forbid(unsafe_code)]";

/// A rule broken, and what to do about it.
struct Fault<'a> {
    file: &'a str,
    line: usize,
    what: String,
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// A file, its path from the root of the repository, and its text in the reductions that the checks ask for.
struct Source<'a> {
    file: &'a str,
    text: &'a str,
    code: String,
    without_tests: String,
    /// The folders and the file below `src/`, without `mod` and `.rs`; empty for a file elsewhere.
    modules: Vec<&'a str>,
}

impl<'a> Source<'a> {
    fn new(file: &'a str, text: &'a str) -> Self {
        let code = scan::code(text);
        let below_src = file.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs"));
        let path = below_src.into_iter().flat_map(|path| path.split('/'));
        let modules: Vec<_> = path.filter(|name| *name != "mod").collect();
        let is_test = modules.contains(&TESTS);
        let without_tests = if is_test { String::new() } else { scan::without_tests(&code) };
        Source { file, text, code, without_tests, modules }
    }

    /// The module that the file belongs to; `None` outside `src/`.
    fn module(&self) -> Option<&'a str> {
        self.modules.first().copied()
    }

    fn fault(&self, line: usize, what: String) -> Fault<'a> {
        Fault { file: self.file, line, what }
    }

    fn faults(&self) -> Vec<Fault<'a>> {
        let mut faults = self.bans();
        if let Some(module) = self.module() {
            faults.extend(self.edges(module));
            faults.extend(self.shape());
            faults.extend(self.openings());
        }
        faults.sort_by_key(|fault| fault.line);
        faults
    }

    /// The modules that the file names, each with the line.
    fn targets(&self) -> Vec<(usize, String)> {
        let depth = if self.modules == ["lib"] { 0 } else { self.modules.len() };
        let paths = scan::paths(&self.without_tests);
        paths.iter().filter_map(|path| Some((path.line, target(path, depth)?))).collect()
    }

    fn edges(&self, from: &str) -> Vec<Fault<'a>> {
        let mut faults = Vec::new();
        for (line, to) in self.targets() {
            let allowed = |edge: &Edge| edge.from == from && (edge.to == ANY || edge.to == to);
            if to == from || EDGES.iter().any(allowed) {
                continue;
            }
            let what = if to == "builder" {
                format!(
                    "`{from}` imports the builder: move what it needs into `{from}`, the builder imports it from there"
                )
            } else if !is_module(&to) {
                format!(
                    "`crate::{to}` is no module of EDGES: name the item by its module, or add the module to EDGES in {}",
                    file!()
                )
            } else {
                format!(
                    "edge {from} -> {to}: add it to EDGES in {} with its reason, or move the code",
                    file!()
                )
            };
            faults.push(self.fault(line, what));
        }
        faults
    }

    fn bans(&self) -> Vec<Fault<'a>> {
        let mut faults = Vec::new();
        for ban in BANS {
            let code = match (&ban.within, self.module()) {
                (Within::Everywhere, _) | (Within::Source, Some(_)) => &self.code,
                (Within::SourceWithoutTests, Some(_)) => &self.without_tests,
                (Within::Modules(modules), Some(module)) if modules.contains(&module) => {
                    &self.without_tests
                }
                _ => continue,
            };
            if self.module().is_some_and(|module| ban.except.contains(&module)) {
                continue;
            }
            let named =
                scan::paths(code).into_iter().filter(|path| is_banned(&path.name, ban.name));
            faults
                .extend(named.map(|path| {
                    self.fault(path.line, format!("`{}`: {}", path.name, ban.instead))
                }));
        }
        faults
    }

    /// Names and sizes.
    fn shape(&self) -> Vec<Fault<'a>> {
        let mut faults = Vec::new();
        for (line, module) in scan::modules(&self.without_tests) {
            if DRAWERS.contains(&module) {
                let fix = "name it for what it does, or move its items to their stages";
                faults.push(self.fault(line, format!("a module named `{module}`: {fix}")));
            } else if module == TESTS {
                let fix =
                    "put `#[cfg(test)]` before it, since its files are exempt from these checks";
                faults.push(self.fault(line, format!("a module named `{module}`: {fix}")));
            }
        }
        let lines = self.without_tests.lines().filter(|line| !line.trim().is_empty()).count();
        if lines > FILE_LINES {
            faults.push(self.fault(
                1,
                format!("{lines} lines of code, {FILE_LINES} allowed: split it into stages"),
            ));
        }
        for function in scan::functions(&self.without_tests) {
            if function.lines > FUNCTION_LINES {
                let (name, lines) = (function.name, function.lines);
                let what = format!(
                    "`{name}` has {lines} lines, {FUNCTION_LINES} allowed: give its steps names"
                );
                faults.push(self.fault(function.line, what));
            }
        }
        faults
    }

    fn openings(&self) -> Vec<Fault<'a>> {
        let mut faults = Vec::new();
        if !self.text.starts_with("//! ") {
            faults.push(self.fault(
                1,
                "open the file with `//!`: the problem, the idea, the mechanism".to_owned(),
            ));
        }
        if self.modules == ["lib"] && !self.code.lines().any(|line| line == FORBID_UNSAFE) {
            faults.push(
                self.fault(1, format!("`{FORBID_UNSAFE}` is missing: the crate promises it")),
            );
        }
        faults
    }
}

/// The first module below the crate that `path` leads to from a file `depth` modules deep; `None` for a path that does not
/// leave that file's module.
fn target(path: &scan::Path, depth: usize) -> Option<String> {
    let mut segments = path.name.split("::").peekable();
    let mut depth = depth + path.inline_modules;
    match segments.next()? {
        "crate" => depth = 0,
        "super" => depth = depth.saturating_sub(1),
        _ => return None,
    }
    while segments.next_if_eq(&"super").is_some() {
        depth = depth.saturating_sub(1);
    }
    if depth == 0 { segments.next().map(str::to_owned) } else { None }
}

fn is_module(name: &str) -> bool {
    EDGES.iter().any(|edge| edge.from == name || edge.to == name)
}

fn is_banned(path: &str, name: &str) -> bool {
    if let Some(method) = name.strip_prefix('.') {
        path == name || path.ends_with(&format!("::{method}"))
    } else if name.ends_with("::") {
        path.starts_with(name)
    } else {
        format!("::{path}::").contains(&format!("::{name}::"))
    }
}

/// Every `.rs` file below `folder`; build output and hidden folders are left out.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Path from the root of the repository, and text, of each of its Rust files.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(root, &mut paths);
    paths.sort();
    let name = |path: &Path| {
        path.strip_prefix(root).expect("below the root").display().to_string().replace('\\', "/")
    };
    paths
        .iter()
        .map(|path| (name(path), fs::read_to_string(path).expect("a file in UTF-8")))
        .collect()
}

#[test]
fn the_source_keeps_the_rules_of_the_house() {
    let files = files();
    let faults: Vec<_> =
        files.iter().flat_map(|(file, text)| Source::new(file, text).faults()).collect();
    let report: String = faults.iter().map(|fault| format!("\n{fault}")).collect();
    assert!(faults.is_empty(), "{} of the rules in ARCHITECTURE.md broken:{report}", faults.len());
}

#[test]
fn every_folder_of_the_source_has_its_map() {
    let files = files();
    let folders: BTreeSet<_> = files
        .iter()
        .filter_map(|(file, _)| file.strip_prefix("src/")?.rsplit_once('/'))
        .map(|(folder, _)| folder)
        .collect();
    for folder in folders {
        let maps = [format!("src/{folder}/mod.rs"), format!("src/{folder}.rs")];
        let has_map = files.iter().any(|(file, _)| maps.contains(file));
        assert!(has_map, "{} is missing: a folder opens with a map of its parts", maps[0]);
    }
}

/// An edge that nobody uses invites a use that nobody has weighed.
#[test]
fn every_edge_of_the_table_is_used() {
    let files = files();
    let mut used = BTreeSet::new();
    for (file, text) in &files {
        let source = Source::new(file, text);
        if let Some(from) = source.module() {
            used.extend(source.targets().into_iter().map(|(_, to)| (from, to)));
        }
    }
    let is_unused =
        |edge: &&Edge| edge.to != ANY && !used.contains(&(edge.from, edge.to.to_owned()));
    let unused: Vec<_> = EDGES
        .iter()
        .filter(is_unused)
        .map(|Edge { from, to, .. }| format!("{from} -> {to}"))
        .collect();
    assert!(unused.is_empty(), "nothing uses these edges, take them out of EDGES: {unused:?}");
}

#[test]
fn the_edges_make_no_cycle() {
    /// A module stands one above the highest that it names; in a cycle, nothing ends the climb.
    fn height(module: &str, below: usize) -> usize {
        assert!(
            below <= EDGES.len(),
            "a cycle of modules through `{module}`: one of its edges must go"
        );
        let named = EDGES.iter().filter(|edge| edge.from == module && edge.to != ANY);
        named.map(|edge| 1 + height(edge.to, below + 1)).max().unwrap_or(0)
    }
    for edge in EDGES {
        height(edge.from, 0);
        assert!(
            edge.to != "builder" && edge.to != "lib",
            "{} -> {}: nothing may build on the builder",
            edge.from,
            edge.to
        );
    }
}
