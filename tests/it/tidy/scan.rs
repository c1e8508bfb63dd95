//! Rust source as the checks of `tidy` see it: tokens without comments and tests, the paths in
//! them, and how many lines they take.
//!
//! Not seen: what a macro expands to, and an alias (`use std as s`).

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// The words that begin an item; a comma before any of them ends a field or an arm.
const ITEMS: &[&str] =
    &["const", "enum", "fn", "impl", "let", "mod", "static", "struct", "trait", "type", "use"];

/// `stream` without doc comments and without what stands under `#[cfg(test)]`. Adds the lines that
/// have a token of what is left.
pub(super) fn code(stream: TokenStream, lines: &mut BTreeSet<usize>) -> TokenStream {
    let mut out = Vec::new();
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let (start, end) = (tree.span().start().line, tree.span().end().line);
        match tree {
            TokenTree::Group(group) => {
                lines.extend([start, end]);
                out.push(Group::new(group.delimiter(), code(group.stream(), lines)).into());
            }
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                trees.next_if(|next| next.to_string() == "!");
                let attribute = trees.next().map_or(String::new(), |next| next.to_string());
                match attribute.split_whitespace().collect::<String>() {
                    text if text.starts_with("[cfg(test)]") => skip_item(&mut trees),
                    text if text.starts_with("[cfg(all(test,") => skip_item(&mut trees),
                    text if text.starts_with("[doc=") => {}
                    _ => lines.extend([start]),
                }
            }
            other => {
                lines.extend(start..=end);
                out.push(other);
            }
        }
    }
    out.into_iter().collect()
}

/// Leaves out the item, field, arm or statement that comes next.
fn skip_item(trees: &mut impl Iterator<Item = TokenTree>) {
    let mut is_item = false;
    for tree in trees {
        let is_body = matches!(&tree, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace);
        let text = tree.to_string();
        if is_body || text == ";" || text == "," && !is_item {
            return;
        }
        is_item |= ITEMS.contains(&&*text);
    }
}

/// Adds each path of `stream` with its line. In a group of `use`, each begins with `prefix`.
pub(super) fn paths(stream: TokenStream, prefix: &str, out: &mut Vec<(usize, String)>) {
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        match tree {
            TokenTree::Ident(word) if word == "as" => drop(trees.next()),
            TokenTree::Ident(word) => {
                let mut path = format!("{prefix}{word}");
                while trees.next_if(is_joint_colon).is_some() {
                    trees.next();
                    path += "::";
                    match trees.next_if(|next| !matches!(next, TokenTree::Punct(_))) {
                        Some(TokenTree::Group(group)) => {
                            paths(group.stream(), &path, out);
                            path.clear();
                        }
                        Some(next) => path += &next.to_string(),
                        None => break, // `Vec::<u8>`, `super::*`
                    }
                }
                out.push((word.span().start().line, path));
            }
            // `pub(in crate::send)` names nothing.
            TokenTree::Group(group) if group.to_string().starts_with("(in ") => {}
            TokenTree::Group(group) => paths(group.stream(), "", out),
            _ => {}
        }
    }
}

fn is_joint_colon(tree: &TokenTree) -> bool {
    matches!(tree, TokenTree::Punct(p) if p.as_char() == ':' && p.spacing() == Spacing::Joint)
}
