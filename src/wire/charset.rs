//! Which characters a name, a tag's key or a tag's value may have.
//!
//! This is a rule of security too: a label value with a line feed, sent as it is, would let whoever
//! chose it run any command on the server, and `diediedie` stops a TSD. So everything that ends a
//! word or a line is replaced under every charset.

use std::borrow::Cow;

/// What stands for a character that may not be sent, and for a word that would be empty.
const SUBSTITUTE: char = '_';

/// The bytes that stay as they are under every charset.
const CLEAN: [bool; 256] = {
    let (mut clean, mut byte) = ([false; 256], 0u8);
    while byte < 128 {
        clean[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'-');
        byte += 1;
    }
    clean
};

/// The characters that stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charset {
    /// `[A-Za-z0-9._/-]`: what every server takes, and all that a TSD takes by default.
    Tsd,
    /// Any printable character but space, `=`, quotes and the backslash, for servers that take
    /// Unicode.
    Unicode,
}

impl Charset {
    /// Whether `c` may be sent.
    pub(crate) fn allows(self, c: char) -> bool {
        match self {
            Charset::Tsd => u8::try_from(c).is_ok_and(|byte| CLEAN[usize::from(byte)]),
            Charset::Unicode => {
                !c.is_whitespace() && !c.is_control() && !matches!(c, '=' | '"' | '\'' | '\\')
            }
        }
    }

    /// Whether `word` can be sent as it is.
    pub(crate) fn is_clean(self, word: &str) -> bool {
        // Without an early end: nearly every word is clean.
        let are_clean = word.bytes().fold(true, |clean, byte| clean & CLEAN[usize::from(byte)]);
        !word.is_empty() && (are_clean || word.chars().all(|c| self.allows(c)))
    }

    /// The word with `_` for each character that may not be sent; `_` when it is empty.
    #[inline]
    pub(crate) fn clean(self, word: &str) -> Cow<'_, str> {
        if self.is_clean(word) { Cow::Borrowed(word) } else { Cow::Owned(self.substitute(word)) }
    }

    #[cold]
    fn substitute(self, word: &str) -> String {
        if word.is_empty() {
            return SUBSTITUTE.into();
        }
        word.chars().map(|c| if self.allows(c) { c } else { SUBSTITUTE }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        word: &'static str,
        tsd: &'static str,
        unicode: &'static str,
    }

    const CASES: &[Case] = &[
        Case { word: "a.b_c/d-9", tsd: "a.b_c/d-9", unicode: "a.b_c/d-9" },
        Case { word: "", tsd: "_", unicode: "_" },
        Case { word: "a b", tsd: "a_b", unicode: "a_b" },
        Case { word: "a=b", tsd: "a_b", unicode: "a_b" },
        Case { word: "x\ndiediedie\n", tsd: "x_diediedie_", unicode: "x_diediedie_" },
        Case { word: "x\r\0\t", tsd: "x___", unicode: "x___" },
        Case { word: "größe", tsd: "gr__e", unicode: "größe" },
        Case { word: "東京", tsd: "__", unicode: "東京" },
        Case { word: "a:b", tsd: "a_b", unicode: "a:b" },
        Case { word: "a\u{2028}b\u{a0}c\u{85}d", tsd: "a_b_c_d", unicode: "a_b_c_d" },
        Case { word: "say \"hi\"\\", tsd: "say__hi__", unicode: "say__hi__" },
    ];

    #[test]
    fn each_forbidden_character_becomes_one_underscore() {
        for case in CASES {
            for (charset, expected) in [(Charset::Tsd, case.tsd), (Charset::Unicode, case.unicode)]
            {
                assert_eq!(charset.clean(case.word), expected, "{charset:?} of {:?}", case.word);
                assert!(
                    charset.is_clean(&charset.clean(case.word)),
                    "{charset:?} of {:?}",
                    case.word
                );
            }
        }
    }

    #[test]
    fn a_clean_word_is_not_copied() {
        assert!(matches!(Charset::Tsd.clean("requests.total"), Cow::Borrowed(_)));
    }

    #[test]
    fn no_character_at_all_can_end_a_word_or_a_line() {
        for c in (0..=char::MAX as u32).filter_map(char::from_u32) {
            for charset in [Charset::Tsd, Charset::Unicode] {
                let word = c.to_string();
                let clean = charset.clean(&word);
                assert!(
                    !clean.contains([' ', '\n', '\r', '\0', '=', '\t']),
                    "{c:?} under {charset:?}"
                );
                assert!(charset == Charset::Unicode || clean.is_ascii(), "{c:?}");
            }
        }
    }
}
