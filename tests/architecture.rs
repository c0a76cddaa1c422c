//! The invariants of the architecture that can be read from manifests and sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;

use crate::world::root;

/// Each crate, its sentence, and the crates of the workspace that it may depend on.
const CRATES: [(&str, &str, &[&str]); 12] = [
    ("recipes", "Turns YAML into a typed, resolved, immutable `Recipe`.", &[]),
    ("diffusion", "The mathematics of noising and denoising over a closure `denoise(x, t)`.", &[]),
    (
        "datasets",
        "Turns images and captions, found or rendered, into deterministic host batches.",
        &["recipes"],
    ),
    (
        "checkpoints",
        "Reads and writes named tensors and their provenance, atomically.",
        &["recipes"],
    ),
    (
        "models",
        "Builds the networks, attaches the adapter, owns the custom ops.",
        &["checkpoints", "recipes"],
    ),
    (
        "trainer",
        "Fits an adapter to a dataset and commits checkpoints.",
        &["checkpoints", "datasets", "diffusion", "models", "recipes"],
    ),
    ("statistics", "Turns counts, pairs and distances into figures with intervals.", &["recipes"]),
    (
        "eval",
        "Measures what a settled concept changed, from what lies on disk.",
        &["checkpoints", "datasets", "diffusion", "models", "recipes", "statistics"],
    ),
    (
        "answers",
        "Proves every instrument on worlds whose answer is known.",
        &["checkpoints", "datasets", "diffusion", "eval", "models", "recipes", "statistics"],
    ),
    (
        "report",
        "Draws the page of a census: a pure function of what was recorded.",
        &["eval", "statistics"],
    ),
    (
        "cli",
        "Parses arguments, calls one function per verb, shows what happens.",
        &[
            "answers",
            "checkpoints",
            "datasets",
            "diffusion",
            "eval",
            "models",
            "recipes",
            "report",
            "statistics",
            "trainer",
        ],
    ),
    (
        "acceptance",
        "Proves the promises from outside.",
        &[
            "answers",
            "checkpoints",
            "cli",
            "datasets",
            "diffusion",
            "eval",
            "models",
            "recipes",
            "report",
            "statistics",
            "trainer",
        ],
    ),
];

/// The expectations of unsafe code: each file, and how many it may have.
const UNSAFE: [(&str, usize); 4] = [
    ("checkpoints/src/mapped.rs", 1),
    ("models/src/ops/gemm.rs", 1),
    ("models/src/ops/simd.rs", 2),
    ("cli/src/main.rs", 1),
];

/// A source file of the program, without comments and without its test module.
struct Source {
    /// From the root, with `/`.
    path: String,
    /// The text as it is.
    text: String,
    /// The code: neither comments nor tests.
    code: String,
}

/// All sources of the crates; files that exist for tests only are left out.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for (name, _, _) in CRATES.iter().filter(|(name, _, _)| *name != "acceptance") {
        collect(&root().join(name).join("src"), &mut paths);
    }
    paths.sort();
    let tests = test_only(&paths);
    let sources: Vec<Source> =
        paths.iter().filter(|path| !tests.contains(*path)).map(|path| source(path)).collect();
    assert!(sources.len() > 100, "{} files were found", sources.len());
    sources
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            paths.push(path);
        }
    }
}

/// Files declared as `#[cfg(test)] mod name;`.
fn test_only(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for path in paths {
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            let Some((_, name)) = pair[1].split_once("mod ") else { continue };
            let Some(name) = name.strip_suffix(';') else { continue };
            let stem = path.file_stem().unwrap().to_string_lossy();
            let dir = path.parent().unwrap();
            let dir =
                if stem == "mod" || stem == "lib" { dir.to_owned() } else { dir.join(&*stem) };
            found.insert(dir.join(format!("{name}.rs")));
        }
    }
    found
}

fn source(path: &Path) -> Source {
    let text = std::fs::read_to_string(path).unwrap();
    let relative = path.strip_prefix(root()).unwrap().display().to_string();
    let code = program_of(&text).lines().map(without_comment).collect::<Vec<_>>().join("\n");
    Source { path: relative, text, code }
}

/// Everything before the first inline test module.
fn program_of(text: &str) -> &str {
    let start = text.find("#[cfg(test)]\nmod tests {");
    let start = start.or_else(|| text.find("#[cfg(test)]\npub(crate) mod faults {"));
    start.map_or(text, |start| &text[..start])
}

fn without_comment(line: &str) -> &str {
    let line = line.trim_start();
    if line.starts_with("//") { "" } else { line.split(" // ").next().unwrap_or(line) }
}

