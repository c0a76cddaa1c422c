//! Which layers a recipe's patterns mean.

use crate::error::ModelError;

/// A layer that an adapter can be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Full path, e.g. `unet.down_blocks.0.attentions.0.….attn1.to_q`.
    pub path: String,
    /// Shape of the weight: `[out, in]` or `[out, in, k, k]`.
    pub weight: Vec<usize>,
}

impl Layer {
    /// Whether it is a convolution of more than one value.
    pub fn is_spatial(&self) -> bool {
        self.weight.len() == 4 && self.weight[2..] != [1, 1]
    }
}

/// A pattern over layer paths: `*` stands for any text inside one component, `**` for any number of
/// components, `{a,b}` for alternatives. An index at the end of a path (`to_out.0`) may be left out.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    alternatives: Vec<Vec<String>>,
}

impl Pattern {
    /// Reads a pattern.
    pub fn new(text: &str) -> Self {
        let split = |pattern: String| pattern.split('.').map(str::to_owned).collect();
        Self { text: text.to_owned(), alternatives: braces(text).into_iter().map(split).collect() }
    }

    /// Whether the pattern means this path.
    pub fn matches(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('.').collect();
        let indexed =
            parts.last().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        let short = &parts[..parts.len() - usize::from(indexed)];
        self.alternatives
            .iter()
            .any(|pattern| components(pattern, &parts) || components(pattern, short))
    }
}

/// Expands the first `{…}` and recurses.
fn braces(text: &str) -> Vec<String> {
    let Some((before, rest)) = text.split_once('{') else { return vec![text.to_owned()] };
    let Some((inside, after)) = rest.split_once('}') else { return vec![text.to_owned()] };
    inside
        .split(',')
        .flat_map(|choice| braces(&format!("{before}{}{after}", choice.trim())))
        .collect()
}

fn components(pattern: &[String], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => {
            components(rest, path)
                || path.split_first().is_some_and(|(_, tail)| components(pattern, tail))
        }
        (Some((first, rest)), Some((head, tail))) => {
            wildcard(first, head) && components(rest, tail)
        }
        _ => false,
    }
}

fn wildcard(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|&cut| rest.is_char_boundary(cut))
                .any(|cut| wildcard(after, &rest[cut..]))
        }),
    }
}

/// The layers that `patterns` mean, in the order of `layers`.
///
/// # Errors
///
/// [`ModelError::NoSuchLayer`] for the first pattern that means no layer, with the nearest paths.
pub fn select(layers: &[Layer], patterns: &[String]) -> Result<Vec<Layer>, ModelError> {
    let patterns: Vec<Pattern> = patterns.iter().map(|text| Pattern::new(text)).collect();
    for pattern in &patterns {
        if !layers.iter().any(|layer| pattern.matches(&layer.path)) {
            return Err(ModelError::NoSuchLayer {
                pattern: pattern.text.clone(),
                nearest: nearest(layers, &pattern.text),
            });
        }
    }
    Ok(layers
        .iter()
        .filter(|layer| patterns.iter().any(|pattern| pattern.matches(&layer.path)))
        .cloned()
        .collect())
}

/// The three paths that share most components with the pattern.
fn nearest(layers: &[Layer], pattern: &str) -> String {
    let wanted: Vec<&str> =
        pattern.split(['.', '*', '{', '}', ',']).filter(|part| !part.is_empty()).collect();
    let score = |path: &str| wanted.iter().filter(|part| path.contains(**part)).count();
    let mut ranked: Vec<&str> = layers.iter().map(|layer| layer.path.as_str()).collect();
    ranked.sort_by_key(|path| std::cmp::Reverse(score(path)));
    ranked.iter().take(3).map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn double_star_spans_components_and_a_final_index_may_be_left_out() {
        let attention = Pattern::new("unet.**.attn*.{to_q,to_out}");
        assert!(attention.matches("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"));
        assert!(
            attention.matches("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0")
        );
        assert!(!attention.matches("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_k"));
        assert!(!attention.matches("unet.mid_block.resnets.0.conv1"));
        assert!(Pattern::new("unet.**.ff.net.2").matches("unet.a.ff.net.2"));
        assert!(!Pattern::new("unet.**.attn*.to_q").matches("text.x.attn1.to_q"));
    }

    #[test]
    fn a_pattern_that_means_nothing_is_an_error_with_the_nearest_paths() {
        let layers = [Layer { path: "unet.a.attn1.to_q".to_owned(), weight: vec![2, 2] }];
        let error = select(&layers, &["unet.**.attn*.to_z".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("unet.**.attn*.to_z") && error.contains("`unet.a.attn1.to_q`"),
            "{error}"
        );
    }
}
