//! A name and its labels become one identity, rendered once.
//!
//! **Problem.** A TSD tells series apart by what is on the wire. Labels in another order, or names
//! that differ only in characters that cannot be sent, are the same series there; two cells for it
//! would overwrite each other, and two values at one time make the row unreadable.
//!
//! **Idea.** The identity of a series *is* its line without time and value, made when a key is
//! first seen: clean each word, let a metric's label win over a global one and that over the host
//! tag, leave out labels beyond the limit, sort by key.
//!
//! **Mechanism.** [`Rules::identify`] gives an [`Identity`]: the clean name, and tags of which some
//! are the key's own words. Name and own words say as much as the line does, since the rest is the
//! same for all series; given as a key, they lead to the same identity again.

use std::borrow::Cow;

use super::charset::Charset;

/// The key of the tag that tells exporters on one machine apart.
const INSTANCE_KEY: &str = "instance";
/// Added to a reserved key until it is none.
const RESERVED_SUFFIX: char = '_';
/// The command that begins a line.
const PUT: &str = "put ";
/// The least that stands between a line's name and its tags.
const SHORTEST_TIME_AND_VALUE: &str = " 1700000000 0";

/// What is the same for all series of an exporter.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) charset: Charset,
    /// The most tags of a series, those of every series included, which are fewer.
    pub(crate) max_tags: usize,
    /// Before each name, clean; may be empty.
    pub(crate) prefix: String,
    /// Tags of every series unless it has its own of that key, clean, keys unique.
    pub(crate) globals: Vec<(String, String)>,
    /// The host tag, clean.
    pub(crate) host: Option<(String, String)>,
    /// The value of the instance tag, clean. A tag of a series' own with this key keeps it, and the
    /// exporter's steps aside: `instance_`. It never gives way, for without it two processes would
    /// write one series.
    pub(crate) instance: Option<String>,
}

/// A tag that the exporter adds to some lines of a series itself, as a histogram's `le`.
pub(crate) type OwnTag = Option<&'static str>;

/// What [`Rules::identify`] makes of a name and labels.
#[derive(Debug)]
pub(crate) struct Identity<'a> {
    prefix: &'a str,
    /// Clean, without the prefix.
    pub(crate) name: Cow<'a, str>,
    /// In order of their keys.
    tags: Vec<Tag<'a>>,
    /// The keys of the labels that were left out, the last label first.
    pub(crate) dropped: Vec<Cow<'a, str>>,
    /// The lengths of the line's two parts.
    lengths: (usize, usize),
}

/// A clean tag.
#[derive(Debug)]
struct Tag<'a> {
    key: Cow<'a, str>,
    value: Cow<'a, str>,
    source: Source,
}

/// Where a tag comes from, in the order in which tags stay when there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// A tag that every series has, or a label that says the same.
    Default,
    /// A label in place of a tag that every series has; it tells senders apart and never goes.
    Override,
    /// A label, and its place among the labels: the last goes first.
    Label(usize),
}

