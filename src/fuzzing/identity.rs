use std::collections::BTreeMap;

use super::input::Input;
use super::model::{Exporter, is_line};
use crate::wire::charset::Charset;
use crate::wire::line::{Lines, TSD_LINE, Variant};
use crate::wire::series::Rules;
use crate::wire::value::Value;

fn pairs(texts: &[String]) -> Vec<(String, String)> {
    texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// An exporter as `build` lets it through: words clean, keys unique, room for a label.
fn exporter(input: &mut Input<'_>) -> Exporter {
    let flags = input.byte();
    let mut exporter = Exporter {
        is_unicode: flags & 1 != 0,
        max_tags: 1 + input.below(20),
        prefix: String::new(),
        defaults: Vec::new(),
        instance: None,
        own_tag: None,
    };
    if flags & 2 != 0 {
        exporter.prefix = format!("{}.", exporter.clean(&input.text()));
    }
    let mut defaults = BTreeMap::new();
    if flags & 4 != 0 {
        defaults.insert("host".to_owned(), exporter.clean(&input.text()));
    }
    for (key, value) in pairs(&input.texts(6)) {
        defaults.insert(exporter.key(&key), exporter.clean(&value));
    }
    exporter.defaults = defaults.into_iter().collect();
    if flags & 8 != 0 {
        exporter.instance = Some(exporter.clean(&input.text()));
    }
    exporter.own_tag = [None, Some("le"), Some("quantile"), Some("vmrange")][input.below(4)];
    let least = exporter.defaults.len() + exporter.instance.iter().count() + 1;
    exporter.max_tags = exporter.max_tags.max(least);
    exporter
}

fn rules(exporter: &Exporter) -> Rules {
    Rules {
        charset: if exporter.is_unicode { Charset::Unicode } else { Charset::Tsd },
        max_tags: exporter.max_tags,
        prefix: exporter.prefix.clone(),
        globals: exporter.defaults.clone(),
        host: None,
        instance: exporter.instance.clone(),
    }
}

fn refs(labels: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

/// A name and labels become the line that the contract has for them, and what is said of it leads
/// to the same line again.
pub fn identity(data: &[u8]) {
    let mut input = Input(data);
    let exporter = exporter(&mut input);
    let (number, name) = (input.u64(), input.text());
    let labels = pairs(&input.texts(40));
    let rules = rules(&exporter);

    let identity = rules.identify(&name, refs(&labels), exporter.own_tag);
    let (mut tags, dropped) = exporter.tags(&labels);
    assert_eq!(identity.dropped, dropped);
    let line = identity.line();
    let expected = exporter.line(&name, &tags, ("", ""));
    let found = String::from_utf8([line.line().parts().0, b"  ", line.line().parts().1].concat());
    assert_eq!(found.as_deref(), Ok(&*expected));
    assert_eq!(identity.shortest_line(), exporter.line(&name, &tags, ("1700000000", "0")).len());

    let own: Vec<_> = identity.labels().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let again = rules.identify(&identity.name, refs(&own), exporter.own_tag);
    assert_eq!(again.line().line().parts(), line.line().parts(), "its own words say as much");
    if dropped.is_empty() && tags.len() == own.len() + exporter.defaults.len() {
        let reversed: Vec<_> = own.into_iter().rev().collect();
        let turned = rules.identify(&name, refs(&reversed), exporter.own_tag);
        assert_eq!(turned.line().line().parts(), line.line().parts(), "in any order");
    }

    let mut lines = Lines::new(Vec::new(), TSD_LINE);
    lines.set_time(1_700_000_000);
    let tag = exporter.own_tag.map_or(String::new(), |key| format!("{key}=0.5"));
    let pushed = lines.push(line.line(), Variant { suffix: "", tag: &tag }, Value::from(number));
    if let Some(key) = exporter.own_tag {
        assert!(tags.insert(key.to_owned(), "0.5".to_owned()).is_none(), "{key} was kept free");
    }
    let text = Value::from(number).to_text();
    let length = exporter.line(&name, &tags, ("1700000000", &text)).len();
    assert_eq!(pushed.is_ok(), length <= TSD_LINE, "{length} bytes");
    if pushed.is_ok() && !exporter.is_unicode && !tags.is_empty() {
        let line = String::from_utf8_lossy(lines.bytes());
        assert!(is_line(lines.bytes(), exporter.max_tags), "{line:?}");
        #[cfg(feature = "testing")]
        crate::testing::parse::put(line.trim_end().as_bytes(), Some(exporter.max_tags))
            .expect(&line);
    }
}