/// Files whose code holds one of `words`, less those where it is allowed.
fn found(words: &[&str], allowed: &[&str]) -> Vec<String> {
    // `EventFile::create` is no `File::create`.
    let begins = |code: &str, at: usize, word: &str| {
        !word.starts_with(char::is_alphanumeric) || !code[..at].ends_with(char::is_alphanumeric)
    };
    let holds = |source: &Source| {
        let code = &source.code;
        words.iter().any(|word| code.match_indices(word).any(|(at, _)| begins(code, at, word)))
    };
    let is_allowed = |path: &str| allowed.iter().any(|start| path.starts_with(start));
    let sources = sources().into_iter().filter(|source| holds(source) && !is_allowed(&source.path));
    sources.map(|source| source.path).collect()
}

fn expect_none(words: &[&str], allowed: &[&str]) {
    let found = found(words, allowed);
    assert!(found.is_empty(), "{words:?} in {found:?}");
}

/// `word` standing alone, not as part of a longer name.
fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[test]
fn arrows_only_point_down() {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--offline".to_owned()])
        .exec()
        .unwrap();
    let known: BTreeMap<&str, (&str, &[&str])> =
        CRATES.iter().map(|&(name, sentence, arrows)| (name, (sentence, arrows))).collect();
    assert_eq!(metadata.packages.len(), known.len());
    for package in &metadata.packages {
        let name = package.name.as_str();
        let (sentence, arrows) = known[name];
        assert_eq!(package.description.as_deref(), Some(sentence), "{name}");
        assert!(package.publish.as_ref().is_some_and(Vec::is_empty), "{name} could be published");
        // Normal, development and build dependencies count.
        for dependency in &package.dependencies {
            let target = dependency.name.as_str();
            if known.contains_key(target) {
                assert!(arrows.contains(&target), "{name} depends on {target}");
            }
            if ["recipes", "datasets"].contains(&name) {
                assert!(!target.starts_with("burn"), "{name} depends on {target}");
            }
            if name == "diffusion" {
                let mathematics = ["burn", "libm", "serde", "serde_json", "thiserror", "proptest"];
                assert!(mathematics.contains(&target), "diffusion depends on {target}");
            }
        }
    }
}

#[test]
fn every_crate_opens_with_its_sentence() {
    for (name, sentence, _) in CRATES.iter().filter(|(name, _, _)| *name != "acceptance") {
        let text = std::fs::read_to_string(root().join(name).join("src/lib.rs")).unwrap();
        assert!(text.starts_with(&format!("//! {sentence}")), "{name}");
    }
}

#[test]
fn diffusion_knows_no_file_and_draws_nothing() {
    let outside =
        ["std::fs", "std::path", "fs_err", "draws", "Tensor::random", "thread_rng", "rand::"];
    let sources: Vec<Source> =
        sources().into_iter().filter(|source| source.path.starts_with("diffusion/")).collect();
    for source in &sources {
        for word in outside {
            assert!(!source.code.contains(word), "{word} in {}", source.path);
        }
    }
    assert!(!sources.is_empty());
}

#[test]
fn only_the_terminal_prints() {
    expect_none(&["println!", "eprintln!", "print!(", "eprint!(", "dbg!"], &[]);
    expect_none(&["io::stdout", "io::stderr", "stdout()", "stderr()"], &["cli/src/terminal.rs"]);
}

#[test]
fn only_the_environment_reads_environment_and_clock() {
    let allowed = ["cli/src/environment.rs"];
    expect_none(&["env::var", "env::vars", "env::args"], &allowed);
    expect_none(&["SystemTime::now"], &allowed);
    expect_none(&["Instant::now"], &["cli/src/environment.rs", "cli/src/signals.rs"]);
}

#[test]
fn only_one_place_knows_exit_codes_and_only_one_leaves_at_once() {
    expect_none(&["process::exit", "process::abort"], &["cli/src/signals.rs"]);
    let exits: Vec<String> = found(&["ExitCode::from"], &["cli/src/lib.rs"]);
    assert!(exits.is_empty(), "{exits:?}");
}

#[test]
fn only_checkpoints_writes_files() {
    let writers = ["File::create", "OpenOptions", "fs::write(", "create_dir_all(", ".set_len("];
    let allowed = [
        "checkpoints/src/fs.rs",
        "checkpoints/src/run_dir/lock.rs",
        // Through the trait that only `fs.rs` implements.
        "checkpoints/src/postcards.rs",
        "checkpoints/src/run_dir/checkpoint.rs",
    ];
    expect_none(&writers, &allowed);
}

