//! A byte-pair vocabulary in which every word of the postcards' captions is one token.

use std::collections::BTreeMap;
use std::path::Path;

use checkpoints::CheckpointError;
use datasets::postcards;
use models::tokenizer::{BEGIN, END};
use serde_json::{Map, Value, json};

/// Longest text, in tokens with both marks.
const MAX_TOKENS: usize = 32;

/// Writes `vocab.json`, `merges.txt` and the settings of a `CLIPTokenizer` into `dir`, and the
/// vocabulary's size and marks into the text encoder's configuration.
///
/// Words outside the lexicon fall into smaller pieces, in the end into bytes; none is unknown.
pub(super) fn write(dir: &Path, text_config: &mut Value) -> Result<(), CheckpointError> {
    let merges = merges(&postcards::lexicon());
    let mut tokens: Vec<String> = byte_alphabet().iter().map(char::to_string).collect();
    tokens.extend(byte_alphabet().iter().map(|symbol| format!("{symbol}</w>")));
    tokens.extend(merges.iter().map(|(left, right)| format!("{left}{right}")));
    tokens.extend([BEGIN.to_owned(), END.to_owned()]);
    let vocabulary: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let lines: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
    let lines = lines.join("\n");
    let settings = json!({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_TOKENS, "do_lower_case": true,
        "bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END, "errors": "replace",
    });
    checkpoints::fs::atomic_write_json(&dir.join("vocab.json"), &Value::Object(vocabulary))?;
    checkpoints::fs::atomic_write(
        &dir.join("merges.txt"),
        format!("#version: 0.2\n{lines}\n").as_bytes(),
    )?;
    checkpoints::fs::atomic_write_json(&dir.join("tokenizer_config.json"), &settings)?;
    let marks = json!({ "bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END });
    checkpoints::fs::atomic_write_json(&dir.join("special_tokens_map.json"), &marks)?;
    text_config["vocab_size"] = json!(tokens.len());
    text_config["bos_token_id"] = json!(tokens.len() - 2);
    text_config["eos_token_id"] = json!(tokens.len() - 1);
    text_config["pad_token_id"] = json!(tokens.len() - 1);
    text_config["max_position_embeddings"] = json!(MAX_TOKENS);
    Ok(())
}

/// The 256 printable characters that stand for bytes, in the order of CLIP's vocabulary.
///
/// Source: `bytes_to_unicode` of the GPT-2 encoder.
fn byte_alphabet() -> Vec<char> {
    let printable = (0x21..=0x7e).chain(0xa1..=0xac).chain(0xae..=0xff);
    printable.chain(0x100..0x144).filter_map(char::from_u32).collect()
}

/// Merges learned from words that count once each: always the commonest pair, the first in order of
/// text on ties, until every word is whole.
///
/// Source: Sennrich et al. 2016, arXiv:1508.07909, algorithm 1.
fn merges(words: &[String]) -> Vec<(String, String)> {
    let mut pieces: Vec<Vec<String>> = words.iter().map(|word| symbols(word)).collect();
    let mut merges = Vec::new();
    loop {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for word in &pieces {
            for pair in word.windows(2) {
                *counts.entry((&pair[0], &pair[1])).or_default() += 1;
            }
        }
        let best =
            counts.iter().max_by(|left, right| left.1.cmp(right.1).then(right.0.cmp(left.0)));
        let Some((&(left, right), _)) = best else { return merges };
        let pair = (left.to_owned(), right.to_owned());
        for word in &mut pieces {
            merge(word, &pair);
        }
        merges.push(pair);
    }
}

fn symbols(word: &str) -> Vec<String> {
    let mut symbols: Vec<String> = word.chars().map(String::from).collect();
    if let Some(last) = symbols.last_mut() {
        last.push_str("</w>");
    }
    symbols
}

fn merge(word: &mut Vec<String>, (left, right): &(String, String)) {
    let mut at = 0;
    while at + 1 < word.len() {
        if word[at] == *left && word[at + 1] == *right {
            let tail = word.remove(at + 1);
            word[at].push_str(&tail);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::ClipTokenizer;

    #[test]
    fn every_word_of_the_lexicon_is_one_token_and_other_words_fall_apart() {
        let dir = tempfile::tempdir().expect("a scratch folder");
        let mut config = json!({});
        write(dir.path(), &mut config).expect("writes");
        let tokenizer = ClipTokenizer::load(dir.path()).expect("loads");
        for word in postcards::lexicon() {
            let ids = tokenizer.ids(&word).expect("encodes");
            assert_eq!(ids.len(), 3, "`{word}` is {ids:?}");
        }
        let unknown = tokenizer.ids("sks é").expect("encodes");
        let end = u32::try_from(config["eos_token_id"].as_u64().expect("set")).expect("small");
        assert_eq!(
            unknown.iter().filter(|&&id| id == end).count(),
            1,
            "{unknown:?} holds an unknown token"
        );
    }
}
