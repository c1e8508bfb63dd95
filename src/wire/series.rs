//! A name and its labels become one identity, rendered once.
//!
//! **Problem.** A TSD tells series apart by what is on the wire. Labels in another order, or names that differ only in characters
//! that may not be sent, are the same series there; two cells for it would overwrite each other, and two different values at one
//! time make the row unreadable.
//!
//! **Idea.** The identity of a series *is* its rendered line without time and value. It is made when a key is first seen: clean
//! each word, let a metric's label win over a global one and that over the host tag, leave out tags beyond the limit, sort by key.
//!
//! **Mechanism.** [`Rules::identify`] renders a [`LineBuf`]. A key that says in its own words what the line says, no more and no less, is
//! *plain*. For any other key the identity carries its canonical words, which a registry goes by in place of the key's.

use super::charset::Charset;
use super::kept::{LineBuf, PUT};

/// Keys that some server reads as something else: InfluxDB drops a point with a tag `time`, VictoriaMetrics renames the metric to
/// the value of `__name__`, and `value` is the field that servers with fields store the number in.
const RESERVED_KEYS: [&str; 3] = ["time", "__name__", "value"];
/// Added to a reserved key until it is none.
const RESERVED_SUFFIX: char = '_';

/// What is the same for all series of an exporter.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) charset: Charset,
    /// The most tags of a series, host tag included; at least 1.
    pub(crate) max_tags: usize,
    /// Before each name, clean; may be empty.
    pub(crate) prefix: String,
    /// Tags of every series unless it has its own of that key, clean, keys unique; in order of importance.
    pub(crate) globals: Vec<(String, String)>,
    /// The host tag, clean; comes after the globals.
    pub(crate) host: Option<(String, String)>,
}

/// A tag that the exporter adds to some lines of a series itself, as a histogram's `le`.
pub(crate) type OwnTag = Option<&'static str>;

/// What [`Rules::identify`] makes of a key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) line: LineBuf,
    /// The clean name and own tags, when they are not the key's own words; `None` for a plain key.
    pub(crate) canonical: Option<(String, Vec<(String, String)>)>,
    /// How many tags were left out.
    pub(crate) dropped_tags: usize,
}

/// A tag while an identity is made.
struct Tag {
    key: String,
    value: String,
    /// Whether every series has it that says nothing else.
    is_default: bool,
}

impl Rules {
    /// The identity of a name with labels. `own_tag` is kept free for the exporter, and one tag fewer is let through.
    pub(crate) fn identify<'a>(
        &self,
        name: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        own_tag: OwnTag,
    ) -> Identity {
        let mut plain = self.charset.is_clean(name);
        let mut own: Vec<Tag> = Vec::new();
        for (raw_key, raw_value) in labels {
            let key = self.clean_key(raw_key, own_tag);
            let value = self.charset.clean(raw_value).into_owned();
            plain &= key == raw_key && value == raw_value;
            match own.iter_mut().find(|tag| tag.key == key) {
                Some(tag) => (tag.value, plain) = (value, false),
                None => own.push(Tag { key, value, is_default: false }),
            }
        }
        let mut defaults: Vec<Tag> = Vec::new();
        for (key, value) in self.globals.iter().chain(&self.host) {
            // Clean already, but this may be the one metric whose own tag it is.
            let key = self.clean_key(key, own_tag);
            match own.iter_mut().find(|tag| tag.key == key) {
                Some(tag) => tag.is_default = tag.value == *value,
                None => defaults.push(Tag { key, value: value.clone(), is_default: true }),
            }
        }
        plain &= !own.iter().any(|tag| tag.is_default);
        let dropped_tags = self.limit(&mut own, &mut defaults, own_tag);
        let mut tags = own;
        tags.append(&mut defaults);
        tags.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let name = self.charset.clean(name);
        let line = self.render(&name, &tags);
        tags.retain(|tag| !tag.is_default);
        let is_plain = plain && dropped_tags == 0;
        let canonical = (!is_plain).then(|| {
            (name.into_owned(), tags.into_iter().map(|tag| (tag.key, tag.value)).collect())
        });
        Identity { line, canonical, dropped_tags }
    }

    /// Leaves out tags beyond the limit: global ones first, then the host's, then the metric's own from the last.
    fn limit(&self, own: &mut Vec<Tag>, defaults: &mut Vec<Tag>, own_tag: OwnTag) -> usize {
        let most = self.max_tags.saturating_sub(usize::from(own_tag.is_some())).max(1);
        let excess = (own.len() + defaults.len()).saturating_sub(most);
        for _ in 0..excess {
            let is_host = |tag: &Tag| self.host.as_ref().is_some_and(|(key, _)| *key == tag.key);
            if let Some(last_global) = defaults.iter().rposition(|tag| !is_host(tag)) {
                defaults.remove(last_global);
            } else if defaults.pop().is_none() {
                own.pop();
            }
        }
        excess
    }

    /// Whether every series has this tag that says nothing else.
    pub(crate) fn is_default(&self, key: &str, value: &str) -> bool {
        self.globals
            .iter()
            .chain(&self.host)
            .any(|(known, default)| known == key && default == value)
    }

    /// A key that can be sent, is not reserved, and is not the exporter's.
    pub(crate) fn clean_key(&self, key: &str, own_tag: OwnTag) -> String {
        let mut key = self.charset.clean(key).into_owned();
        while RESERVED_KEYS.contains(&key.as_str()) || own_tag == Some(key.as_str()) {
            key.push(RESERVED_SUFFIX);
        }
        key
    }

    fn render(&self, name: &str, tags: &[Tag]) -> LineBuf {
        let mut tail = String::new();
        for tag in tags {
            tail.extend([" ", &tag.key, "=", &tag.value]);
        }
        tail.push('\n');
        LineBuf::new(&[PUT, &self.prefix, name].concat(), &tail)
    }
}