impl Rules {
    /// The identity of a name with labels. With an `own_tag`, that key is kept free for the
    /// exporter, and one tag fewer fits.
    pub(crate) fn identify<'a>(
        &'a self,
        name: &'a str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        own_tag: OwnTag,
    ) -> Identity<'a> {
        let room = labels.size_hint().0 + self.default_tags();
        let mut tags: Vec<Tag<'a>> = Vec::with_capacity(room);
        for (number, (key, value)) in labels.enumerate() {
            let (key, value) = (self.clean_key(key, own_tag), self.charset.clean(value));
            match place(&tags, &key) {
                Ok(at) => tags[at].value = value,
                Err(at) => tags.insert(at, Tag { key, value, source: Source::Label(number) }),
            }
        }
        for (key, value) in self.defaults() {
            // It is clean already, but it may be `own_tag`, and its new name another tag's.
            let key = if own_tag.is_some() { self.clean_key(key, own_tag) } else { key.into() };
            match place(&tags, &key) {
                Ok(at) if matches!(tags[at].source, Source::Label(_)) => {
                    let is_same = tags[at].value == value;
                    tags[at].source = if is_same { Source::Default } else { Source::Override };
                }
                Ok(_) => {}
                Err(at) => {
                    tags.insert(at, Tag { key, value: value.into(), source: Source::Default });
                }
            }
        }
        let dropped = self.drop_labels(&mut tags, own_tag);
        if let Some(value) = &self.instance {
            let mut key = Cow::Borrowed(INSTANCE_KEY);
            while place(&tags, &key).is_ok() {
                key.to_mut().push(RESERVED_SUFFIX);
            }
            let (Ok(at) | Err(at)) = place(&tags, &key);
            tags.insert(at, Tag { key, value: value.into(), source: Source::Default });
        }
        let (prefix, name) = (self.prefix.as_str(), self.charset.clean(name));
        let tail: usize = tags.iter().map(|tag| tag.key.len() + tag.value.len() + " =".len()).sum();
        let lengths = (PUT.len() + prefix.len() + name.len(), tail + "\n".len());
        Identity { prefix, name, tags, dropped, lengths }
    }

    /// Leaves out the last labels when there are too many tags; returns their keys.
    fn drop_labels<'a>(&self, tags: &mut Vec<Tag<'a>>, own_tag: OwnTag) -> Vec<Cow<'a, str>> {
        let kept_free = usize::from(own_tag.is_some()) + usize::from(self.instance.is_some());
        let most = self.max_tags.saturating_sub(kept_free);
        let mut dropped = Vec::new();
        for _ in most..tags.len() {
            let last = (0..tags.len()).max_by_key(|&at| tags[at].source);
            let last = last.filter(|&last| matches!(tags[last].source, Source::Label(_)));
            dropped.extend(last.map(|last| tags.remove(last).key));
        }
        dropped
    }

    /// How many tags every series has.
    pub(crate) fn default_tags(&self) -> usize {
        self.defaults().count() + usize::from(self.instance.is_some())
    }

    /// The tags of every series but for the instance tag.
    fn defaults(&self) -> impl Iterator<Item = (&str, &str)> {
        self.globals.iter().chain(&self.host).map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// A metric's name as it is sent.
    pub(crate) fn metric(&self, name: &str) -> Cow<'static, str> {
        format!("{}{}", self.prefix, self.charset.clean(name)).into()
    }

    /// The name of a line without the prefix.
    pub(crate) fn name<'a>(&self, line: Line<'a>) -> &'a str {
        let metric = line.metric();
        metric.strip_prefix(&self.prefix).unwrap_or(metric)
    }

    /// A key that can be sent, is not reserved, and is not the exporter's.
    pub(crate) fn clean_key<'a>(&self, key: &'a str, own_tag: OwnTag) -> Cow<'a, str> {
        let mut key = self.charset.clean(key);
        while is_reserved(&key) || own_tag == Some(&*key) {
            key.to_mut().push(RESERVED_SUFFIX);
        }
        key
    }
}

/// Whether some server reads a key as something else: InfluxDB drops a point with a tag `time`,
/// VictoriaMetrics takes the value of `__name__` for the metric's name, and servers with fields
/// keep the number in `value`.
fn is_reserved(key: &str) -> bool {
    matches!(key, "time" | "__name__" | "value")
}

/// Where the tag with this key is, or belongs: tags are kept in the order of their keys.
fn place(tags: &[Tag<'_>], key: &str) -> Result<usize, usize> {
    tags.binary_search_by(|tag| (*tag.key).cmp(key))
}

impl Identity<'_> {
    /// The labels that, with the name, say what the line says.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.tags.iter().filter(|tag| tag.source != Source::Default);
        own.map(|tag| (&*tag.key, &*tag.value))
    }

    /// Whether its labels are as many as these, and every word is as it was given.
    pub(crate) fn is_verbatim(&self, labels: usize) -> bool {
        let is_kept = |word: &Cow<'_, str>| matches!(word, Cow::Borrowed(_));
        let mut own = self.tags.iter().filter(|tag| tag.source != Source::Default);
        is_kept(&self.name)
            && own.clone().count() == labels
            && own.all(|tag| is_kept(&tag.key) && is_kept(&tag.value))
    }

    /// The length of the shortest line of the series.
    pub(crate) fn shortest_line(&self) -> usize {
        let (head, tail) = self.lengths;
        head + SHORTEST_TIME_AND_VALUE.len() + tail
    }

    /// The line but for time and value.
    pub(crate) fn line(&self) -> LineBuf {
        let mut bytes = Vec::with_capacity(self.size());
        self.render(&mut bytes);
        LineBuf(bytes)
    }

    /// How many bytes [`render`](Self::render) adds.
    pub(crate) fn size(&self) -> usize {
        HEADER + self.lengths.0 + self.lengths.1
    }

    /// Adds the line as it is kept, see [`Line`].
    pub(crate) fn render(&self, bytes: &mut Vec<u8>) {
        let (head, tail) = self.lengths;
        bytes.extend_from_slice(&(head as u32).to_le_bytes());
        bytes.extend_from_slice(&(tail as u32).to_le_bytes());
        bytes.extend_from_slice(PUT.as_bytes());
        bytes.extend_from_slice(self.prefix.as_bytes());
        bytes.extend_from_slice(self.name.as_bytes());
        for Tag { key, value, .. } in &self.tags {
            bytes.push(b' ');
            bytes.extend_from_slice(key.as_bytes());
            bytes.push(b'=');
            bytes.extend_from_slice(value.as_bytes());
        }
        bytes.push(b'\n');
    }
}

