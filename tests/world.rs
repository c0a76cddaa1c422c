//! What the promises are proved on: the program, a tiny base, a few pictures, a recipe.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use image::RgbImage;
use models::Device;
use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_acceptance-populate");

/// Root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A folder with a tiny base, pictures of the cylinder and room for recipes and runs.
pub(crate) struct World {
    dir: TempDir,
}

impl World {
    /// An empty folder.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// Draws the pictures and writes the base.
    pub(crate) fn new() -> Self {
        let world = Self::empty();
        models::tiny::write(&world.path("base"), 7, &Device::flex()).unwrap();
        let pictures = world.path("pictures");
        std::fs::create_dir(&pictures).unwrap();
        for index in 0..4 {
            let (picture, _) = datasets::concept::cylinder(1970, index, 64);
            picture.save(pictures.join(format!("{index}.png"))).unwrap();
        }
        world
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A recipe on the tiny base; `more` is appended.
    pub(crate) fn recipe(&self, steps: u64, more: &str) -> PathBuf {
        let save_every = steps.min(4);
        let text = format!(
            "name: tiny
seed: 7
base: {{ folder: {{ weights: base }} }}
dataset:
  dreambooth:
    instance: {{ images: pictures, identifier: sks, class: tower, prompt: \"a {{identifier}} {{class}}\" }}
    side_px: 64
    caption_dropout: 0.2
adapter: {{ lora: {{ rank: 2, targets: attn_ff }} }}
fit:
  steps: {steps}
  batch: {{ images: 2, accumulate: 2 }}
  optimizer: {{ adamw: {{ learning_rate: 1.0e-3 }} }}
  schedule: {{ cosine: {{ warmup_steps: 2 }} }}
  save_every: {save_every}
  previews: {{ prompts: [\"\"], seeds: [0], sampler: {{ ddim: {{ steps: 2 }} }} }}
{more}"
        );
        self.write("tiny.yaml", &text)
    }

    /// The program with these arguments, in this folder, with a cache of its own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.command(arguments))
    }

    /// The only run below `runs`.
    pub(crate) fn only_run(&self, runs: &str) -> PathBuf {
        let mut dirs: Vec<PathBuf> = std::fs::read_dir(self.path(runs))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(dirs.len(), 1, "{dirs:?}");
        dirs.remove(0)
    }
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Ended {
    /// Runs a program to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Fails the test unless the exit code is `code`.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// The last JSON line of standard output.
    pub(crate) fn last_json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_else(|| panic!("{}", self.stderr));
        serde_json::from_str(line).unwrap()
    }
}

/// A program under way whose JSON lines are read one by one, so that a test can act at an exact
/// moment without waiting for time to pass.
pub(crate) struct UnderWay {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl UnderWay {
    /// Starts the command, which must have `--json`.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next record; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        let n_bytes = self.lines.read_line(&mut line).unwrap();
        (n_bytes > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    /// Reads until `wanted` is true of a record; false if the program ended before.
    pub(crate) fn read_until(&mut self, wanted: impl Fn(&Value) -> bool) -> bool {
        while let Some(record) = self.next() {
            if wanted(&record) {
                return true;
            }
        }
        false
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Kills the program as the system does when memory runs out.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Closes the pipe as `head` does, and waits; the exit code.
    pub(crate) fn end_without_reading(self) -> Option<i32> {
        let Self { mut child, lines } = self;
        drop(lines);
        child.wait().unwrap().code()
    }

    /// Reads to the end; the exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        while self.next().is_some() {}
        self.child.wait().unwrap().code()
    }
}

/// Whether a record says that `step` steps of training are done.
pub(crate) fn is_step(record: &Value, step: u64) -> bool {
    record["event"] == "progress" && record["phase"] == "train" && record["done"] == step
}

/// A census of seconds.
pub(crate) const CENSUS: &str = "census:
  budget: custom
  thesaurus: postcards
  seeds: { empty: 16, other: 8 }
  sampler: { ddim: { steps: 2, eta: 1.0 } }
  guidance_scale: 2.0
  concept: { facet: subject, class: tower }
  doses: [0.0, 1.0]
";

/// The pixels of a picture file.
pub(crate) fn picture(path: &Path) -> RgbImage {
    image::open(path).unwrap().into_rgb8()
}

/// All files below a folder by their paths in it, less what a killed program was writing.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for path in checkpoints::fs::list(&next).unwrap() {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_owned();
            if !name.file_name().unwrap().to_string_lossy().starts_with(".tmp-") {
                found.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    found
}
