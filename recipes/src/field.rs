//! What a recipe says at one place: nothing, a key without value, or a value with its location.
//!
//! Owns the leaf types that YAML values are read into. Ranges, defaults and rules live in the
//! section files.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_saphyr::{Location, Spanned};

/// One key of a raw section.
///
/// `Empty` is a key that stands in the text without a value; it is reported, never defaulted.
#[derive(Debug, Clone, Default)]
pub(crate) enum Field<T> {
    /// The key does not occur.
    #[default]
    Absent,
    /// The key occurs without a value, here.
    Empty(Location),
    /// The key has this value.
    Given(Spanned<T>),
}

impl<T> Field<T> {
    /// True where the key does not occur, so that it is left out when the section is written.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Where the key's value stands, if the key occurs.
    pub(crate) fn location(&self) -> Option<Location> {
        match self {
            Self::Absent => None,
            Self::Empty(location) => Some(*location),
            Self::Given(spanned) => Some(spanned.referenced),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined } =
            Spanned::<Option<T>>::deserialize(deserializer)?;
        Ok(match value {
            None => Self::Empty(referenced),
            Some(value) => Self::Given(Spanned { value, referenced, defined }),
        })
    }
}

impl<T: Serialize> Serialize for Field<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent | Self::Empty(_) => serializer.serialize_none(),
            Self::Given(spanned) => spanned.value.serialize(serializer),
        }
    }
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A value as found, of any kind.
///
/// One of another kind than its key wants is kept, not refused at once, so that it is reported with its exact place and together with
/// all other problems.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Found {
    /// A text, quoted or not.
    Text(String),
    /// A whole number.
    Whole(u64),
    /// A whole number below 0.
    Negative(i64),
    /// A number with a fraction or exponent.
    Real(f64),
    /// `true` or `false`.
    Flag(bool),
    /// A list.
    List,
    /// Keys with values.
    Section,
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(formatter, "the text `{}`", text.escape_debug()),
            Self::Whole(number) => write!(formatter, "`{number}`"),
            Self::Negative(number) => write!(formatter, "`{number}`"),
            Self::Real(number) => write!(formatter, "`{number:?}`"),
            Self::Flag(flag) => write!(formatter, "`{flag}`"),
            Self::List => formatter.write_str("a list"),
            Self::Section => formatter.write_str("keys with values"),
        }
    }
}

impl Serialize for Found {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Whole(number) => serializer.serialize_u64(*number),
            Self::Negative(number) => serializer.serialize_i64(*number),
            Self::Real(number) => serializer.serialize_f64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            // Only their kind is reported, so their content is not kept.
            Self::List => serializer.collect_seq(std::iter::empty::<bool>()),
            Self::Section => serializer.collect_map(std::iter::empty::<(bool, bool)>()),
        }
    }
}

/// Reads any value.
struct FoundVisitor;

impl<'de> Visitor<'de> for FoundVisitor {
    type Value = Found;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Found, E> {
        Ok(Found::Text(text.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Found, E> {
        Ok(Found::Whole(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Found, E> {
        Ok(u64::try_from(number).map_or(Found::Negative(number), Found::Whole))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Found, E> {
        Ok(Found::Real(number))
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Found, E> {
        Ok(Found::Flag(flag))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Found, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::Section)
    }
}

/// A leaf that holds one plain value.
pub(crate) trait Leaf {
    /// The plain value.
    type Plain: PartialOrd + Copy;

    /// What the leaf wants, for messages.
    const EXPECTED: &'static str;

    /// The plain value, or what stands in its place.
    fn plain(self) -> Result<Self::Plain, Found>;
}

/// Writes a leaf whose YAML kind is checked: a quoted number is a text, not a number.
macro_rules! leaf {
    ($(#[$meta:meta])* $name:ident($plain:ty), $expected:literal, $from:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct $name(Found);

        impl Leaf for $name {
            type Plain = $plain;

            const EXPECTED: &'static str = $expected;

            fn plain(self) -> Result<$plain, Found> {
                let from: fn(Found) -> Result<$plain, Found> = $from;
                from(self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(FoundVisitor).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                <$plain>::schema_name()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                <$plain>::json_schema(generator)
            }
        }
    };
}

leaf!(
    /// A whole number, not negative.
    Whole(u64), "a whole number not below 0", |found| match found {
        Found::Whole(number) => Ok(number),
        Found::Text(_)
        | Found::Negative(_)
        | Found::Real(_)
        | Found::Flag(_)
        | Found::List
        | Found::Section => Err(found),
    }
);

leaf!(
    /// A number.
    Real(f64), "a number", |found| match found {
        #[expect(clippy::cast_precision_loss, reason = "a count above 2^53 is out of every range")]
        Found::Whole(number) => Ok(number as f64),
        #[expect(clippy::cast_precision_loss, reason = "a count below -2^53 is out of every range")]
        Found::Negative(number) => Ok(number as f64),
        Found::Real(number) => Ok(number),
        Found::Text(_) | Found::Flag(_) | Found::List | Found::Section => Err(found),
    }
);

leaf!(
    /// `true` or `false`, unquoted.
    Flag(bool), "`true` or `false`", |found| match found {
        Found::Flag(flag) => Ok(flag),
        Found::Text(_)
        | Found::Whole(_)
        | Found::Negative(_)
        | Found::Real(_)
        | Found::List
        | Found::Section => Err(found),
    }
);

/// A list of texts or one bare word that stands for a list.
#[derive(Debug, Clone)]
pub(crate) enum WordOrList {
    /// One value that is no list; it should be a text.
    Word(Found),
    /// Texts, each with its own location.
    List(Vec<Field<String>>),
}

impl Serialize for WordOrList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Word(word) => word.serialize(serializer),
            Self::List(list) => list.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for WordOrList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrListVisitor;
        impl<'de> Visitor<'de> for WordOrListVisitor {
            type Value = WordOrList;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a word or a list of texts")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<WordOrList, E> {
                FoundVisitor.visit_str(word).map(WordOrList::Word)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<WordOrList, E> {
                FoundVisitor.visit_u64(number).map(WordOrList::Word)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<WordOrList, E> {
                FoundVisitor.visit_i64(number).map(WordOrList::Word)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<WordOrList, E> {
                FoundVisitor.visit_f64(number).map(WordOrList::Word)
            }

            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<WordOrList, E> {
                FoundVisitor.visit_bool(flag).map(WordOrList::Word)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<WordOrList, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(WordOrList::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WordOrList, A::Error> {
                FoundVisitor.visit_map(map).map(WordOrList::Word)
            }
        }
        deserializer.deserialize_any(WordOrListVisitor)
    }
}

impl JsonSchema for WordOrList {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WordOrList".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        })
    }
}

/// Declares a raw section: every key is a [`Field`], unknown keys are refused, absent keys are
/// left out when the section is written again. Mark a key that must be given with
/// `#[schemars(!default, required)]`.
macro_rules! raw_section {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "snake_case")]
        pub(crate) struct $name {
            $(
                $(#[$field_meta])*
                #[serde(default, skip_serializing_if = "crate::field::Field::is_absent")]
                pub(crate) $field: crate::field::Field<$type>,
            )*
        }
    };
}
pub(crate) use raw_section;

/// Declares a closed set of words: the enum, its spelling in YAML and its schema.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord,
            serde::Serialize, serde::Deserialize, schemars::JsonSchema,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
        }
    };
}
pub(crate) use words;
