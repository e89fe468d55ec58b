//! The dialect of JSON that the ancestor's interpreter writes and reads.
//!
//! It adds the bare words `NaN`, `Infinity` and `-Infinity`. They are turned into `null` before a strict parser sees
//! the text; nothing here ever computes with them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// The text with the dialect's bare words replaced by `null`. Anything else that is no JSON stays as it is.
pub(super) fn to_strict(text: &str) -> Cow<'_, str> {
    // Every bare word holds an N or an I, which strict JSON has in strings only.
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let mut strict = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(character) = rest.chars().next() {
        if !in_string
            && let Some(after) = ["NaN", "Infinity", "-Infinity"].iter().find_map(|word| rest.strip_prefix(word))
        {
            strict.push_str("null");
            rest = after;
            continue;
        }
        let len = match character {
            '\\' if in_string => rest.chars().take(2).map(char::len_utf8).sum(),
            _ => character.len_utf8(),
        };
        in_string ^= character == '"';
        let (taken, after) = rest.split_at(len);
        strict.push_str(taken);
        rest = after;
    }
    Cow::Owned(strict)
}

/// True when the text is a JSON object in the ancestor's eyes.
pub(super) fn is_object(text: &str) -> bool {
    let begins = text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{');
    begins && serde_json::from_str::<IgnoredAny>(&to_strict(text)).is_ok()
}

/// The text that an object holds under a name; the last one where there are several.
pub(super) fn text_field(object: &str, name: &str) -> Option<String> {
    let strict = to_strict(object);
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(&strict).ok()?;
    serde_json::from_str(fields.get(name)?.get()).ok()
}

/// The text without spaces between its tokens and with `\uXXXX` for all but printable ASCII; empty for `{}`.
/// Only for texts that are objects.
pub(super) fn to_compact_ascii(object: &str) -> String {
    let mut compact = String::with_capacity(object.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in object.chars() {
        if !in_string && matches!(character, ' ' | '\t' | '\n' | '\r') {
            continue;
        }
        if matches!(character, ' '..='~') {
            compact.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                compact.push_str("\\u");
                let digits = [12, 8, 4, 0].map(|shift| char::from_digit(u32::from(*unit >> shift & 15), 16));
                compact.extend(digits.into_iter().flatten());
            }
        }
        in_string ^= character == '"' && !escaped;
        escaped = in_string && character == '\\' && !escaped;
    }
    if compact == "{}" { String::new() } else { compact }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dialects_bare_words_are_read_outside_strings_only() {
        assert_eq!(to_strict(r#"{"a":NaN,"b":[-Infinity,Infinity]}"#), r#"{"a":null,"b":[null,null]}"#);
        assert_eq!(to_strict(r#"{"NaN":"\"NaN\\"}"#), r#"{"NaN":"\"NaN\\"}"#);
        assert_eq!(to_strict(r#"{"a":"\\","b":NaN}"#), r#"{"a":"\\","b":null}"#);
    }

    #[test]
    fn only_objects_are_metadata() {
        for text in ["{}", " {\"a\": NaN}\n", r#"{"a":{"b":[1,2.5e3,true,null]}}"#, r#"{"\ud800":"\ud800"}"#] {
            assert!(is_object(text), "{text}");
        }
        for text in ["", "[]", "1", "null", "{", "{}{}", "{a:1}", "{\"a\":nan}", "\u{feff}{}", "{\"a\":1,}"] {
            assert!(!is_object(text), "{text}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(is_object(&deep));
    }

    #[test]
    fn metadata_is_written_compact_and_in_ascii() {
        let text = "{ \"b\" : \"\u{e9} \u{1d11e}\u{7f} \\\" x\" ,\n\t\"a\": [1, 2] }";
        assert_eq!(to_compact_ascii(text), r#"{"b":"\u00e9 \ud834\udd1e\u007f \" x","a":[1,2]}"#);
        assert_eq!(to_compact_ascii("{ }"), "");
        assert_eq!(to_compact_ascii(r#"{"a\\": "x y"}"#), r#"{"a\\":"x y"}"#);
    }
}
