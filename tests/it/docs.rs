//! The tables of the documentation name what there is.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands in `text` between `start` and the next `end`, each time.
fn between<'a>(text: &'a str, start: &'a str, end: char) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).filter_map(move |rest| rest.split(end).next())
}

/// The source of all setters.
fn setters() -> String {
    read("src/builder.rs") + &read("src/builder/http.rs")
}

#[test]
fn every_setter_is_in_the_table_of_settings() {
    let (builder, docs) = (setters(), read("src/lib.rs"));
    let setters: Vec<_> = between(&builder, "    pub fn ", '(')
        .filter(|name| ["new", "build", "install"].iter().all(|other| name != other))
        .collect();
    assert!(setters.len() > 20, "{setters:?}");
    for setter in setters {
        assert!(docs.contains(&format!("OpenTsdbBuilder::{setter})")), "{setter}");
    }
}

#[test]
fn every_option_has_a_variable_or_needs_more_than_a_text() {
    let (builder, variables) = (setters(), read("docs/environment.md"));
    // One at a time, or for some metrics only.
    let in_code_alone = ["add_endpoint", "add_global_label", "with_tls_config"];
    for setter in between(&builder, "    pub fn ", '(') {
        let option = setter.trim_start_matches("with_").trim_start_matches("set_");
        let is_option = option != setter || setter == "idle_timeout";
        if is_option && !setter.ends_with("_for_metric") && !in_code_alone.contains(&setter) {
            // One that is made of several, each with a variable.
            let option = if option == "spool" { "spool_dir" } else { option };
            let variable = format!("`OPENTSDB_{}`", option.to_uppercase());
            assert!(variables.contains(&variable), "{setter}: {variable}");
        }
    }
}

#[test]
fn every_name_of_the_telemetry_is_in_its_table() {
    let (telemetry, docs) = (read("src/flush/telemetry.rs"), read("src/lib.rs"));
    let names: Vec<_> = between(&telemetry, "    (\"", '"').collect();
    assert!(names.len() > 12, "{names:?}");
    for name in names {
        assert!(docs.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn every_counter_of_stats_can_be_found_in_a_chapter() {
    let stats = read("src/stats.rs");
    let start = stats.find("Stats = Counters {").expect("the list");
    let fields = &stats[start..start + stats[start..].find("\n    }").expect("its end")];
    let book: String = ["delivery", "identity", "spool", "timestamps", "troubleshooting"]
        .map(|chapter| read(&format!("docs/guide/{chapter}.md")))
        .concat()
        + &read("src/lib.rs");
    let fields = fields.lines().skip(1).map(str::trim).filter(|line| !line.starts_with("//"));
    for field in fields.filter_map(|line| Some(line.split_once(": ")?.0)) {
        let as_sent = field.replace('_', ".");
        assert!(book.contains(field) || book.contains(&format!("`{as_sent}`")), "{field}");
    }
}

#[test]
fn the_readme_fits() {
    assert!(read("README.md").lines().count() <= 200);
}
