//! From the tree of values to the types of whoever asked: serde's deserializer, with the place of every refusal, the
//! nearest known key, and values of variables that become what a field wants.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

use super::node::Node;

/// A value that does not fit, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) at: String,
    pub(super) detail: String,
}

impl Mismatch {
    pub(super) fn new(detail: String) -> Self {
        Self { at: String::new(), detail }
    }

    /// The same one table further out.
    pub(super) fn in_key(mut self, key: &str) -> Self {
        let joint = if self.at.is_empty() || self.at.starts_with('[') { "" } else { "." };
        self.at = format!("{key}{joint}{}", self.at);
        self
    }

    /// The same one list further out.
    pub(super) fn in_item(mut self, index: usize) -> Self {
        let joint = if self.at.is_empty() || self.at.starts_with('[') { "" } else { "." };
        self.at = format!("[{index}]{joint}{}", self.at);
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Mismatch {}

impl Error for Mismatch {
    fn custom<T: fmt::Display>(detail: T) -> Self {
        Self::new(detail.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key {field:?} is missing"))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(unknown("unknown key", field, expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(unknown("unknown value", variant, expected))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("the key {field:?} stands twice, perhaps by two of its names"))
    }
}

/// Letters in common below which a suggestion would only confuse (Jaro-Winkler).
const LIKENESS_MIN: f64 = 0.75;

pub(super) fn unknown(what: &str, given: &str, known: &[&str]) -> String {
    let likeness = |known: &&str| strsim::jaro_winkler(given, known);
    let nearest = known.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    match nearest.filter(|nearest| likeness(nearest) >= LIKENESS_MIN) {
        Some(nearest) => format!("{what} {given:?}; did you mean {nearest:?}?"),
        None => format!("{what} {given:?}; known are {}", known.join(", ")),
    }
}

/// Hands a value to serde.
#[derive(Debug)]
pub(super) struct Reader {
    node: Node,
}

impl Reader {
    pub(super) const fn new(node: Node) -> Self {
        Self { node }
    }

    /// The text of a variable, where it must become something else.
    fn filled(&self) -> Option<&str> {
        if let Node::Filled(text) = &self.node { Some(text.trim()) } else { None }
    }
}

macro_rules! read_numbers {
    ($($method:ident)+) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
                if let Some(text) = self.filled() {
                    if let Ok(number) = text.parse::<i128>() {
                        return visit_integer(number, visitor);
                    }
                    if let Ok(number) = text.parse::<f64>() {
                        return visitor.visit_f64(number);
                    }
                }
                self.deserialize_any(visitor)
            }
        )+
    };
}

fn visit_integer<'de, V: Visitor<'de>>(number: i128, visitor: V) -> Result<V::Value, Mismatch> {
    if let Ok(number) = u64::try_from(number) {
        return visitor.visit_u64(number);
    }
    match i64::try_from(number) {
        Ok(number) => visitor.visit_i64(number),
        Err(_) => Err(Mismatch::new(format!("{number} is too large"))),
    }
}

impl<'de> Deserializer<'de> for Reader {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.node {
            Node::Null => visitor.visit_unit(),
            Node::Bool(value) => visitor.visit_bool(value),
            Node::Integer(value) => visit_integer(value, visitor),
            Node::Float(value) => visitor.visit_f64(value),
            Node::Text(value) | Node::Filled(value) => visitor.visit_string(value),
            Node::List(items) => visitor.visit_seq(Items { items: items.into_iter(), index: 0 }),
            Node::Table(items) => visitor.visit_map(Table { items: items.into_iter(), value: None }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let Some(text) = self.filled() else { return self.deserialize_any(visitor) };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => visitor.visit_bool(true),
            "false" | "no" | "0" => visitor.visit_bool(false),
            _ => Err(Mismatch::invalid_value(Unexpected::Str(text), &"true or false")),
        }
    }

    read_numbers!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
                  deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
                  deserialize_f32 deserialize_f64);

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.node {
            Node::Null => visitor.visit_none(),
            // A variable that is empty leaves out what may be left out.
            Node::Filled(text) if text.is_empty() => visitor.visit_none(),
            Node::Bool(_)
            | Node::Integer(_)
            | Node::Float(_)
            | Node::Text(_)
            | Node::Filled(_)
            | Node::List(_)
            | Node::Table(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let Node::Table(items) = &self.node else {
            return Err(Mismatch::new(format!("a table with the keys {} is needed", fields.join(", "))));
        };
        if let Some((key, _)) = items.iter().find(|(key, _)| !fields.contains(&key.as_str())) {
            return Err(Mismatch::unknown_field(key, fields));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.node {
            Node::Text(name) | Node::Filled(name) => visitor.visit_enum(name.into_deserializer()),
            Node::Table(items) if items.len() == 1 => {
                let Some((name, node)) = items.into_iter().next() else {
                    return Err(Mismatch::new("a name is needed".to_owned()));
                };
                visitor.visit_enum(Variant { name, node })
            }
            Node::Null | Node::Bool(_) | Node::Integer(_) | Node::Float(_) | Node::List(_) | Node::Table(_) => {
                Err(Mismatch::new("a name is needed".to_owned()))
            }
        }
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items {
    items: std::vec::IntoIter<Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index = index.saturating_add(1);
        seed.deserialize(Reader { node }).map(Some).map_err(|error| error.in_item(index))
    }
}

struct Table {
    items: std::vec::IntoIter<(String, Node)>,
    value: Option<(String, Node)>,
}

impl<'de> MapAccess<'de> for Table {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        let Some((key, node)) = self.items.next() else { return Ok(None) };
        let name = seed.deserialize(key.as_str().into_deserializer())?;
        self.value = Some((key, node));
        Ok(Some(name))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mismatch> {
        let Some((key, node)) = self.value.take() else {
            return Err(Mismatch::new("a value was asked for before its key".to_owned()));
        };
        seed.deserialize(Reader { node }).map_err(|error| error.in_key(&key))
    }
}

struct Variant {
    name: String,
    node: Node,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Mismatch;
    type Variant = Reader;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Reader), Mismatch> {
        let name: serde::de::value::StrDeserializer<'_, Mismatch> = self.name.as_str().into_deserializer();
        Ok((seed.deserialize(name)?, Reader { node: self.node }))
    }
}

impl<'de> VariantAccess<'de> for Reader {
    type Error = Mismatch;

    fn unit_variant(self) -> Result<(), Mismatch> {
        Err(Mismatch::new("it takes no value".to_owned()))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Mismatch> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_struct("", fields, visitor)
    }
}
