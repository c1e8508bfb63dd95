//! The checks of `tidy`, tried on what they must flag and on what only resembles it.
use super::{FILE_LINES, FUNCTION_LINES, Source};

struct Case {
    name: &'static str,
    file: &'static str,
    text: &'static str,
    /// Each fault expected, in order: its line, and words of its message.
    faults: &'static [(usize, &'static str)],
}

const CASES: &[Case] = &[
    // Edges
    Case {
        name: "an edge of the table",
        file: "src/send/writer.rs",
        text: "//! m\nuse crate::queue::Queue;\nuse super::window::Window;\n",
        faults: &[],
    },
    Case {
        name: "an edge that the table lacks",
        file: "src/wire/line.rs",
        text: "//! m\n\nuse crate::stats::Counters;\n",
        faults: &[(3, "edge wire -> stats: add it to EDGES")],
    },
    Case {
        name: "an edge out of a file that is a module",
        file: "src/queue.rs",
        text: "//! m\nuse crate::stats::Counters;\nuse crate::wire::line;\n",
        faults: &[(3, "edge queue -> wire")],
    },
    Case {
        name: "an edge without `use`",
        file: "src/wire/line.rs",
        text: "//! m\nfn f() {\n    let now = crate::clock::now();\n}\n",
        faults: &[(3, "edge wire -> clock")],
    },
    Case {
        name: "an edge by `super`",
        file: "src/record/cache.rs",
        text: "//! m\nuse super::super::flush::Reading;\nuse super::counter::Counter;\n",
        faults: &[(2, "edge record -> flush")],
    },
    Case {
        name: "an edge by `super` from a file that is a module",
        file: "src/queue.rs",
        text: "//! m\nuse super::send::writer;\n",
        faults: &[(2, "edge queue -> send")],
    },
    Case {
        name: "an edge by `super` from a folder's map",
        file: "src/wire/mod.rs",
        text: "//! m\nuse super::stats;\nuse self::line::Line;\n",
        faults: &[(2, "edge wire -> stats")],
    },
    Case {
        name: "an inline module needs one more `super`",
        file: "src/queue.rs",
        text: "//! m\nmod a { use super::Queue; fn f() { if true {} } use super::super::send::S; }\nuse super::wire::W;\n",
        faults: &[(2, "edge queue -> send"), (3, "edge queue -> wire")],
    },
    Case {
        name: "edges in groups, over lines and with other names",
        file: "src/send/writer.rs",
        text: "//! m\nuse crate::{\n    clock::Clock as C, flush::{Flusher, Schedule},\n    record,\n};\n",
        faults: &[(3, "edge send -> flush"), (3, "edge send -> flush"), (4, "edge send -> record")],
    },
    Case {
        name: "an item by the crate's own re-export, which hides its module",
        file: "src/record/mod.rs",
        text: "//! m\nuse crate::Stats;\nuse crate::*;\n",
        faults: &[(2, "`crate::Stats` is no module"), (3, "`crate::*` is no module")],
    },
    Case {
        name: "a stage that imports the builder",
        file: "src/send/limiter.rs",
        text: "//! m\nuse crate::builder::RateLimit;\n",
        faults: &[(2, "`send` imports the builder")],
    },
    Case {
        name: "the builder and the crate's root know all",
        file: "src/builder.rs",
        text: "//! m\nuse crate::{flush, handle::Handle, host, queue, record, send, testing};\n",
        faults: &[],
    },
    Case {
        name: "a module that the table does not know",
        file: "src/metric.rs",
        text: "//! m\nuse crate::stats::Counters;\n",
        faults: &[(2, "edge metric -> stats")],
    },
    Case {
        name: "visibility is no edge",
        file: "src/wire/line.rs",
        text: "//! m\npub(crate) fn f() {}\npub(super) fn g() {}\npub(in crate::wire) fn h() {}\n",
        faults: &[],
    },
    Case {
        name: "comments, strings and characters are no code",
        file: "src/wire/line.rs",
        text: r####"//! crate::flush::A
/* crate::flush::A /* nested */ crate::flush::B */
const A: &str = "crate::flush \" crate::flush";
const B: &str = r##"crate::flush "# crate::flush"##;
const C: &[u8] = b"crate::flush";
const D: [char; 3] = ['"', '\'', '\\'];
fn f<'a>(bar: &'a str) -> &'a str { bar } // "
use crate::flush::Reading;
"####,
        faults: &[(8, "edge wire -> flush")],
    },
    // What stands under `#[cfg(test)]`
    Case {
        name: "tests may do what the code may not",
        file: "src/wire/line.rs",
        text: "//! m\n#[cfg(test)]\nuse crate::testing::FakeTsd;\n#[cfg(all(test, not(loom)))]\nmod tests {\n    use crate::flush::{A, B};\n    fn f() { g().unwrap(); panic!(); }\n}\n",
        faults: &[],
    },
    Case {
        name: "what stands behind a test is code again",
        file: "src/wire/line.rs",
        text: "//! m\n#[cfg(test)]\n#[allow(dead_code)]\nfn f<A, B>(a: [u8; 2]) -> u8 { { 1 } }\nuse crate::flush::A;\nstruct S {\n    #[cfg(test)]\n    a: u8,\n    b: crate::flush::B,\n}\n",
        faults: &[(5, "edge wire -> flush"), (9, "edge wire -> flush")],
    },
    Case {
        name: "a condition that holds without tests too",
        file: "src/wire/line.rs",
        text: "//! m\n#[cfg(any(test, feature = \"testing\"))]\nuse crate::testing::FakeTsd;\n#[cfg(not(test))]\nuse crate::flush::A;\n#[cfg(all(unix, any(test, unix)))]\nuse crate::flush::B;\n",
        faults: &[
            (3, "edge wire -> testing"),
            (5, "edge wire -> flush"),
            (7, "edge wire -> flush"),
        ],
    },
    // Names kept to one place
    Case {
        name: "the network outside its places",
        file: "src/flush/flusher.rs",
        text: "//! m\nuse std::net::TcpStream;\nuse std::{io, net::{Shutdown}};\nfn f(a: core::net::IpAddr) {}\nuse std::network;\n",
        faults: &[(2, "only `send` opens sockets"), (3, "only `send`"), (4, "only `send`")],
    },
    Case {
        name: "the network in its place",
        file: "src/send/endpoint.rs",
        text: "//! m\nuse std::net::ToSocketAddrs;\n",
        faults: &[],
    },
    Case {
        name: "the facade behind the recorder",
        file: "src/send/writer.rs",
        text: "//! m\nuse metrics::Key;\nuse metrics_util::Kind;\nfn f(metrics: &[u8]) -> usize { metrics.len() }\n",
        faults: &[(2, "the facade ends at `record`")],
    },
    Case {
        name: "the facade where it belongs",
        file: "src/record/recorder.rs",
        text: "//! m\nuse metrics::Key;\n",
        faults: &[],
    },
    Case {
        name: "the wall clock and the host's name",
        file: "src/flush/schedule.rs",
        text: "//! m\nuse std::time::{Duration, SystemTime};\nfn f() { hostname::get() }\n",
        faults: &[(2, "`Clock`"), (3, "ask `host`")],
    },
    Case {
        name: "the wall clock in its place",
        file: "src/clock.rs",
        text: "//! m\nuse std::time::SystemTime;\n",
        faults: &[],
    },
    Case {
        name: "the host's name in its place",
        file: "src/host.rs",
        text: "//! m\nuse hostname::get;\n",
        faults: &[],
    },
    Case {
        name: "sleep, in tests too",
        file: "src/queue.rs",
        text: "//! m\nfn sleep() {}\n#[cfg(test)]\nmod tests { fn f() { std::thread::sleep(d) } }\n",
        faults: &[(4, "wait on a channel")],
    },
    Case {
        name: "sleep outside the source",
        file: "examples/demo.rs",
        text: "use std::thread::{self, sleep};\nuse crate::wire;\nfn main() { f().unwrap(); println!(); thread::park(); }\n",
        faults: &[(1, "wait on a channel")],
    },
    Case {
        name: "print, in tests too",
        file: "src/queue.rs",
        text: "//! m\nfn f() { if dbg != 1 { std::println!() } }\n#[cfg(test)]\nmod tests { fn f() { dbg!(1) } }\n",
        faults: &[(2, "prints nothing"), (4, "prints nothing")],
    },
    Case {
        name: "panics",
        file: "src/queue.rs",
        text: "//! m\nfn f() {\n    a.unwrap();\n    a\n        .expect(\"b\");\n    a.map(Option::unwrap);\n    panic!();\n    todo!();\n    unimplemented!();\n}\n",
        faults: &[(3, "return an error"), (5, ""), (6, ""), (7, ""), (8, ""), (9, "")],
    },
    Case {
        name: "words that only look like panics",
        file: "src/queue.rs",
        text: "//! m\n#[expect(dead_code, reason = \"r\")]\nfn f() {\n    a.unwrap_or_else(PoisonError::into_inner);\n    std::panic::catch_unwind(f);\n    let expect = unwrap(0..expect);\n}\n",
        faults: &[],
    },
    Case {
        name: "the test double may panic",
        file: "src/testing/fake.rs",
        text: "//! m\nfn f() { a.unwrap() }\n",
        faults: &[],
    },
    // Openings and names of modules
    Case {
        name: "a file without its opening",
        file: "src/stats.rs",
        text: "// m\nfn f() {}\n",
        faults: &[(1, "`//!`")],
    },
    Case {
        name: "a map without its opening",
        file: "src/send/mod.rs",
        text: "mod writer;\n//! m\n",
        faults: &[(1, "`//!`")],
    },
    Case {
        name: "the crate without its promise",
        file: "src/lib.rs",
        text: "//! m\n// #![forbid(unsafe_code)]\nmod record;\n",
        faults: &[(1, "`#![forbid(unsafe_code)]` is missing")],
    },
    Case {
        name: "the crate with its promise",
        file: "src/lib.rs",
        text: "//! m\n#![forbid(unsafe_code)]\nmod record;\npub use crate::record::Recorder;\n",
        faults: &[],
    },
    Case {
        name: "drawers",
        file: "src/wire/mod.rs",
        text: "//! m\nmod line;\nmod types;\nmod util { fn f() {} }\nfn common() {}\n",
        faults: &[(3, "a module named `types`"), (4, "a module named `util`")],
    },
    Case {
        name: "the files of a module of tests are tests",
        file: "src/wire/tests/server.rs",
        text: "//! m\nfn f() { crate::flush::g().unwrap() }\nfn h() { std::thread::sleep(d) }\n",
        faults: &[(3, "wait on a channel")],
    },
    Case {
        name: "so that module is only there in tests",
        file: "src/wire/mod.rs",
        text: "//! m\n#[cfg(test)]\nmod tests;\nmod tests;\n",
        faults: &[(4, "`#[cfg(test)]`")],
    },
];

