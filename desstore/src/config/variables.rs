//! `${NAME}` and `${NAME:default}` in values.

use super::Environment;
use super::node::Node;
use super::reader::Mismatch;

/// Fills in the variables of all texts below a value. Keys are left as they are.
pub(super) fn fill_in(node: Node, environment: Environment<'_>) -> Result<Node, Mismatch> {
    Ok(match node {
        Node::Text(text) => {
            if text.contains("${") {
                Node::Filled(substitute(&text, environment).map_err(Mismatch::new)?)
            } else {
                Node::Text(text)
            }
        }
        Node::List(items) => {
            let fill = |(index, item)| fill_in(item, environment).map_err(|error| error.in_item(index));
            Node::List(items.into_iter().enumerate().map(fill).collect::<Result<_, _>>()?)
        }
        Node::Table(items) => {
            let fill = |(key, item): (String, Node)| match fill_in(item, environment) {
                Ok(item) => Ok((key, item)),
                Err(error) => Err(error.in_key(&key)),
            };
            Node::Table(items.into_iter().map(fill).collect::<Result<_, _>>()?)
        }
        other @ (Node::Null | Node::Bool(_) | Node::Integer(_) | Node::Float(_) | Node::Filled(_)) => other,
    })
}

/// A variable that is set to nothing counts as set. There is no escape; a `$` without a brace is a `$`.
fn substitute(text: &str, environment: Environment<'_>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        filled.push_str(before);
        let Some((inside, after)) = after.split_once('}') else {
            return Err(format!("{text:?} has a ${{ without a }}"));
        };
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if !is_name(name) {
            return Err(format!("{name:?} in {text:?} cannot be the name of a variable"));
        }
        match (environment(name), default) {
            (Some(value), _) => filled.push_str(&value),
            (None, Some(default)) => filled.push_str(default),
            (None, None) => {
                return Err(format!("the environment variable {name} is not set, and ${{{name}}} has no default"));
            }
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    let is_letter = |character: char| character.is_ascii_alphabetic() || character == '_';
    characters.next().is_some_and(is_letter)
        && characters.all(|character| is_letter(character) || character.is_ascii_digit())
}
