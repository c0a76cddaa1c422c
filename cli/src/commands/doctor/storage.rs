//! The folder of runs, and the embedded base.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoints::fs::{Fs, StdFs};
use checkpoints::run_dir::{Attempt, Content, RunDir, RunIdentity};
use checkpoints::{CheckpointError, postcards};

use super::Check;
use crate::environment;

/// Writes a run of its own into the folder of runs, tries its lock, and removes it again.
pub(super) fn checks(runs: &Path) -> Vec<Check> {
    let id = format!(".doctor-{}", std::process::id());
    let mut checks = trial(runs, &id);
    let own = runs.join(&id);
    let removed = if own.is_dir() { StdFs.remove_dir_all(&own) } else { Ok(()) };
    if let Err(error) = removed {
        checks.push(Check::warn("storage", format!("{error}"), "remove the folder by hand"));
    }
    checks.extend(file_system(runs));
    checks
}

fn trial(runs: &Path, id: &str) -> Vec<Check> {
    let shown = runs.display();
    let identity = RunIdentity { id, fingerprint: "doctor", resolved_recipe: "" };
    let run = match RunDir::open(runs, &identity, attempt("0000")) {
        Ok(run) => run,
        Err(error) => {
            let fix = "choose another folder with `--runs DIR`";
            return vec![Check::fail("storage", format!("`{shown}` cannot be used: {error}"), fix)];
        }
    };
    let mut checks = Vec::new();
    checks.push(match RunDir::open(runs, &identity, attempt("0001")) {
        Err(CheckpointError::Locked { .. }) => {
            Check::good("storage", format!("`{shown}`: a second process is locked out"))
        }
        _ => Check::fail(
            "storage",
            format!("`{shown}`: two processes can hold one run"),
            "locks do not work there: use a local disk, or mount with flock",
        ),
    });
    checks.push(match run.commit_checkpoint(1, &[("probe", Content::Bytes(b"probe"))]) {
        Ok(_) => Check::good("storage", format!("`{shown}`: a checkpoint commits and verifies")),
        Err(error) => Check::fail(
            "storage",
            format!("`{shown}`: a checkpoint does not commit: {error}"),
            "look at free space and permissions",
        ),
    });
    checks
}

fn attempt(id: &str) -> Attempt {
    Attempt {
        id: id.to_owned(),
        host: environment::host(),
        pid: std::process::id(),
        started_at: environment::unix_seconds(),
        device: String::new(),
        engine: BTreeMap::new(),
        numerics: BTreeMap::new(),
    }
}

/// Kind of the file system that holds the runs.
fn file_system(runs: &Path) -> Option<Check> {
    let mounts = environment::text_of("/proc/self/mounts")?;
    let path = std::path::absolute(runs).ok()?;
    let kind = kind_of(&mounts, &path)?;
    Some(match kind.as_str() {
        "tmpfs" | "ramfs" => Check::warn(
            "storage",
            format!("runs lie in memory ({kind}) and are lost with the machine"),
            "choose a disk with `--runs DIR`",
        ),
        _ => Check::good("storage", format!("file system {kind}")),
    })
}

/// Type of the longest mount point above `path`.
fn kind_of(mounts: &str, path: &Path) -> Option<String> {
    let mount = |line: &str| {
        let mut fields = line.split(' ');
        let (point, kind) = (fields.nth(1)?, fields.next()?);
        Some((PathBuf::from(point.replace("\\040", " ")), kind.to_owned()))
    };
    let above = mounts.lines().filter_map(mount).filter(|(point, _)| path.starts_with(point));
    above.max_by_key(|(point, _)| point.components().count()).map(|(_, kind)| kind)
}

/// The base that this build carries.
pub(super) fn models() -> Vec<Check> {
    if !postcards::embedded() {
        return vec![Check::fail(
            "models",
            "this build carries no base",
            "build it from a checkout that has checkpoints/postcards",
        )];
    }
    let mut checks = vec![if postcards::intact() {
        Check::good("models", format!("embedded base {}", &postcards::sha256()[..8]))
    } else {
        Check::fail("models", "the embedded base is damaged", "install the program again")
    }];
    let cache = environment::cache_dir();
    checks.push(match postcards::folder(&cache) {
        Ok(folder) => Check::good("models", format!("unpacked at `{}`", folder.path().display())),
        Err(error) => Check::fail(
            "models",
            format!("the base cannot be unpacked: {error}"),
            "make `~/.cache` writable, or set XDG_CACHE_HOME",
        ),
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_counts() {
        let mounts =
            "/dev/sda1 / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\nx /tmp/a\\040b xfs rw 0 0\n";
        let kind = |path: &str| kind_of(mounts, Path::new(path));
        assert_eq!(kind("/home/runs").as_deref(), Some("ext4"));
        assert_eq!(kind("/tmp/runs").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/tmp/a b/runs").as_deref(), Some("xfs"));
    }
}