#[test]
fn each_check_flags_what_it_must_and_nothing_else() {
    for Case { name, file, text, faults } in CASES {
        let found = Source::new(file, text).faults();
        let report: String = found.iter().map(|fault| format!("\n{fault}")).collect();
        let as_expected = |((line, words), fault): (&(usize, &str), &super::Fault<'_>)| {
            fault.line == *line && fault.what.contains(words) && fault.file == *file
        };
        assert!(
            found.len() == faults.len() && faults.iter().zip(&found).all(as_expected),
            "{name}: expected {faults:?}, found:{report}"
        );
    }
}

#[test]
fn sizes_are_counted_in_lines_of_code() {
    struct Size {
        name: &'static str,
        text: String,
        fault: Option<&'static str>,
    }
    let function = |lines: usize| {
        format!("fn f(a: [u8; 2]) -> fn(u8) {{\n{}}}\n", "    a();\n".repeat(lines - 2))
    };
    let file = |lines: usize| format!("//! m\n{}", "use std::io;\n".repeat(lines));
    let uncounted =
        "\n// comment\n/* comment\ncomment */\n#[cfg(test)]\nmod tests {\n    fn f() {}\n}\n"
            .repeat(100);
    let cases = [
        Size { name: "a function at the limit", text: function(FUNCTION_LINES), fault: None },
        Size {
            name: "a function above it",
            text: function(FUNCTION_LINES + 1),
            fault: Some("`f` has 61 lines"),
        },
        Size {
            name: "a long test",
            text: format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(FUNCTION_LINES + 1)),
            fault: None,
        },
        Size {
            name: "a trait's function before a long body",
            text: format!(
                "trait T {{\n    fn f(&self) -> [u8; 2];\n}}\nconst C: X = X {{\n{}}};\n",
                "    a: 1,\n".repeat(70)
            ),
            fault: None,
        },
        Size { name: "a file at the limit", text: file(FILE_LINES), fault: None },
        Size {
            name: "a file above it",
            text: file(FILE_LINES + 1),
            fault: Some("351 lines of code"),
        },
        Size { name: "what is not counted", text: file(FILE_LINES) + &uncounted, fault: None },
        Size {
            name: "a long string is code",
            text: format!("//! m\nconst S: &str = \"\n{}\";\n", "text\n".repeat(FILE_LINES)),
            fault: Some("352 lines of code"),
        },
    ];
    for Size { name, text, fault } in cases {
        let found: Vec<_> = Source::new("src/stats.rs", &text)
            .shape()
            .into_iter()
            .map(|fault| fault.what)
            .collect();
        assert_eq!(found.len(), usize::from(fault.is_some()), "{name}: {found:?}");
        assert!(fault.is_none_or(|words| found[0].contains(words)), "{name}: {found:?}");
    }
}
