//! Lists the files of the base that the binary carries, with their hashes.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script its folders through the environment"
)]
fn main() -> Result<(), Box<dyn Error>> {
    let root =
        PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo names the folder")?)
            .join("postcards");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo names the output folder")?);
    let mut files = Vec::new();
    if root.is_dir() {
        collect(&root, &mut files)?;
    }
    // A word changed on the model card is no other base.
    files.retain(|file| *file != root.join("README.md"));
    files.sort();
    let mut table = "[\n".to_owned();
    for path in &files {
        let relative =
            path.strip_prefix(&root)?.to_str().ok_or("file names are UTF-8")?.replace('\\', "/");
        let sha256 = hex::encode(Sha256::digest(fs_err::read(path)?));
        writeln!(
            table,
            "EmbeddedFile {{ path: {relative:?}, bytes: include_bytes!({:?}), sha256: {sha256:?} }},",
            path.to_str().ok_or("paths are UTF-8")?
        )?;
    }
    table.push_str("]\n");
    fs_err::write(out.join("postcards.rs"), table)?;
    println!("cargo::rerun-if-changed=build.rs");
    if !root.is_dir() {
        // A missing folder would run this anew each time.
        println!("cargo::rerun-if-changed=.");
    }
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    let watched = folders.into_iter().filter(|folder| *folder != root);
    for path in watched.chain(files.iter().map(PathBuf::as_path)) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    Ok(())
}

/// Regular files that are not hidden, at any depth.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs_err::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden {
            collect(&path, files)?;
        } else if path.is_file() && !hidden {
            files.push(path);
        }
    }
    Ok(())
}
