//! CLIP's byte-pair encoding.

use std::path::{Path, PathBuf};

use checkpoints::{TokenizerFiles, clip_vocabulary};
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::error::ModelError;

/// Marks the beginning of a text.
pub const BEGIN: &str = "<|startoftext|>";
/// Marks the end of a text, stands for unknown tokens and, in most models, pads.
pub const END: &str = "<|endoftext|>";

/// Fields of the configuration files.
type Settings = serde_json::Map<String, Value>;

/// How messages name the vocabulary that `checkpoints` carries.
const CARRIED: &str = "CLIP's own vocabulary";

/// How CLIP cuts a text into words before byte-pair encoding.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Turns texts into token ids of a fixed length.
///
/// Source: transformers `CLIPTokenizer` (`CLIPTokenizerFast`), proved by the golden case `tokenizer`.
#[derive(Clone, Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    begin: u32,
    end: u32,
    pad: u32,
    max_length: usize,
}

/// What happens to a text with more tokens than the encoder reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverLength {
    /// It is an error.
    Error,
    /// It is cut, and the end mark kept.
    Truncate,
}

impl ClipTokenizer {
    /// Reads a folder as [`ClipTokenizer::load`] does, or takes the vocabulary of the released CLIP
    /// models with the given padding token, for files that come without a tokenizer.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenizer`] for files that are missing, malformed, or lack CLIP's marks.
    pub fn open(files: &TokenizerFiles) -> Result<Self, ModelError> {
        match files {
            TokenizerFiles::Folder(dir) => Self::load(dir),
            TokenizerFiles::Clip { pad } => Self::carried(pad),
        }
    }

    /// Reads `tokenizer.json`, or else `vocab.json` and `merges.txt`, with the padding token and the
    /// length of `tokenizer_config.json`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenizer`] for files that are missing, malformed, or lack CLIP's marks.
    pub fn load(dir: &Path) -> Result<Self, ModelError> {
        let settings = settings(dir)?;
        let whole = dir.join("tokenizer.json");
        if !whole.is_file() {
            return Self::with_marks(from_vocabulary(dir)?, &settings, dir);
        }
        let mut tokenizer = Tokenizer::from_file(&whole).map_err(|error| broken(&whole, &error))?;
        // A file that was saved after use brings its own padding and length along.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| broken(&whole, &error))?;
        Self::new(tokenizer, &settings, dir)
    }

    fn carried(pad: &str) -> Result<Self, ModelError> {
        let place = Path::new(CARRIED);
        let (vocabulary, merges) = clip_tokens(place)?;
        let tokenizer = byte_pairs(BPE::builder().vocab_and_merges(vocabulary, merges), place)?;
        Self::with_marks(tokenizer, &released_settings(pad), place)
    }

    /// Teaches the tokenizer which strings are never cut; all are in its vocabulary already.
    fn with_marks(
        mut tokenizer: Tokenizer,
        settings: &Settings,
        place: &Path,
    ) -> Result<Self, ModelError> {
        tokenizer
            .add_special_tokens(specials(settings, &padding(settings)))
            .map_err(|error| broken(place, &error))?;
        Self::new(tokenizer, settings, place)
    }

    fn new(tokenizer: Tokenizer, settings: &Settings, place: &Path) -> Result<Self, ModelError> {
        let id = |text: &str| {
            tokenizer
                .token_to_id(text)
                .ok_or_else(|| broken(place, &format!("the vocabulary lacks `{text}`")))
        };
        let (begin, end, pad) = (id(BEGIN)?, id(END)?, id(&padding(settings))?);
        let max_length = settings.get("model_max_length").and_then(Value::as_u64).unwrap_or(77);
        // transformers writes 10³⁰ for "no limit".
        let max_length = usize::try_from(max_length).unwrap_or(77).clamp(2, 77);
        Ok(Self { tokenizer, begin, end, pad, max_length })
    }

