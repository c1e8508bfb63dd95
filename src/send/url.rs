//! What a URL says beyond host and port: whether TLS is spoken, the path with its query, and the
//! credentials.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;

/// Where a TSD takes points.
const DEFAULT_PATH: &str = "/api/put";

/// Text that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) is_tls: bool,
    pub(super) path: String,
    /// Without its question mark; it may hold a token.
    pub(super) query: Secret,
    /// The value of the header `Authorization`.
    pub(super) authorization: Option<Secret>,
}

impl Url {
    /// Reads what follows the scheme; returns the host and port, too.
    pub(crate) fn parse(is_tls: bool, text: &str) -> Result<(&str, Self), String> {
        if text.contains('#') {
            return Err("it holds '#', which no server is sent; leave it out".to_owned());
        }
        let (authority, target) = text.split_at(text.find(['/', '?']).unwrap_or(text.len()));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if !target.is_ascii() {
            return Err("its path has a letter beyond ASCII; percent-encode it".to_owned());
        }
        let split = authority.rsplit_once('@').map(|(user, rest)| (Some(user), rest));
        let (user, authority) = split.unwrap_or((None, authority));
        if target.contains('@') {
            return Err("it holds '@' behind '/' or '?'; percent-encode each of them where it is \
                 part of a user, a password or a path"
                .to_owned());
        }
        let path = if matches!(path, "" | "/") { DEFAULT_PATH } else { path };
        let (path, query) = (path.to_owned(), Secret(query.to_owned()));
        Ok((authority, Url { is_tls, path, query, authorization: user.map(basic) }))
    }

    /// The path and the query, and these words in the query too.
    pub(super) fn target(&self, words: &str) -> String {
        let query: Vec<_> =
            [&*self.query.0, words].into_iter().filter(|it| !it.is_empty()).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}{mark}{}", self.path, query.join("&"))
    }
}

/// `user:password`, each perhaps percent-encoded, as `Basic` has them.
fn basic(user: &str) -> Secret {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let mut bytes: Vec<u8> = percent_decode_str(user).collect();
    bytes.push(b':');
    bytes.extend(percent_decode_str(password));
    Secret(format!("Basic {}", BASE64_STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_the_words_of_the_address_and_ours() {
        for (text, words, expected) in [
            ("tsd", "details", "/api/put?details"),
            ("tsd?db=x", "details", "/api/put?db=x&details"),
            ("tsd/a?db=x", "", "/a?db=x"),
            ("tsd/a", "", "/a"),
        ] {
            assert_eq!(Url::parse(false, text).unwrap().1.target(words), expected);
        }
    }

    #[test]
    fn a_password_that_is_not_encoded_is_refused_without_being_shown() {
        for text in ["user:se/cret@tsd", "user:se?cret@tsd"] {
            let reason = Url::parse(false, text).unwrap_err();
            assert!(reason.contains("percent-encode") && !reason.contains("cret"), "{reason}");
        }
    }

    #[test]
    fn credentials_are_decoded_and_shown_to_nobody() {
        let (authority, url) = Url::parse(true, "al%40x:o%3Apen:se@tsd:1?token=t0ken").unwrap();
        assert_eq!(authority, "tsd:1");
        let expected = format!("Basic {}", BASE64_STANDARD.encode("al@x:o:pen:se"));
        assert_eq!(url.authorization.as_ref().unwrap().0, expected);
        let shown = format!("{url:?}");
        assert!(!shown.contains("Basic") && !shown.contains("t0ken"), "{shown}");
    }
}
