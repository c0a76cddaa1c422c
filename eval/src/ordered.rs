//! A YAML mapping whose order has meaning. Every key keeps its place in the text, and one that stands
//! twice is kept twice, so that it can be reported together with all other mistakes.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_saphyr::Spanned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

/// Key–value pairs in the order of the file.
#[derive(Clone, Debug)]
pub(crate) struct Ordered<T>(pub(crate) Vec<(Spanned<String>, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Ordered<T> {
    /// Pairs whose key did not stand before.
    pub(crate) fn first(&self) -> impl Iterator<Item = (&Spanned<String>, &T)> {
        let mut seen = BTreeSet::new();
        self.0
            .iter()
            .filter_map(move |(key, value)| seen.insert(key.value.as_str()).then_some((key, value)))
    }

    /// Keys that stood before, each with the line where it first stands.
    pub(crate) fn repeated(&self) -> Vec<(&Spanned<String>, u64)> {
        let mut lines: BTreeMap<&str, u64> = BTreeMap::new();
        let mut repeated = Vec::new();
        for (key, _) in &self.0 {
            match lines.get(key.value.as_str()) {
                Some(line) => repeated.push((key, *line)),
                None => {
                    lines.insert(&key.value, key.referenced.line());
                }
            }
        }
        repeated
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Ordered<T>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("keys with values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<Spanned<String>, T>()? {
                    pairs.push(pair);
                }
                Ok(Ordered(pairs))
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}
