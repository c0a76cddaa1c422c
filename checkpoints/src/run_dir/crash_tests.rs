//! Crashes at every point: all states of the disk that a power failure could leave are rebuilt and opened.
//!
//! A power failure keeps any prefix of the operations; the last write may be torn; data that was not synced may be kept
//! or lost, and so may names in folders that were not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use super::tests::{attempt, commit, identity, tensors};
use super::*;
use crate::fs::DurableFile;

#[derive(Debug, Clone)]
enum Op {
    Create(PathBuf),
    Append(PathBuf),
    Write(PathBuf, Vec<u8>),
    Fsync(PathBuf),
    FsyncDir(PathBuf),
    Rename(PathBuf, PathBuf),
    CreateDir(PathBuf),
    Unlink(PathBuf),
    RemoveDir(PathBuf),
    /// From here on a checkpoint of at least this step must be found.
    Promise(u64),
}

/// Does everything for real and keeps a list of it.
#[derive(Debug, Clone, Default)]
struct RecordingFs {
    ops: Arc<Mutex<Vec<Op>>>,
}

impl RecordingFs {
    fn note(&self, op: Op) {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).push(op);
    }
}

#[derive(Debug)]
struct RecordingFile {
    fs: RecordingFs,
    path: PathBuf,
    file: Box<dyn DurableFile>,
}

impl Write for RecordingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.fs.note(Op::Write(self.path.clone(), bytes.to_vec()));
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl DurableFile for RecordingFile {
    fn fsync(&mut self) -> io::Result<()> {
        self.fs.note(Op::Fsync(self.path.clone()));
        Ok(())
    }
}

impl RecordingFs {
    fn wrap(&self, path: &Path, file: Box<dyn DurableFile>) -> Box<dyn DurableFile> {
        Box::new(RecordingFile { fs: self.clone(), path: path.to_owned(), file })
    }
}

impl Fs for RecordingFs {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DurableFile>> {
        self.note(Op::Create(path.to_owned()));
        Ok(self.wrap(path, StdFs.create(path)?))
    }
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DurableFile>> {
        self.note(Op::Create(path.to_owned()));
        Ok(self.wrap(path, StdFs.create_new(path)?))
    }
    fn append(&self, path: &Path) -> io::Result<Box<dyn DurableFile>> {
        self.note(Op::Append(path.to_owned()));
        Ok(self.wrap(path, StdFs.append(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Op::Rename(from.to_owned(), to.to_owned()));
        StdFs.rename(from, to)
    }
    fn fsync_dir(&self, dir: &Path) -> io::Result<()> {
        self.note(Op::FsyncDir(dir.to_owned()));
        Ok(())
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.note(Op::CreateDir(dir.to_owned()));
        StdFs.create_dir_all(dir)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.note(Op::Unlink(path.to_owned()));
        StdFs.unlink(path)
    }
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        // As a crash may catch it half-way: one file after the other, in the order that does most harm.
        let mut files = StdFs.list(dir)?;
        files.reverse();
        for file in files {
            self.unlink(&file)?;
        }
        self.note(Op::RemoveDir(dir.to_owned()));
        StdFs.remove_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        StdFs.list(dir)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        StdFs.read(path)
    }
}

#[derive(Debug, Clone)]
enum Node {
    File { now: Vec<u8>, synced: Vec<u8> },
    Dir { now: BTreeMap<String, usize>, synced: BTreeMap<String, usize> },
}

/// What is in the page cache and what is on the platter.
#[derive(Debug, Clone)]
struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
}

