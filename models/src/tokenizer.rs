//! CLIP's byte-pair encoding.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::models::bpe::BPE;
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
    /// Reads `tokenizer.json`, or else `vocab.json` and `merges.txt`, with the padding token and the
    /// length of `tokenizer_config.json`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenizer`] for files that are missing, malformed, or lack CLIP's marks.
    pub fn load(dir: &Path) -> Result<Self, ModelError> {
        let settings = settings(dir)?;
        let whole = dir.join("tokenizer.json");
        let pad = token_text(&settings, "pad_token").unwrap_or_else(|| END.to_owned());
        let tokenizer = if whole.is_file() {
            let mut tokenizer =
                Tokenizer::from_file(&whole).map_err(|error| broken(&whole, &error))?;
            // A file that was saved after use brings its own padding and length along.
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None).map_err(|error| broken(&whole, &error))?;
            tokenizer
        } else {
            let mut tokenizer = from_vocabulary(dir)?;
            // Adding is how a tokenizer learns that these strings are never cut; all exist already.
            tokenizer
                .add_special_tokens(specials(&settings, &pad))
                .map_err(|error| broken(dir, &error))?;
            tokenizer
        };
        let id = |text: &str| {
            tokenizer
                .token_to_id(text)
                .ok_or_else(|| broken(dir, &format!("the vocabulary lacks `{text}`")))
        };
        let (begin, end, pad) = (id(BEGIN)?, id(END)?, id(&pad)?);
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
    let bpe = BPE::from_file(&text(&vocabulary), &text(&merges))
        .unk_token(END.to_owned())
        .end_of_word_suffix("</w>".to_owned())
        .build()
        .map_err(|error| broken(dir, &error))?;
    let spaces = Replace::new(
        tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".to_owned()),
        " ",
    )
    .map_err(|error| broken(dir, &error))?;
    let words =
        Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)
            .map_err(|error| broken(dir, &error))?;
    let mut tokenizer = Tokenizer::new(bpe);
    tokenizer
        .with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))
        .map_err(|error| broken(dir, &error))?;
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        words.into(),
        ByteLevel::default().add_prefix_space(false).into(),
    ])));
    Ok(tokenizer)
}

/// `special_tokens_map.json` overlaid by `tokenizer_config.json`; either may be absent.
fn settings(dir: &Path) -> Result<serde_json::Map<String, Value>, ModelError> {
    let mut settings = serde_json::Map::new();
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
fn specials(settings: &serde_json::Map<String, Value>, pad: &str) -> Vec<AddedToken> {
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
fn token_text(settings: &serde_json::Map<String, Value>, field: &str) -> Option<String> {
    let value = settings.get(field)?;
    value.as_str().or_else(|| value.get("content").and_then(Value::as_str)).map(str::to_owned)
}

fn broken(path: &Path, reason: &dyn std::fmt::Display) -> ModelError {
    ModelError::Tokenizer { path: path.display().to_string(), reason: reason.to_string() }
}
