//! Rust source as the checks of `tidy` see it.
//!
//! A rule such as "no `std::net` here" must not trip over a comment, a string or a test, and must not be evaded by
//! `use std::{net::TcpStream}`. A parser would bring a dependency larger than this crate, so the text is reduced instead:
//! 1. [`code`] blanks comments and literals; [`without_tests`] blanks what stands under `#[cfg(test)]`. Both keep every
//!    line where it is, so that a line of the result is the line of the file.
//! 2. [`paths`] reads what is left as paths, with groups of `use` written out.
//! 3. [`functions`] finds each function with a body and how many lines it takes, [`modules`] each module that is declared.
//!
//! Not seen: what a macro expands to, an alias (`use std as s`), and a re-export that one module makes of another's item.

/// A path as it is used: `std::net::TcpStream`, a macro with its mark (`println!`), a method with its dot (`.unwrap`).
#[derive(Debug, PartialEq)]
pub(super) struct Path {
    pub(super) line: usize,
    pub(super) name: String,
    /// How many inline modules (`mod x { … }`) stand around it: each needs one more `super` to leave the file.
    pub(super) inline_modules: usize,
}

/// A function with a body.
#[derive(Debug, PartialEq)]
pub(super) struct Function {
    pub(super) line: usize,
    pub(super) name: String,
    /// From the line of `fn` to that of the closing brace, both counted.
    pub(super) lines: usize,
}

/// `text` with comments replaced by spaces, and literals by quotes, so that a line of a long string stays a line of code.
pub(super) fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (len, fill) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), Some(' '))
        } else if rest.starts_with("/*") {
            (block_comment_len(rest), Some(' '))
        } else if let Some(len) = string_len(rest).or_else(|| char_len(rest)) {
            (len, Some('"'))
        } else {
            // A word goes in one piece, or the `r` at the end of `var` would open a raw string.
            (rest.find(|c| !is_word(c)).unwrap_or(rest.len()).max(first.len_utf8()), None)
        };
        let (piece, after) = rest.split_at(len);
        match fill {
            Some(fill) => {
                out.extend(piece.chars().map(|c| if c.is_whitespace() { c } else { fill }));
            }
            None => out.push_str(piece),
        }
        rest = after;
    }
    out
}

/// `code` with every item under `#[cfg(test)]`, or under `#[cfg(all(test, …))]`, replaced by spaces.
pub(super) fn without_tests(code: &str) -> String {
    let tokens = tokens(code);
    let mut out = String::with_capacity(code.len());
    let (mut kept, mut i) = (0, 0);
    while i < tokens.len() {
        if !is_test_attribute(code, &tokens[i..]) {
            i += 1;
            continue;
        }
        out.push_str(&code[kept..tokens[i].at]);
        i = item_end(&tokens, i);
        let end = tokens.get(i).map_or(code.len(), |token| token.at);
        let start = out.len();
        out.extend(code[start..end].chars().map(|c| if c == '\n' { c } else { ' ' }));
        kept = end;
    }
    out.push_str(&code[kept..]);
    out
}

/// Every path in `code`, in order.
pub(super) fn paths(code: &str) -> Vec<Path> {
    let tokens = tokens(code);
    let (mut out, mut inline, mut depth, mut i) = (Vec::new(), Vec::new(), 0_usize, 0);
    while i < tokens.len() {
        match tokens[i].text {
            "{" => depth += 1,
            "}" => {
                inline.retain(|opened| *opened != depth);
                depth = depth.saturating_sub(1);
            }
            "mod" if tokens.get(i + 2).is_some_and(|token| token.text == "{") => {
                i += 2;
                depth += 1;
                inline.push(depth);
            }
            word if word.starts_with(is_word) => {
                let is_method =
                    i > 0 && tokens[i - 1].text == "." && (i < 2 || tokens[i - 2].text != ".");
                i = push_paths(
                    &tokens,
                    i,
                    if is_method { "." } else { "" },
                    inline.len(),
                    &mut out,
                );
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    out
}

/// Every function of `code` that has a body, in order.
pub(super) fn functions(code: &str) -> Vec<Function> {
    let tokens = tokens(code);
    let mut out = Vec::new();
    for (i, pair) in tokens.windows(2).enumerate() {
        // `fn(u8)` is a type.
        if pair[0].text != "fn" || !pair[1].text.starts_with(is_word) {
            continue;
        }
        let end = &tokens[item_end(&tokens, i) - 1];
        if end.text == "}" {
            let (line, name) = (pair[0].line, pair[1].text.to_owned());
            out.push(Function { line, name, lines: end.line - line + 1 });
        }
    }
    out
}

/// Line and name of every module that `code` declares, inline or as a file.
pub(super) fn modules(code: &str) -> Vec<(usize, &str)> {
    let tokens = tokens(code);
    let declared = tokens
        .windows(3)
        .filter(|three| three[0].text == "mod" && matches!(three[2].text, ";" | "{"));
    declared.map(|three| (three[1].line, three[1].text)).collect()
}

struct Token<'a> {
    text: &'a str,
    /// Byte offset in the text.
    at: usize,
    line: usize,
}

/// Words, `::`, and every other character that is not space by itself.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1);
    while let Some(first) = code[at..].chars().next() {
        let rest = &code[at..];
        let len = if rest.starts_with("::") {
            2
        } else {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len()).max(first.len_utf8())
        };
        match first {
            '\n' => line += 1,
            _ if first.is_whitespace() => {}
            _ => out.push(Token { text: &rest[..len], at, line }),
        }
        at += len;
    }
    out
}