impl Disk {
    fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            nodes: vec![Node::Dir { now: BTreeMap::new(), synced: BTreeMap::new() }],
        }
    }

    fn find(&self, path: &Path) -> Option<usize> {
        let mut id = 0;
        for part in path.strip_prefix(&self.root).unwrap().components() {
            let Node::Dir { now, .. } = &self.nodes[id] else {
                return None;
            };
            id = *now.get(part.as_os_str().to_str().unwrap())?;
        }
        Some(id)
    }

    /// The names in the folder that holds `path`, and the name of `path` there.
    fn entry(&mut self, path: &Path) -> (&mut BTreeMap<String, usize>, String) {
        let parent = self.find(path.parent().unwrap()).unwrap();
        let Node::Dir { now, .. } = &mut self.nodes[parent] else {
            panic!("{path:?} lies in a file")
        };
        (now, path.file_name().unwrap().to_str().unwrap().to_owned())
    }

    fn add(&mut self, path: &Path, node: Node) {
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        let (names, name) = self.entry(path);
        names.insert(name, id);
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(path) if self.find(path).is_some() => {}
            Op::Create(path) | Op::Append(path) => {
                self.add(path, Node::File { now: Vec::new(), synced: Vec::new() });
            }
            Op::Write(path, bytes) => {
                let id = self.find(path).unwrap();
                let Node::File { now, .. } = &mut self.nodes[id] else {
                    panic!("{path:?} is a folder")
                };
                now.extend_from_slice(bytes);
            }
            Op::Fsync(path) | Op::FsyncDir(path) => {
                let id = self.find(path).unwrap();
                match &mut self.nodes[id] {
                    Node::File { now, synced } => synced.clone_from(now),
                    Node::Dir { now, synced } => synced.clone_from(now),
                }
            }
            Op::Rename(from, to) => {
                let id = self.find(from).unwrap();
                let (names, name) = self.entry(from);
                names.remove(&name);
                let (names, name) = self.entry(to);
                names.insert(name, id);
            }
            Op::CreateDir(path) if self.find(path).is_some() => {}
            Op::CreateDir(path) => {
                self.add(path, Node::Dir { now: BTreeMap::new(), synced: BTreeMap::new() });
            }
            Op::Unlink(path) | Op::RemoveDir(path) => {
                let (names, name) = self.entry(path);
                names.remove(&name);
            }
            Op::Promise(_) => {}
        }
    }

    /// What a crash leaves: contents of files, `None` for folders, parents first.
    fn tree(&self, kept: Kept) -> Tree {
        let mut tree = Tree::new();
        self.collect(0, Path::new(""), kept, &mut tree);
        tree
    }

    fn collect(&self, id: usize, at: &Path, kept: Kept, tree: &mut Tree) {
        match &self.nodes[id] {
            Node::File { now, synced } => {
                tree.insert(at.to_owned(), Some(if kept.data() { now } else { synced }.clone()));
            }
            Node::Dir { now, synced } => {
                tree.insert(at.to_owned(), None);
                for (name, &child) in if kept.names() { now } else { synced } {
                    self.collect(child, &at.join(name), kept, tree);
                }
            }
        }
    }
}

type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn rebuild(tree: &Tree, root: &Path) {
    for (path, content) in tree {
        match content {
            Some(bytes) => fs_err::write(root.join(path), bytes).unwrap(),
            None => fs_err::create_dir_all(root.join(path)).unwrap(),
        }
    }
}

/// What of the unsynced survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Everything,
    OnlyData,
    OnlyNames,
    Nothing,
}

impl Kept {
    const ALL: [Self; 4] = [Self::Everything, Self::OnlyData, Self::OnlyNames, Self::Nothing];

    fn data(self) -> bool {
        matches!(self, Self::Everything | Self::OnlyData)
    }

    fn names(self) -> bool {
        matches!(self, Self::Everything | Self::OnlyNames)
    }
}

/// Two attempts with commits, retention and journals, from an empty disk.
fn scenario(runs: &Path) -> Vec<Op> {
    let fs = RecordingFs::default();
    for (id, steps) in [("aaaa", [1, 2]), ("bbbb", [2, 3])] {
        let run = RunDir::open_on(Arc::new(fs.clone()), runs, &identity(), attempt(id)).unwrap();
        run.begin(steps[0] - 1).unwrap();
        for step in steps {
            commit(&run, step).unwrap();
            fs.note(Op::Promise(step));
            run.retain(1, &[]).unwrap();
        }
    }
    let ops = fs.ops.lock().unwrap_or_else(PoisonError::into_inner);
    ops.clone()
}

