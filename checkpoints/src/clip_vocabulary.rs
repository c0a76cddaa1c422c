//! The vocabulary of CLIP, which every Stable Diffusion model reads: a single file of weights brings none along.
//!
//! Source: the merges of `OpenAI`'s CLIP (MIT, see NOTICE). Everything else follows from them: 256 symbols of bytes,
//! the same at the end of a word, one token per merge, and the two marks.

/// `merges.txt` as transformers ships it: the line `#version: 0.2`, then 48,894 merges in the order of their rank.
const MERGES: &str = include_str!("../data/clip-merges.txt");

/// Marks the beginning of a text; token 49406.
pub const BEGIN: &str = "<|startoftext|>";
/// Marks the end of a text, token 49407; pads in SD 1.x and in the first encoder of SDXL.
pub const END: &str = "<|endoftext|>";
/// Token 0, which pads in SD 2.x and in the second encoder of SDXL.
pub const EXCLAMATION: &str = "!";

/// What ends the last piece of a word.
const END_OF_WORD: &str = "</w>";

/// The text of `merges.txt` as transformers ships it: a version line and 48,894 merges.
pub const fn merges() -> &'static str {
    MERGES
}

/// All 49,408 tokens; the place of a token is its id, as in `vocab.json`.
pub fn tokens() -> Vec<String> {
    let symbols: Vec<String> = byte_symbols().iter().map(char::to_string).collect();
    let last: Vec<String> = symbols.iter().map(|symbol| format!("{symbol}{END_OF_WORD}")).collect();
    let merged = MERGES.lines().skip(1).map(|pair| pair.replace(' ', ""));
    let marks = [BEGIN, END].map(str::to_owned);
    symbols.into_iter().chain(last).chain(merged).chain(marks).collect()
}

/// The character that stands for each byte, in the order of CLIP's table: bytes that show as themselves come first, the
/// others follow as the characters from U+0100 on.
fn byte_symbols() -> Vec<char> {
    let shows = |byte: &u32| matches!(*byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let shown: Vec<u32> = (0..=0xff).filter(shows).collect();
    let n_hidden = 0x100 - shown.len() as u32;
    shown.into_iter().chain(0x100..0x100 + n_hidden).filter_map(char::from_u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_is_the_published_one() {
        // The file of openai/clip-vit-large-patch14.
        let expected = "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a";
        assert_eq!(crate::hash::bytes_sha256(MERGES.as_bytes()), expected);
        assert_eq!(MERGES.lines().count(), 48_895);
        let tokens = tokens();
        assert_eq!(tokens.len(), 49_408);
        for (id, token) in [
            (0, EXCLAMATION),
            (255, "Ń"),
            (256, "!</w>"),
            (320, "a</w>"),
            (512, "in"),
            (539, "of</w>"),
            (1125, "photo</w>"),
            (2368, "cat</w>"),
            (49_405, "jekyll</w>"),
            (49_406, BEGIN),
            (49_407, END),
        ] {
            assert_eq!(tokens[id], token, "{id}");
        }
        let mut unique = tokens;
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), 49_408);
    }
}