#[cfg(test)]
impl Rules {
    /// For tests that have other things in mind: a TSD's rules, and the one tag `host=a`.
    pub(crate) fn of_a_test() -> Self {
        Rules {
            charset: Charset::Tsd,
            max_tags: 8,
            prefix: String::new(),
            globals: Vec::new(),
            host: Some(("host".into(), "a".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(max_tags: usize) -> Rules {
        Rules {
            charset: Charset::Tsd,
            max_tags,
            prefix: String::new(),
            globals: vec![("dc".into(), "fra".into()), ("env".into(), "prod".into())],
            host: Some(("host".into(), "a".into())),
        }
    }

    fn identify(rules: &Rules, name: &str, labels: &[(&str, &str)]) -> Identity {
        rules.identify(name, labels.iter().copied(), None)
    }

    struct Case {
        name: &'static str,
        labels: &'static [(&'static str, &'static str)],
        max_tags: usize,
        line: &'static str,
        plain: bool,
    }

    const CASES: &[Case] = &[
        Case {
            name: "m",
            labels: &[],
            max_tags: 8,
            line: "put m dc=fra env=prod host=a\n",
            plain: true,
        },
        Case {
            name: "m",
            labels: &[("z", "1"), ("b", "2")],
            max_tags: 8,
            line: "put m b=2 dc=fra env=prod host=a z=1\n",
            plain: true,
        },
        // A metric's label wins over a global one and over the host tag.
        Case {
            name: "m",
            labels: &[("host", "b"), ("dc", "ams")],
            max_tags: 8,
            line: "put m dc=ams env=prod host=b\n",
            plain: true,
        },
        Case {
            name: "m",
            labels: &[("host", "a")],
            max_tags: 8,
            line: "put m dc=fra env=prod host=a\n",
            plain: false,
        },
        // Unclean words.
        Case {
            name: "a b",
            labels: &[],
            max_tags: 8,
            line: "put a_b dc=fra env=prod host=a\n",
            plain: false,
        },
        Case {
            name: "",
            labels: &[("", "")],
            max_tags: 8,
            line: "put _ _=_ dc=fra env=prod host=a\n",
            plain: false,
        },
        Case {
            name: "m",
            labels: &[("k", "1 x=2\nput y")],
            max_tags: 8,
            line: "put m dc=fra env=prod host=a k=1_x_2_put_y\n",
            plain: false,
        },
        // Two labels that become one key: the later wins, as with two labels of one key.
        Case {
            name: "m",
            labels: &[("a b", "1"), ("a_b", "2")],
            max_tags: 8,
            line: "put m a_b=2 dc=fra env=prod host=a\n",
            plain: false,
        },
        Case {
            name: "m",
            labels: &[("k", "1"), ("k", "1")],
            max_tags: 8,
            line: "put m dc=fra env=prod host=a k=1\n",
            plain: false,
        },
        // Reserved keys.
        Case {
            name: "m",
            labels: &[("time", "1")],
            max_tags: 8,
            line: "put m dc=fra env=prod host=a time_=1\n",
            plain: false,
        },
        Case {
            name: "m",
            labels: &[("value", "1"), ("value_", "2")],
            max_tags: 8,
            line: "put m dc=fra env=prod host=a value_=2\n",
            plain: false,
        },
        // Over the limit: globals from the last, then the host, then own labels from the last.
        Case {
            name: "m",
            labels: &[("k", "1")],
            max_tags: 3,
            line: "put m dc=fra host=a k=1\n",
            plain: false,
        },
        Case {
            name: "m",
            labels: &[("k", "1")],
            max_tags: 2,
            line: "put m host=a k=1\n",
            plain: false,
        },
        Case { name: "m", labels: &[("k", "1")], max_tags: 1, line: "put m k=1\n", plain: false },
        Case {
            name: "m",
            labels: &[("k", "1"), ("b", "2"), ("c", "3")],
            max_tags: 2,
            line: "put m b=2 k=1\n",
            plain: false,
        },
    ];

    #[test]
    fn a_key_becomes_one_line() {
        for case in CASES {
            let identity = identify(&rules(case.max_tags), case.name, case.labels);
            assert_eq!(identity.line.line().text(), case.line, "{:?} {:?}", case.name, case.labels);
            assert_eq!(
                identity.canonical.is_none(),
                case.plain,
                "{:?} {:?}",
                case.name,
                case.labels
            );
        }
    }

    #[test]
    fn labels_in_another_order_are_the_same_series() {
        let one = identify(&rules(8), "m", &[("a", "1"), ("b", "2")]);
        let other = identify(&rules(8), "m", &[("b", "2"), ("a", "1")]);
        assert!(one.line.line().is_same_series(other.line.line()));
    }

    #[test]
    fn the_exporters_own_tag_is_kept_free() {
        let rules = rules(8);
        let labels = [("le", "1")];
        let identity = rules.identify("m", labels.into_iter(), Some("le"));
        assert_eq!(identity.line.line().text(), "put m dc=fra env=prod host=a le_=1\n");
        let many: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|key| (key, "1")).into();
        assert_eq!(rules.identify("m", many.into_iter(), Some("le")).line.line().tags().count(), 7);
    }

    #[test]
    fn the_exporters_own_tag_is_kept_free_of_global_labels_too() {
        let rules = Rules { globals: vec![("le".into(), "x".into())], ..rules(8) };
        for (labels, expected) in [
            (&[][..], "put m host=a le_=x\n"),
            (&[("le", "x")], "put m host=a le_=x\n"),
            (&[("le", "1")], "put m host=a le_=1\n"),
        ] {
            let identity = rules.identify("m", labels.iter().copied(), Some("le"));
            assert_eq!(identity.line.line().text(), expected, "{labels:?}");
            assert_eq!(identity.canonical.is_none(), labels.is_empty(), "{labels:?}");
        }
    }

    proptest! {
        #[test]
        fn any_key_gives_one_valid_line_and_its_canonical_words_give_the_same(
            name in ".{0,12}",
            labels in proptest::collection::vec(("[a-d =\n]{0,2}", "[a-c\u{e9} ]{0,2}"), 0..12),
            max_tags in 1usize..10,
        ) {
            let rules = rules(max_tags);
            let labels: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let identity = identify(&rules, &name, &labels);
            let line = identity.line.line().text();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(line.ends_with('\n'));
            let words: Vec<_> = line.trim_end().split(' ').collect();
            prop_assert_eq!(words[0], "put");
            prop_assert!(Charset::Tsd.is_clean(words[1]));
            let tags: Vec<_> = words[2..].iter().map(|word| word.split_once('=').unwrap()).collect();
            prop_assert!((1..=max_tags).contains(&tags.len()));
            prop_assert!(tags.windows(2).all(|pair| pair[0].0 < pair[1].0));
            prop_assert!(tags.iter().all(|(key, value)| Charset::Tsd.is_clean(key) && Charset::Tsd.is_clean(value)));
            if let (Some((name, own)), 0) = (&identity.canonical, identity.dropped_tags) {
                let own: Vec<_> = own.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                prop_assert!(identify(&rules, name, &own).line.line().is_same_series(identity.line.line()));
            }
        }
    }
}
