//! "Did you mean": the nearest known word.

/// Similarity (Jaro–Winkler) from which a word is worth suggesting.
const NEAR_ENOUGH: f64 = 0.75;

/// The word of `known` nearest to `found`, if any is near.
pub(crate) fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let found = found.to_lowercase();
    known
        .iter()
        .map(|&word| (strsim::jaro_winkler(&found, word), word))
        .filter(|(similarity, _)| *similarity >= NEAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_suggested() {
        let known = ["steps", "schedule", "save_every", "optimizer"];
        assert_eq!(nearest("stpes", &known), Some("steps"));
        assert_eq!(nearest("Scheduler", &known), Some("schedule"));
        assert_eq!(nearest("save_evry", &known), Some("save_every"));
    }

    #[test]
    fn a_different_word_is_not() {
        assert_eq!(nearest("xyzzy", &["steps", "schedule"]), None);
        assert_eq!(nearest("", &["steps"]), None);
    }
}