/// The states of the last operation: as it is, or torn if it is a write.
fn torn(op: &Op) -> Vec<Op> {
    let Op::Write(path, bytes) = op else {
        return vec![op.clone()];
    };
    let lengths = [bytes.len(), bytes.len().saturating_sub(1), bytes.len() / 2, 0];
    lengths.iter().map(|&length| Op::Write(path.clone(), bytes[..length].to_vec())).collect()
}

/// The newest step, which must be whole and at least what was promised.
fn newest_step(folder: &RunFolder, promised: u64) -> Result<u64, String> {
    let Some(checkpoint) = folder.newest().map_err(|error| error.to_string())? else {
        return if promised == 0 {
            Ok(0)
        } else {
            Err(format!("no checkpoint, {promised} was promised"))
        };
    };
    let step = checkpoint.step();
    if step < promised {
        return Err(format!("step {step} was found, {promised} was promised"));
    }
    #[expect(clippy::cast_precision_loss, reason = "small steps")]
    let expected = tensors(step as f32);
    let found = checkpoint.tensors("adapter.safetensors").and_then(|file| file.read_all());
    if found.map_err(|error| error.to_string())? == expected {
        Ok(step)
    } else {
        Err("other tensors".to_owned())
    }
}

/// The next attempt opens the run, finds what was promised and goes on.
fn reopen(runs: &Path, promised: u64) -> Result<(), String> {
    let words = |error: CheckpointError| error.to_string();
    let fs = Arc::new(RecordingFs::default());
    let run = RunDir::open_on(fs, runs, &identity(), attempt("cccc")).map_err(words)?;
    let step = newest_step(run.folder(), promised)?;
    run.begin(step).map_err(words)?;
    if run.folder().attempts().map_err(words)?.len() as u64 != run.attempt_number() {
        return Err("an attempt was lost".to_owned());
    }
    commit(&run, step + 1).map_err(words)?;
    run.retain(1, &[]).map_err(words)?;
    newest_step(run.folder(), step + 1).map(|_| ())
}

/// Opens every state that a crash within `ops` can leave; gives their number, or the first that breaks a promise.
fn explore(root: &Path, ops: &[Op]) -> Result<usize, String> {
    let mut disk = Disk::new(root);
    let mut promised = 0;
    let mut n_states = 0;
    let mut seen = BTreeSet::new();
    for (idx, op) in ops.iter().enumerate() {
        for last in torn(op) {
            let mut crashed = disk.clone();
            crashed.apply(&last);
            for kept in Kept::ALL {
                n_states += 1;
                let tree = crashed.tree(kept);
                if seen.insert((promised, tree.clone())) {
                    let runs = tempfile::tempdir().unwrap();
                    rebuild(&tree, runs.path());
                    let state =
                        |found| format!("after operation {idx} {last:?}, {kept:?} kept: {found}");
                    reopen(runs.path(), promised).map_err(state)?;
                }
            }
        }
        disk.apply(op);
        if let Op::Promise(step) = op {
            promised = *step;
        }
    }
    Ok(n_states)
}

#[test]
fn every_crash_leaves_what_was_promised() {
    let recorded = tempfile::tempdir().unwrap();
    let n_states = explore(recorded.path(), &scenario(recorded.path())).unwrap();
    assert!(n_states > 500, "{n_states}");
}

#[test]
fn without_fsync_a_promise_would_be_broken() {
    let recorded = tempfile::tempdir().unwrap();
    let ops = scenario(recorded.path());
    let without = |dropped: fn(&Op) -> bool| {
        let kept: Vec<Op> = ops.iter().filter(|op| !dropped(op)).cloned().collect();
        explore(recorded.path(), &kept)
    };
    without(|op| matches!(op, Op::Fsync(_))).unwrap_err();
    without(|op| matches!(op, Op::FsyncDir(_))).unwrap_err();
    without(|op| matches!(op, Op::FsyncDir(dir) if dir.ends_with(CHECKPOINTS))).unwrap_err();
}