#[test]
fn the_recipe_is_named_only_where_a_whole_recipe_is_needed() {
    let allowed = [
        "recipes/",
        "trainer/",
        "eval/",
        "cli/",
        "checkpoints/src/manifest.rs",
        "checkpoints/src/run_dir/",
    ];
    let names = |source: &Source| {
        has_word(&source.code, "Recipe") || has_word(&source.code, "PretrainRecipe")
    };
    for source in sources().iter().filter(|source| names(source)) {
        let is_allowed = allowed.iter().any(|start| source.path.starts_with(start))
            // The kind of an error that the cli maps to its exit code, not the recipe.
            || source.code.replace("ErrorKind::Recipe", "").matches("Recipe").count() == 0
            || source.path == "checkpoints/src/advice.rs";
        assert!(is_allowed, "{}", source.path);
    }
}

#[test]
fn no_spec_has_a_default() {
    for source in sources() {
        for line in source.code.lines().filter(|line| line.contains("impl Default for ")) {
            assert!(!line.contains("Spec"), "{line} in {}", source.path);
        }
        let lines: Vec<&str> = source.code.lines().collect();
        for (index, line) in
            lines.iter().enumerate().filter(|(_, line)| line.contains("pub struct "))
        {
            let derives =
                lines[index.saturating_sub(3)..index].iter().any(|l| l.contains("Default"));
            assert!(!(derives && line.contains("Spec ")), "{line} in {}", source.path);
        }
    }
}

#[test]
fn only_models_ops_and_cli_name_a_backend() {
    let backends = [
        "burn_flex",
        "burn_cubecl",
        "burn_cuda",
        "cubecl::",
        "burn::backend",
        "Flex>",
        "Device::cuda",
        "Device::flex",
    ];
    expect_none(&backends, &["models/src/ops/", "cli/src/device.rs"]);
    expect_none(&["Device::default()", "Device::seed", "Tensor::random", "device.seed("], &[]);
}

#[test]
fn nothing_is_global_and_no_order_is_arbitrary() {
    expect_none(
        &["static mut", "lazy_static", "OnceLock", "LazyLock", "OnceCell", "thread_local!"],
        &[],
    );
    expect_none(&["HashMap", "HashSet"], &[]);
    for source in sources() {
        for line in source.code.lines() {
            let declares = line.trim_start_matches("pub ").starts_with("static ");
            // The allocator must be one.
            assert!(!declares || source.path == "cli/src/main.rs", "{line} in {}", source.path);
        }
    }
}

#[test]
fn unsafe_code_stands_where_it_is_listed() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for source in sources() {
        let n_expected = source.code.matches("unsafe_code").count();
        let n_blocks =
            source.code.matches("unsafe {").count() + source.code.matches("unsafe fn").count();
        assert!(n_blocks == 0 || n_expected > 0, "{} has no expectation", source.path);
        if n_expected > 0 {
            counts.insert(source.path, n_expected);
        }
    }
    let listed: BTreeMap<String, usize> =
        UNSAFE.iter().map(|&(path, count)| (path.to_owned(), count)).collect();
    assert_eq!(counts, listed);
}

#[test]
fn files_are_short_and_have_names() {
    const MAX_LINES: usize = 500;
    for source in sources() {
        let n_lines = program_of(&source.text).lines().count();
        assert!(n_lines <= MAX_LINES, "{} has {n_lines} lines", source.path);
        let stem = Path::new(&source.path).file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            !["utils", "util", "common", "misc", "helpers"].contains(&stem.as_str()),
            "{}",
            source.path
        );
    }
}

#[test]
fn every_module_opens_with_what_it_owns() {
    for source in sources() {
        let opens = source.text.starts_with("//! ") || source.path == "cli/src/main.rs";
        assert!(opens, "{}", source.path);
    }
}

#[test]
fn golden_files_are_small_and_lie_beside_their_script() {
    const MAX_BYTES: u64 = 1 << 20;
    let golden = root().join("scripts/golden");
    let mut n_cases = 0;
    for entry in std::fs::read_dir(golden).unwrap() {
        let case = entry.unwrap().path();
        if !case.join("make.py").is_file() {
            continue;
        }
        n_cases += 1;
        assert!(case.join("versions.txt").is_file(), "{}", case.display());
        for file in std::fs::read_dir(&case).unwrap() {
            let file = file.unwrap();
            let size = file.metadata().unwrap().len();
            assert!(size <= MAX_BYTES, "{} has {size} bytes", file.path().display());
        }
    }
    assert!(n_cases >= 15, "{n_cases} golden cases were found");
}

#[test]
fn the_embedded_base_is_small() {
    const MAX_BYTES: u64 = 24 << 20;
    fn size(dir: &Path) -> u64 {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| {
                if entry.path().is_dir() {
                    size(&entry.path())
                } else {
                    entry.metadata().unwrap().len()
                }
            })
            .sum()
    }
    let dir = root().join("checkpoints/postcards");
    let n_bytes = size(&dir);
    assert!(n_bytes <= MAX_BYTES, "{n_bytes} bytes");
    assert!(dir.join("model_index.json").is_file());
}