    /// Ids with begin and end mark, neither padded nor cut.
    ///
    /// # Errors
    ///
    /// When the vocabulary cannot express the text.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.tokenizer.encode(text, false).map_err(|error| {
            ModelError::Tokenizer { path: text.to_owned(), reason: error.to_string() }
        })?;
        let mut ids = vec![self.begin];
        ids.extend(encoding.get_ids());
        ids.push(self.end);
        Ok(ids)
    }

    /// Ids padded to [`ClipTokenizer::max_length`].
    ///
    /// # Errors
    ///
    /// [`ModelError::PromptTooLong`] if `over_length` forbids cutting.
    pub fn encode(&self, text: &str, over_length: OverLength) -> Result<Vec<u32>, ModelError> {
        let mut ids = self.ids(text)?;
        if ids.len() > self.max_length {
            if over_length == OverLength::Error {
                let (found, limit) = (ids.len(), self.max_length);
                return Err(ModelError::PromptTooLong { prompt: text.to_owned(), found, limit });
            }
            ids.truncate(self.max_length - 1);
            ids.push(self.end);
        }
        ids.resize(self.max_length, self.pad);
        Ok(ids)
    }

    /// Tokens of the vocabulary, marks included.
    pub fn n_tokens(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Ids of every encoded text.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Shortens the encoded texts to what a text encoder reads.
    pub fn limit(&mut self, positions: usize) {
        self.max_length = self.max_length.min(positions);
    }
}

fn from_vocabulary(dir: &Path) -> Result<Tokenizer, ModelError> {
    let (vocabulary, merges) = (dir.join("vocab.json"), dir.join("merges.txt"));
    for path in [&vocabulary, &merges] {
        if !path.is_file() {
            return Err(broken(
                dir,
                &format!("neither `tokenizer.json` nor `{}` is there", path.display()),
            ));
        }
    }
    let text = |path: &PathBuf| path.display().to_string();
    byte_pairs(BPE::from_file(&text(&vocabulary), &text(&merges)), dir)
}

/// CLIP's pipeline around a vocabulary and its merges.
fn byte_pairs(vocabulary: BpeBuilder, place: &Path) -> Result<Tokenizer, ModelError> {
    let bpe = vocabulary
        .unk_token(END.to_owned())
        .end_of_word_suffix("</w>".to_owned())
        .build()
        .map_err(|error| broken(place, &error))?;
    let spaces = Replace::new(
        tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".to_owned()),
        " ",
    )
    .map_err(|error| broken(place, &error))?;
    let words =
        Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)
            .map_err(|error| broken(place, &error))?;
    let mut tokenizer = Tokenizer::new(bpe);
    tokenizer
        .with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))
        .map_err(|error| broken(place, &error))?;
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        words.into(),
        ByteLevel::default().add_prefix_space(false).into(),
    ])));
    Ok(tokenizer)
}

/// The 49,408 tokens and 48,894 merges of the released CLIP models.
fn clip_tokens(place: &Path) -> Result<(Vocab, Merges), ModelError> {
    let pair = |line: &str| {
        line.split_once(' ')
            .map(|(left, right)| (left.to_owned(), right.to_owned()))
            .ok_or_else(|| broken(place, &format!("the merge `{line}` is no pair")))
    };
    let lines = clip_vocabulary::merges().lines();
    let merges = lines
        .filter(|line| !line.is_empty() && !line.starts_with("#version"))
        .map(pair)
        .collect::<Result<Merges, ModelError>>()?;
    Ok((clip_vocabulary::tokens().into_iter().zip(0..).collect(), merges))
}

/// `special_tokens_map.json` of the released models, which differ in the padding token alone.
fn released_settings(pad: &str) -> Settings {
    let mark = |text: &str| json!({ "content": text, "normalized": true });
    Settings::from_iter([
        ("bos_token".to_owned(), mark(BEGIN)),
        ("eos_token".to_owned(), mark(END)),
        ("pad_token".to_owned(), json!(pad)),
    ])
}

/// The token that fills up short texts.
fn padding(settings: &Settings) -> String {
    token_text(settings, "pad_token").unwrap_or_else(|| END.to_owned())
}

