//! A catalogue that ships with the project, by its name, or one's own, by its file.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::field::raw_section;

/// A name, or a file.
#[derive(Debug, Clone)]
pub(crate) enum NameOrFile {
    Name(String),
    File(RawFile),
}

raw_section! {
    /// A file.
    RawFile {
        /// Its path.
        #[schemars(!default, required)]
        file: PathBuf,
    }
}

impl Serialize for NameOrFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => serializer.serialize_str(name),
            Self::File(file) => file.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for NameOrFile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrFileVisitor;
        impl<'de> serde::de::Visitor<'de> for NameOrFileVisitor {
            type Value = NameOrFile;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a name or `{ file: PATH }`")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<NameOrFile, E> {
                Ok(NameOrFile::Name(name.to_owned()))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<NameOrFile, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<NameOrFile, A::Error> {
                RawFile::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(NameOrFile::File)
            }
        }
        deserializer.deserialize_any(NameOrFileVisitor)
    }
}

impl JsonSchema for NameOrFile {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NameOrFile".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let file = generator.subschema_for::<RawFile>();
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, file] })
    }
}
