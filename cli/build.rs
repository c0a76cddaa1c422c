//! Tells the program from which commit it is built, if it is built from a checkout with git.

use std::path::Path;
use std::process::Command;

fn main() {
    for watched in [".git/HEAD", ".git/index", "Cargo.lock"] {
        let path = Path::new("..").join(watched);
        // A path that does not exist would make every build run this again.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src");
    let commit = git(&["rev-parse", "HEAD"]);
    println!("cargo::rustc-env=POPULATE_COMMIT={}", commit.as_deref().unwrap_or_default().trim());
    let changes = git(&["status", "--porcelain", "--untracked-files=no"]);
    let is_dirty = changes.is_none_or(|changes| !changes.trim().is_empty());
    println!("cargo::rustc-env=POPULATE_DIRTY={is_dirty}");
}

/// The output of a git command; nothing where there is no git, or no checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