/// The lengths of a line's two parts, four bytes each.
const HEADER: usize = 8;
/// The longest part that [`Line::short`] gives.
pub(super) const SHORT: usize = 64;

/// The line of a series but for time and value: the head `put NAME` and the tail ` TAGS\n`, one
/// behind the other, behind the lengths of both. So it is kept, among others, and copied as it is.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    /// The line, and whatever lies behind it.
    bytes: &'a [u8],
}

/// A [`Line`] that stands alone.
#[derive(Debug)]
pub(crate) struct LineBuf(Vec<u8>);

impl LineBuf {
    pub(crate) fn line(&self) -> Line<'_> {
        Line { bytes: &self.0 }
    }
}

impl<'a> Line<'a> {
    /// The line that begins with these bytes, if there are any.
    #[inline]
    pub(crate) fn at(bytes: &'a [u8]) -> Option<Self> {
        (!bytes.is_empty()).then_some(Line { bytes })
    }

    /// The line as it is kept.
    pub(crate) fn bytes(self) -> &'a [u8] {
        let (head, tail) = self.parts();
        &self.bytes[..HEADER + head.len() + tail.len()]
    }

    /// Head and tail.
    #[inline]
    pub(crate) fn parts(self) -> (&'a [u8], &'a [u8]) {
        let Some((header, parts)) = self.bytes.split_first_chunk() else {
            return Default::default();
        };
        let (head, tail) = lengths(*header);
        let (head, rest) = parts.split_at(head);
        (head, &rest[..tail])
    }

    /// The lengths of the parts, unless one of them is longer than [`SHORT`], and the bytes from
    /// where the first begins, if there are so many.
    #[inline(always)]
    pub(super) fn short(self) -> Option<(usize, usize, &'a [u8; 2 * SHORT])> {
        let (header, parts) = self.bytes.split_first_chunk()?;
        let (head, tail) = lengths(*header);
        if head > SHORT || tail > SHORT {
            return None;
        }
        Some((head, tail, parts.first_chunk()?))
    }

    /// ` TAGS\n`.
    pub(crate) fn tail(self) -> &'a [u8] {
        self.parts().1
    }

    /// The metric's name, prefix included.
    pub(crate) fn metric(self) -> &'a str {
        as_str(self.parts().0.get(PUT.len()..).unwrap_or_default())
    }

    /// The tags, in order of their keys.
    pub(crate) fn tags(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        as_str(self.tail()).split_ascii_whitespace().filter_map(|tag| tag.split_once('='))
    }
}

#[inline(always)]
fn lengths(header: [u8; HEADER]) -> (usize, usize) {
    let [a, b, c, d, tail @ ..] = header;
    (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes(tail) as usize)
}

/// A part of a line, which was made of strings.
fn as_str(part: &[u8]) -> &str {
    std::str::from_utf8(part).unwrap_or_default()
}

