//! Which keys of an adapter file other programs recognize; what they do not know they skip, often in silence.
//!
//! Source: read in or run against `ComfyUI` (2025-10), Forge (2025-06) with its copy of the
//! loader of A1111, and diffusers 0.42.1.

use crate::key_map::{KeyMap, Part};

/// A program that loads adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// `ComfyUI`.
    ComfyUi,
    /// Forge, which refuses a file with more than 12 unmatched keys.
    Forge,
    /// AUTOMATIC1111, as far as the copy in Forge shows.
    A1111,
    /// diffusers.
    Diffusers,
}

impl Reader {
    /// All readers whose tables are known.
    pub const ALL: [Self; 4] = [Self::ComfyUi, Self::Forge, Self::A1111, Self::Diffusers];

    /// The program's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ComfyUi => "ComfyUI",
            Self::Forge => "Forge",
            Self::A1111 => "A1111",
            Self::Diffusers => "diffusers",
        }
    }

    fn knows(self, key: &str, map: &KeyMap) -> bool {
        let Ok(parsed) = map.parse(key) else {
            return false;
        };
        let kohya_stem =
            key.split_once('.').map(|(stem, _)| stem).filter(|stem| stem.starts_with("lora_"));
        match (self, kohya_stem) {
            (Self::ComfyUi | Self::Forge, Some(_)) => true,
            (Self::A1111, Some(stem)) => map.is_own_stem(stem),
            (Self::Diffusers, Some(_)) => !matches!(parsed.part, Part::Mid | Part::DoraScale),
            // Their map of diffusers names expects `.processor.to_` in attention.
            (Self::ComfyUi | Self::Forge, None) => {
                !is_attention(&parsed.path) || key.contains(".processor.")
            }
            (Self::A1111, None) => false,
            // A key without this word makes diffusers refuse the whole file.
            (Self::Diffusers, None) => key.contains("lora"),
        }
    }
}

fn is_attention(path: &str) -> bool {
    path.split('.').any(|part| part == "attn1" || part == "attn2")
}

/// The keys that `reader` would skip or refuse, in the given order; `map` is the table of the model to be adapted.
pub fn unknown_keys<'a>(
    names: impl IntoIterator<Item = &'a str>,
    map: &KeyMap,
    reader: Reader,
) -> Vec<&'a str> {
    names.into_iter().filter(|key| !reader.knows(key, map)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_map::Naming;

    const ATTENTION: &str = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k";
    const FEED_FORWARD: &str = "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2";

    fn map() -> KeyMap {
        KeyMap::new(Naming::Diffusers, [ATTENTION, FEED_FORWARD]).unwrap()
    }

    fn keys(key: &dyn Fn(&str, Part) -> String, parts: &[Part]) -> Vec<String> {
        [ATTENTION, FEED_FORWARD]
            .iter()
            .flat_map(|path| parts.iter().map(|&part| key(path, part)))
            .collect()
    }

    fn n_unknown(keys: &[String], reader: Reader) -> usize {
        unknown_keys(keys.iter().map(String::as_str), &map(), reader).len()
    }

    #[test]
    fn every_reader_knows_kohya_names() {
        let keys = keys(
            &|path, part| map().kohya_key(path, part).unwrap(),
            &[Part::Down, Part::Up, Part::Alpha],
        );
        for reader in Reader::ALL {
            assert_eq!(n_unknown(&keys, reader), 0, "{}", reader.name());
        }
    }

    #[test]
    fn only_diffusers_knows_attention_under_its_own_names() {
        let keys =
            keys(&|path, part| map().diffusers_key(path, part).unwrap(), &[Part::Down, Part::Up]);
        assert_eq!(n_unknown(&keys, Reader::Diffusers), 0);
        assert_eq!(n_unknown(&keys, Reader::ComfyUi), 2);
        assert_eq!(n_unknown(&keys, Reader::Forge), 2);
        assert_eq!(n_unknown(&keys, Reader::A1111), 4);
    }

    #[test]
    fn foreign_keys_and_absent_layers_are_unknown_to_all() {
        let foreign = ["position_ids".to_owned(), "lora_unet_up_blocks_9.alpha".to_owned()];
        for reader in Reader::ALL {
            assert_eq!(n_unknown(&foreign, reader), 2);
        }
    }

    #[test]
    fn diffusers_refuses_a_tucker_core() {
        let key = [map().kohya_key(ATTENTION, Part::Mid).unwrap()];
        assert_eq!(n_unknown(&key, Reader::Diffusers), 1);
        assert_eq!(n_unknown(&key, Reader::ComfyUi), 0);
    }
}