/// Pushes the path that begins at `i`, or each path of its group, and returns the index behind it.
fn push_paths(
    tokens: &[Token<'_>],
    mut i: usize,
    prefix: &str,
    inline_modules: usize,
    out: &mut Vec<Path>,
) -> usize {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text);
    let (line, mut name) = (tokens[i].line, prefix.to_owned());
    loop {
        match text(i) {
            "{" => {
                i += 1;
                while !matches!(text(i), "}" | "") {
                    i = push_paths(tokens, i, &name, inline_modules, out);
                    while !matches!(text(i), "," | "}" | "") {
                        i += 1; // `as name`
                    }
                    i += usize::from(text(i) == ",");
                }
                return i + 1;
            }
            word if word == "*" || word.starts_with(is_word) => name.push_str(word),
            _ => break, // `Vec::<u8>`
        }
        i += 1;
        if text(i) != "::" {
            break;
        }
        name.push_str("::");
        i += 1;
    }
    if text(i) == "!" && text(i + 1) != "=" {
        name.push('!');
    }
    out.push(Path { line, name: name.trim_end_matches("::").to_owned(), inline_modules });
    i
}

/// Whether `#[cfg(…)]` begins here, with a condition that holds in tests alone.
fn is_test_attribute(code: &str, tokens: &[Token<'_>]) -> bool {
    let opens = tokens.len() > 4
        && ["#", "[", "cfg", "("].iter().zip(tokens).all(|(text, token)| *text == token.text);
    opens && {
        let condition = &code[tokens[4].at..];
        is_test_only(&condition[..closing(condition)])
    }
}

fn is_test_only(condition: &str) -> bool {
    let condition = condition.trim();
    condition == "test"
        || condition.strip_prefix("all(").is_some_and(|rest| {
            let (mut depth, mut args) = (0_usize, vec![String::new()]);
            for c in rest[..closing(rest)].chars() {
                match c {
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
                if c == ',' && depth == 0 {
                    args.push(String::new());
                } else if let Some(arg) = args.last_mut() {
                    arg.push(c);
                }
            }
            args.iter().any(|arg| is_test_only(arg))
        })
}

/// Offset of the parenthesis that closes the one before `text`.
fn closing(text: &str) -> usize {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Index of the token behind the item, field or statement that begins at `i` with its attributes.
fn item_end(tokens: &[Token<'_>], mut i: usize) -> usize {
    const ITEMS: &[&str] = &[
        "mod",
        "fn",
        "impl",
        "use",
        "struct",
        "enum",
        "trait",
        "const",
        "static",
        "type",
        "let",
        "macro_rules",
    ];
    let (mut depth, mut is_item) = (0, false);
    while let Some(token) = tokens.get(i) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 0 => return i, // the last field of a struct
            ")" | "]" | "}" => depth -= 1,
            word if depth == 0 => is_item |= ITEMS.contains(&word),
            _ => {}
        }
        i += 1;
        // A comma ends a field or an arm, but stands in the generics of a function.
        if depth == 0 && (matches!(token.text, "}" | ";") || token.text == "," && !is_item) {
            return i;
        }
    }
    i
}

fn block_comment_len(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") || here.starts_with(b"*/") {
            depth += if here[0] == b'/' { 1 } else { -1 };
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of the string literal that begins here, with its prefix: `"…"`, `b"…"`, `c"…"`, `r#"…"#`, `br"…"`.
fn string_len(rest: &str) -> Option<usize> {
    let body = rest.trim_start_matches(['b', 'c', 'r']);
    let prefix = &rest[..rest.len() - body.len()];
    let inside = body.trim_start_matches('#').strip_prefix('"')?;
    let hashes = body.len() - inside.len() - 1;
    let end = if prefix.contains('r') {
        let close = format!("\"{}", "#".repeat(hashes));
        inside.find(&close)? + close.len()
    } else if hashes == 0 {
        end_of_escaped(inside, '"')?
    } else {
        return None;
    };
    Some(rest.len() - inside.len() + end)
}

/// Length of the character literal that begins here; `None` for a lifetime.
fn char_len(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    let is_literal = inside.starts_with('\\') || inside.chars().nth(1) == Some('\'');
    if is_literal { Some(1 + end_of_escaped(inside, '\'')?) } else { None }
}

/// Offset behind the `quote` that no backslash escapes.
fn end_of_escaped(inside: &str, quote: char) -> Option<usize> {
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