#[cfg(test)]
impl Line<'_> {
    pub(crate) fn text(self) -> String {
        as_str(&self.bytes()[HEADER..]).to_owned()
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
            instance: None,
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
            instance: None,
        }
    }

    struct Case {
        name: &'static str,
        labels: &'static [(&'static str, &'static str)],
        max_tags: usize,
        line: &'static str,
        /// The labels that say what the line says.
        own: &'static str,
    }

    const fn case(
        labels: &'static [(&'static str, &'static str)],
        line: &'static str,
        own: &'static str,
    ) -> Case {
        Case { name: "m", labels, max_tags: 8, line, own }
    }

    const CASES: &[Case] = &[
        case(&[], "put m dc=fra env=prod host=a\n", ""),
        case(&[("z", "1"), ("b", "2")], "put m b=2 dc=fra env=prod host=a z=1\n", "b=2 z=1"),
        // A metric's label wins over a global one and over the host tag.
        case(&[("host", "b"), ("dc", "ams")], "put m dc=ams env=prod host=b\n", "dc=ams host=b"),
        case(&[("host", "a")], "put m dc=fra env=prod host=a\n", ""),
        // Of two labels with one key the later wins.
        case(&[("k", "1"), ("k", "2")], "put m dc=fra env=prod host=a k=2\n", "k=2"),
        case(&[("a b", ""), ("a_b", "x y")], "put m a_b=x_y dc=fra env=prod host=a\n", "a_b=x_y"),
        case(
            &[("time", "1"), ("__name__", "2"), ("value", "3")],
            "put m __name___=2 dc=fra env=prod host=a time_=1 value_=3\n",
            "__name___=2 time_=1 value_=3",
        ),
        case(
            &[("value", "1"), ("value_", "2")],
            "put m dc=fra env=prod host=a value_=2\n",
            "value_=2",
        ),
        Case { name: "a b", ..case(&[], "put a_b dc=fra env=prod host=a\n", "") },
        Case { name: "", ..case(&[], "put _ dc=fra env=prod host=a\n", "") },
        // Over the limit labels go from the last, and those that every series has stay.
        Case {
            max_tags: 4,
            ..case(
                &[("k", "1"), ("b", "2"), ("c", "3")],
                "put m dc=fra env=prod host=a k=1\n",
                "k=1",
            )
        },
        Case {
            max_tags: 4,
            ..case(
                &[("k", "1"), ("host", "b"), ("c", "3"), ("dc", "ams")],
                "put m dc=ams env=prod host=b k=1\n",
                "dc=ams host=b k=1",
            )
        },
        Case { max_tags: 3, ..case(&[("k", "1")], "put m dc=fra env=prod host=a\n", "") },
    ];

    fn own(identity: &Identity<'_>) -> String {
        let own: Vec<_> = identity.labels().map(|(key, value)| format!("{key}={value}")).collect();
        own.join(" ")
    }

    #[test]
    fn a_key_becomes_one_line() {
        for case in CASES {
            let rules = rules(case.max_tags);
            let identity = rules.identify(case.name, case.labels.iter().copied(), None);
            let found = (identity.line().line().text(), own(&identity));
            assert_eq!(found, (case.line.into(), case.own.into()), "{:?}", case.labels);
            let line = identity.line().line().text().len() + " 1700000000 0".len();
            assert_eq!(identity.shortest_line(), line);
        }
    }

    #[test]
    fn a_prefix_stands_before_the_name_everywhere() {
        let rules = Rules { prefix: "app.".into(), ..rules(8) };
        let identity = rules.identify("a b", std::iter::empty(), None);
        let line = identity.line();
        assert_eq!(line.line().text(), "put app.a_b dc=fra env=prod host=a\n");
        assert_eq!((line.line().metric(), &*rules.metric("a b")), ("app.a_b", "app.a_b"));
        assert_eq!(identity.shortest_line(), line.line().text().len() + " 1700000000 0".len());
    }

    #[test]
    fn what_is_cleaned_or_left_out_is_not_verbatim() {
        for (name, labels, expected) in [
            ("m", &[("k", "1")][..], true),
            ("m n", &[("k", "1")], false),
            ("m", &[("k l", "1")], false),
            ("m", &[("k", "1 2")], false),
            ("m", &[("k", "1"), ("l", "2")], false),
        ] {
            let rules = rules(4);
            let identity = rules.identify(name, labels.iter().copied(), None);
            assert_eq!(identity.is_verbatim(labels.len()), expected, "{name} {labels:?}");
        }
    }

    #[test]
    fn what_is_left_out_is_named() {
        let labels = [("k", "1"), ("b c", "2"), ("d", "3")];
        let rules = rules(4);
        let identity = rules.identify("m", labels.into_iter(), None);
        assert_eq!(identity.dropped, ["d", "b_c"]);
    }

    #[test]
    fn the_exporters_own_tag_is_kept_free() {
        let rules = rules(8);
        let identity = rules.identify("m", [("le", "1")].into_iter(), Some("le"));
        assert_eq!(identity.line().line().text(), "put m dc=fra env=prod host=a le_=1\n");
        let many = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|key| (key, "1"));
        let identity = rules.identify("m", many.into_iter(), Some("le"));
        assert_eq!(identity.line().line().tags().count(), 7);
    }

    /// Found by fuzzing: a TSD refuses each line with `duplicate tag`.
    #[test]
    fn two_global_labels_of_one_key_beside_the_exporters_own_are_one_tag() {
        let globals = [("le", "x"), ("le_", "y")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let rules = Rules { globals: globals.into(), ..rules(8) };
        for (labels, line) in
            [(&[][..], "put m host=a le_=x\n"), (&[("le_", "y")], "put m host=a le_=y\n")]
        {
            let identity = rules.identify("m", labels.iter().copied(), Some("le"));
            assert_eq!(identity.line().line().text(), line);
            let again = rules.identify("m", identity.labels(), Some("le"));
            assert_eq!(again.line().line().text(), line, "its own words say as much");
        }
    }

    #[test]
    fn the_exporters_own_tag_is_kept_free_of_global_labels_too() {
        let rules = Rules { globals: vec![("le".into(), "x".into())], ..rules(8) };
        for (labels, line, words) in [
            (&[][..], "put m host=a le_=x\n", ""),
            (&[("le", "x")], "put m host=a le_=x\n", ""),
            (&[("le", "1")], "put m host=a le_=1\n", "le_=1"),
        ] {
            let identity = rules.identify("m", labels.iter().copied(), Some("le"));
            assert_eq!(
                (identity.line().line().text(), own(&identity)),
                (line.into(), words.into())
            );
        }
    }

    /// A query for the label's own key finds what it would without other processes, and still no
    /// two of them write one series.
    #[test]
    fn the_instance_tag_steps_aside_for_a_label_and_never_goes() {
        let rules = Rules { instance: Some("2".into()), ..rules(5) };
        assert_eq!(rules.default_tags(), 4);
        for (labels, line, words) in [
            (&[][..], "put m dc=fra env=prod host=a instance=2\n", ""),
            (
                &[("instance", "x")],
                "put m dc=fra env=prod host=a instance=x instance_=2\n",
                "instance=x",
            ),
            (
                &[("k", "1"), ("instance", "x")],
                "put m dc=fra env=prod host=a instance=2 k=1\n",
                "k=1",
            ),
            (
                &[("instance_", "x")],
                "put m dc=fra env=prod host=a instance=2 instance_=x\n",
                "instance_=x",
            ),
        ] {
            let identity = rules.identify("m", labels.iter().copied(), None);
            let found = (identity.line().line().text(), own(&identity));
            assert_eq!(found, (line.into(), words.into()), "{labels:?}");
        }
        let globals = vec![("instance".into(), "w1".into())];
        let rules = Rules { globals, ..rules };
        let text = rules.identify("m", [("k", "1")].into_iter(), None).line().line().text();
        assert_eq!(text, "put m host=a instance=w1 instance_=2 k=1\n");
    }

    proptest! {
        #[test]
        fn any_key_gives_one_valid_line_and_its_own_words_give_the_same(
            name in ".{0,12}",
            labels in proptest::collection::vec(("[a-d =\n]{0,2}|host|dc|instance_?", "[a-c\u{e9} ]{0,2}|fra"), 0..12),
            max_tags in 3usize..10,
            has_instance: bool,
        ) {
            let instance = (has_instance && max_tags > 3).then(|| "2".to_owned());
            let rules = Rules { instance, ..rules(max_tags) };
            let labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let identity = rules.identify(&name, labels.clone(), None);
            if identity.is_verbatim(labels.len()) {
                prop_assert_eq!(&*identity.name, &*name);
                let sorted = |labels: Vec<_>| std::collections::BTreeSet::from_iter(labels);
                let own = sorted(identity.labels().collect());
                prop_assert_eq!(own, sorted(labels.collect()));
            }
            let line = identity.line().line().text();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(line.ends_with('\n'));
            let words: Vec<_> = line.trim_end().split(' ').collect();
            prop_assert_eq!(words[0], "put");
            prop_assert!(Charset::Tsd.is_clean(words[1]));
            let tags: Vec<_> = words[2..].iter().map(|word| word.split_once('=').unwrap()).collect();
            prop_assert!((3..=max_tags).contains(&tags.len()));
            prop_assert!(["dc", "env", "host"].iter().all(|key| tags.iter().any(|tag| tag.0 == *key)));
            prop_assert!(tags.windows(2).all(|pair| pair[0].0 < pair[1].0));
            prop_assert!(tags.iter().all(|(key, value)| Charset::Tsd.is_clean(key) && Charset::Tsd.is_clean(value)));
            let again = rules.identify(&identity.name, identity.labels(), None);
            prop_assert_eq!(again.line().line().text(), line);
            prop_assert!(again.labels().eq(identity.labels()) && again.dropped.is_empty());
        }
    }
}
