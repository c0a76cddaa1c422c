//! What differs between two resolved recipes, line by line.

/// Lines only on disk (`-`) and only asked for (`+`), in order, each with the line above it that opens its section.
pub(super) fn difference(on_disk: &str, asked_for: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) =
        (on_disk.lines().collect(), asked_for.lines().collect());
    if old == new {
        return "the resolved recipes are equal: the base or the dataset has other content"
            .to_owned();
    }
    let mut out = Vec::new();
    let (mut i, mut j) = (0, 0);
    let common = longest_common(&old, &new);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j >= new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            out.push(format!("- {}", old[i]));
            i += 1;
        } else {
            out.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    out.join("\n")
}

/// `table[i][j]` = length of the longest common subsequence of the lines from `i` and from `j` on. Recipes are short.
fn longest_common(old: &[&str], new: &[&str]) -> Vec<Vec<usize>> {
    let mut table = vec![vec![0; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            table[i][j] = if old[i] == new[j] {
                table[i + 1][j + 1] + 1
            } else {
                table[i + 1][j].max(table[i][j + 1])
            };
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_that_differ_are_shown() {
        let shown =
            difference("name: a\nseed: 7\nsteps: 300\n", "name: a\nseed: 8\nsteps: 300\nema: 1\n");
        assert_eq!(shown, "- seed: 7\n+ seed: 8\n+ ema: 1");
        assert!(difference("a: 1", "a: 1").contains("base or the dataset"));
    }
}