/// `special_tokens_map.json` overlaid by `tokenizer_config.json`; either may be absent.
fn settings(dir: &Path) -> Result<Settings, ModelError> {
    let mut settings = Settings::new();
    for name in ["special_tokens_map.json", "tokenizer_config.json"] {
        let path = dir.join(name);
        if path.is_file() {
            let value: Value = checkpoints::fs::read_json(&path)?;
            settings.extend(value.as_object().cloned().unwrap_or_default());
        }
    }
    Ok(settings)
}

/// The strings that are never cut. One given as an object may be matched after lower-casing, as its
/// `normalized` says; one given as plain text is matched as typed, and the padding token comes last.
fn specials(settings: &Settings, pad: &str) -> Vec<AddedToken> {
    let normalized = |field: &str| {
        settings
            .get(field)
            .and_then(|value| value.get("normalized"))
            .and_then(Value::as_bool)
            .unwrap_or(false)
    };
    let special = |text: &str, field: &str| {
        AddedToken::from(text.to_owned(), true).normalized(normalized(field))
    };
    let end = if pad == END { "pad_token" } else { "eos_token" };
    let mut tokens = vec![special(BEGIN, "bos_token"), special(END, end)];
    if pad != END {
        tokens.push(special(pad, "pad_token"));
    }
    tokens
}

/// A token given as text or as an object with `content`.
fn token_text(settings: &Settings, field: &str) -> Option<String> {
    let value = settings.get(field)?;
    value.as_str().or_else(|| value.get("content").and_then(Value::as_str)).map(str::to_owned)
}

fn broken(path: &Path, reason: &dyn std::fmt::Display) -> ModelError {
    ModelError::Tokenizer { path: path.display().to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(pad: &'static str) -> ClipTokenizer {
        ClipTokenizer::open(&TokenizerFiles::Clip { pad }).unwrap()
    }

    /// The ids that transformers gives with the files of Stable Diffusion 1.5, 2.1 and XL.
    const KNOWN: [(&str, &[u32]); 4] = [
        ("a photo of a cat", &[320, 1125, 539, 320, 2368]),
        (
            "inkwsh style, a red lighthouse on a cliff at dusk",
            &[4547, 86, 849, 1844, 267, 320, 736, 13717, 525, 320, 10625, 536, 19708],
        ),
        (
            "Ein Bär, 3 Äpfel & café",
            &[24524, 65, 10896, 337, 267, 274, 10896, 79, 20304, 261, 15304],
        ),
        ("", &[]),
    ];

    #[test]
    fn the_carried_vocabulary_gives_the_ids_of_the_released_models() {
        for pad in [END, "!"] {
            let tokenizer = released(pad);
            assert_eq!((tokenizer.n_tokens(), tokenizer.max_length()), (49_408, 77));
            for (text, ids) in KNOWN {
                let expected = [&[49_406][..], ids, &[49_407]].concat();
                assert_eq!(tokenizer.ids(text).unwrap(), expected, "{text:?} with pad `{pad}`");
            }
        }
    }

    #[test]
    fn an_exclamation_mark_is_padding_where_it_pads() {
        let german = "Ein Bär, 3 Äpfel & café!!";
        let end = |pad| released(pad).ids(german).unwrap()[11..].to_vec();
        assert_eq!(end(END), [15_304, 748, 49_407]);
        assert_eq!(end("!"), [15_304, 0, 0, 49_407]);
        for (pad, id) in [(END, 49_407), ("!", 0)] {
            let ids = released(pad).encode("a cat", OverLength::Error).unwrap();
            assert_eq!(ids[..4], [49_406, 320, 2368, 49_407]);
            assert_eq!(ids[4..], [id; 73], "pad `{pad}`");
        }
    }

    #[test]
    fn a_long_text_is_cut_before_the_end_mark_or_refused() {
        let (tokenizer, text) = (released(END), "a ".repeat(80));
        let ids = tokenizer.encode(&text, OverLength::Truncate).unwrap();
        assert_eq!(ids, [&[49_406][..], &[320; 75], &[49_407]].concat());
        let error = tokenizer.encode(&text, OverLength::Error).unwrap_err().to_string();
        assert!(error.contains("82 tokens, the text encoder reads at most 77"), "{error}");
    }
}
