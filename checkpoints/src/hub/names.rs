//! Names of the hub and how they become paths of the cache: none of them can lead out of it.

use super::HubError;

/// Longest part of a model's name.
const MAX_PART: usize = 96;
/// Longest name of anything else.
const MAX_NAME: usize = 255;
/// Digits of a commit.
const COMMIT_DIGITS: usize = 40;
/// Fewest digits that may stand for a commit, as git abbreviates them.
const FEWEST_DIGITS: usize = 7;

/// Whether this is a whole commit: 40 hex digits.
pub fn is_commit(text: &str) -> bool {
    text.len() == COMMIT_DIGITS && is_hex(text)
}

/// Whether this is a sha256: 64 hex digits. The hub names large files so.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// Whether this may be the beginning of a commit.
pub(super) fn begins_commit(text: &str) -> bool {
    (FEWEST_DIGITS..=COMMIT_DIGITS).contains(&text.len()) && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The folder of a model: `models--org--name`. No two models share one, because no name holds `--`.
///
/// Source: `repo_folder_name` and `validate_repo_id` of `huggingface_hub`.
pub(super) fn folder_name(repo: &str) -> Result<String, HubError> {
    let parts: Vec<&str> = repo.split('/').collect();
    let is_name = parts.len() == 2 && parts.iter().all(|part| is_part(part));
    // That ending belongs to the hub's addresses for git.
    if is_name && repo.strip_suffix(".git").is_none() {
        return Ok(format!("models--{}", parts.join("--")));
    }
    Err(HubError::Name {
        what: "model of the hub",
        name: repo.to_owned(),
        expected: "`org/name` of letters, digits, `_`, and inside `-` and `.`, none of them doubled",
    })
}

fn is_part(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = part.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    part.len() <= MAX_PART
        && ends.iter().all(|end| end.is_some_and(|byte| is_word(*byte)))
        && bytes.iter().all(|byte| is_word(*byte) || b"-.".contains(byte))
        && !part.contains("--")
        && !part.contains("..")
}

/// A branch, a tag or a commit; it may hold slashes (`refs/pr/1`).
pub(super) fn check_revision(revision: &str) -> Result<(), HubError> {
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    if is_path(revision) && !revision.contains(is_odd) {
        return Ok(());
    }
    Err(HubError::Name {
        what: "revision",
        name: revision.to_owned(),
        expected: "a branch, a tag or a commit",
    })
}

/// A whole commit.
pub(super) fn check_commit(commit: &str) -> Result<(), HubError> {
    if is_commit(commit) {
        return Ok(());
    }
    Err(HubError::Name { what: "commit", name: commit.to_owned(), expected: "40 hex digits" })
}

/// A file by its path in the repository.
pub(super) fn check_file(name: &str) -> Result<(), HubError> {
    let is_odd = |c: char| c.is_control() || "\\:".contains(c);
    if is_path(name) && !name.contains(is_odd) {
        return Ok(());
    }
    Err(HubError::Name {
        what: "file of a model",
        name: name.to_owned(),
        expected: "a relative path without `..`",
    })
}

/// The name of a file's bytes.
pub(super) fn check_etag(etag: &str) -> Result<(), HubError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !etag.is_empty() && etag.len() <= MAX_NAME - 16 && etag.bytes().all(is_plain) {
        return Ok(());
    }
    Err(HubError::Name {
        what: "ETag of the hub",
        name: etag.chars().take(MAX_NAME).collect(),
        expected: "letters and digits",
    })
}

/// Whether names joined by `/` lead nowhere but down, and to no hidden file.
fn is_path(text: &str) -> bool {
    let is_name = |part: &str| !part.is_empty() && part.len() <= MAX_NAME && !part.starts_with('.');
    text.len() <= 4 * MAX_NAME && text.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_the_folder_that_the_hubs_tools_give_it() {
        let folder = |repo: &str| folder_name(repo).unwrap();
        assert_eq!(folder("org/name"), "models--org--name");
        assert_eq!(folder("org_1/sd-1.5_x"), "models--org_1--sd-1.5_x");
        for repo in [
            "name",
            "a/b/c",
            "/name",
            "org/",
            "../name",
            "org/..",
            "org/a--b",
            "org/a..b",
            "-org/name",
            "org/name.",
            "org/name.git",
            "org/na me",
            "org/näme",
            "org\\name",
            "org/a\u{0}",
        ] {
            let error = folder_name(repo).unwrap_err();
            assert!(matches!(error, HubError::Name { .. }), "{repo}: {error}");
        }
        assert!(folder_name(&format!("org/{}", "a".repeat(96))).is_ok());
        assert!(folder_name(&format!("org/{}", "a".repeat(97))).is_err());
    }

    #[test]
    fn no_revision_and_no_file_leads_out_of_the_cache() {
        for name in ["main", "refs/pr/1", "v1.5", "fp16", "0123abc"] {
            assert!(check_revision(name).is_ok(), "{name}");
        }
        for name in ["unet/config.json", "v1-5.safetensors", "a b/c.json"] {
            assert!(check_file(name).is_ok(), "{name}");
        }
        for name in
            ["", "/etc/x", "../x", "a/../../x", "a//b", "a\\..\\x", "C:x", ".hidden", "a\nb"]
        {
            assert!(check_revision(name).is_err(), "{name}");
            assert!(check_file(name).is_err(), "{name}");
        }
        for etag in ["", "..", "a/b", "a.b", "\"a\"", &"a".repeat(250)] {
            assert!(check_etag(etag).is_err(), "{etag}");
        }
        assert!(check_etag(&"0a".repeat(32)).is_ok());
    }
}
