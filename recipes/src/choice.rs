//! One of several alternatives, as a bare word or as a word with settings.

use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{
    self, Deserialize, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::ser::{Serialize, Serializer};
use serde_json::Value;

/// One of several alternatives: a bare word (`constant`) or a word with settings
/// (`constant: { warmup_steps: 10 }`). A bare word leaves all its settings at their defaults.
///
/// An unknown bare word is kept, so that it is reported with its exact place and together with all
/// other problems.
#[derive(Debug, Clone)]
pub(crate) enum Choice<T> {
    /// A known alternative.
    Known(T),
    /// A word that names none.
    Unknown(UnknownWord),
}

/// A word that names no alternative.
#[derive(Debug, Clone)]
pub(crate) struct UnknownWord {
    /// The word.
    pub(crate) word: String,
    /// The words that would.
    pub(crate) expected: &'static [&'static str],
}

impl<T: Serialize> Serialize for Choice<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(known) => known.serialize(serializer),
            Self::Unknown(unknown) => serializer.serialize_str(&unknown.word),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Choice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChoiceVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ChoiceVisitor<T> {
            type Value = Choice<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a word, or one word with its settings")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Choice<T>, E> {
                match T::deserialize(BareWord { word }) {
                    Ok(known) => Ok(Choice::Known(known)),
                    Err(WordError::Unknown(expected)) => {
                        Ok(Choice::Unknown(UnknownWord { word: word.to_owned(), expected }))
                    }
                    Err(WordError::Other(_)) => {
                        Err(E::custom(format_args!("`{word}` needs a value, found none")))
                    }
                }
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Choice<T>, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Choice<T>, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Choice<T>, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Choice<T>, E> {
                self.visit_str(&flag.to_string())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Choice<T>, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                self.visit_str("[…]")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Choice<T>, A::Error> {
                let choice = T::deserialize(de::value::MapAccessDeserializer::new(&mut map))?;
                match map.next_key::<String>()? {
                    None => Ok(Choice::Known(choice)),
                    Some(second) => Err(de::Error::custom(format_args!(
                        "expected exactly one alternative, found also `{second}`"
                    ))),
                }
            }
        }
        deserializer.deserialize_any(ChoiceVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Choice<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("ChoiceOf{}", T::schema_name()).into()
    }

    /// The alternatives of `T`; those without a required setting also as a bare word.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let alternatives = T::json_schema(generator);
        let empty = Vec::new();
        let list = alternatives.get("oneOf").and_then(Value::as_array).unwrap_or(&empty);
        let words: Vec<&str> =
            list.iter().filter_map(|alternative| bare_word(alternative, generator)).collect();
        if words.is_empty() {
            return alternatives;
        }
        schemars::json_schema!({ "anyOf": [{ "type": "string", "enum": words }, alternatives] })
    }
}

/// The word of an alternative with settings, if none of these is required.
fn bare_word<'a>(alternative: &'a Value, generator: &SchemaGenerator) -> Option<&'a str> {
    let word = alternative.pointer("/required/0")?.as_str()?;
    let reference = alternative.get("properties")?.get(word)?.get("$ref")?.as_str()?;
    let section = generator.definitions().get(reference.rsplit('/').next()?)?;
    section.get("required").is_none().then_some(word)
}

/// Why a bare word is no alternative.
#[derive(Debug)]
enum WordError {
    /// It names none; these are known.
    Unknown(&'static [&'static str]),
    /// Anything else.
    Other(String),
}

impl fmt::Display for WordError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(expected) => write!(formatter, "expected one of {expected:?}"),
            Self::Other(message) => formatter.write_str(message),
        }
    }
}

impl std::error::Error for WordError {}

impl de::Error for WordError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Unknown(expected)
    }
}

/// Presents a bare word to serde as an enum whose variant has an empty mapping as content.
struct BareWord<'a> {
    word: &'a str,
}

impl<'de> Deserializer<'de> for BareWord<'_> {
    type Error = WordError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WordError> {
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

impl<'de> de::EnumAccess<'de> for BareWord<'_> {
    type Error = WordError;
    type Variant = NoSettings;

    fn variant_seed<V: de::DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, NoSettings), WordError> {
        Ok((seed.deserialize(self.word.into_deserializer())?, NoSettings))
    }
}

/// The content of a bare word: nothing.
struct NoSettings;

type NoEntries =
    de::value::MapDeserializer<'static, std::iter::Empty<(&'static str, &'static str)>, WordError>;

impl NoSettings {
    fn entries() -> NoEntries {
        NoEntries::new(std::iter::empty())
    }
}

impl<'de> de::VariantAccess<'de> for NoSettings {
    type Error = WordError;

    fn unit_variant(self) -> Result<(), WordError> {
        Ok(())
    }

    fn newtype_variant_seed<T: de::DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, WordError> {
        seed.deserialize(Self::entries())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, WordError> {
        visitor.visit_map(Self::entries())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, WordError> {
        visitor.visit_map(Self::entries())
    }
}
