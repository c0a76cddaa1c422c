//! Processor packages, as Linux shows them below `/sys/class/powercap`.

use std::io;
use std::path::{Path, PathBuf};

use super::{EnergySource, Unavailable};

/// One processor package. Its parts (core, uncore, dram) would count twice and are left out.
#[derive(Debug)]
pub struct Rapl {
    counter: PathBuf,
    wrap_uj: u64,
    label: String,
}

impl Rapl {
    /// All packages below `powercap`, normally `/sys/class/powercap`, in order; each counter is read once as a trial.
    ///
    /// # Errors
    ///
    /// [`Unavailable`]: no such folder, no package, or no permission (the usual case: counters are for root only).
    pub fn packages(powercap: &Path) -> Result<Vec<Self>, Unavailable> {
        let entries =
            crate::fs::list(powercap).map_err(|error| Unavailable { reason: error.to_string() })?;
        let mut packages = Vec::new();
        for dir in entries.iter().filter(|dir| is_package(dir)) {
            let wrap_uj = number(&dir.join("max_energy_range_uj"))?;
            let name =
                dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let mut package =
                Self { counter: dir.join("energy_uj"), wrap_uj, label: format!("rapl.{name}") };
            package.read_uj()?;
            packages.push(package);
        }
        if packages.is_empty() {
            return Err(Unavailable { reason: "no RAPL package".to_owned() });
        }
        Ok(packages)
    }
}

impl EnergySource for Rapl {
    fn read_uj(&mut self) -> Result<u64, Unavailable> {
        number(&self.counter)
    }

    fn wrap_uj(&self) -> Option<u64> {
        Some(self.wrap_uj)
    }

    fn label(&self) -> &str {
        &self.label
    }
}

/// `intel-rapl:0` with the name `package-…`, not `intel-rapl:0:1`, not `intel-rapl-mmio:0`.
fn is_package(dir: &Path) -> bool {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let numbered =
        name.strip_prefix("intel-rapl:").is_some_and(|number| number.parse::<u32>().is_ok());
    numbered
        && fs_err::read_to_string(dir.join("name")).is_ok_and(|name| name.starts_with("package"))
}

fn number(path: &Path) -> Result<u64, Unavailable> {
    let text = fs_err::read_to_string(path)
        .map_err(|error| Unavailable { reason: reason(&error, path) })?;
    let found = text.trim();
    found.parse().map_err(|_| Unavailable {
        reason: format!("expected a number in `{}`, found `{found}`", path.display()),
    })
}

fn reason(error: &io::Error, path: &Path) -> String {
    let word = if error.kind() == io::ErrorKind::PermissionDenied {
        "EACCES"
    } else if error.kind() == io::ErrorKind::NotFound {
        "ENOENT"
    } else {
        return error.to_string();
    };
    format!("{word} on `{}`", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::atomic_write;

    fn package(root: &Path, name: &str, kind: &str, energy: &str) {
        for (file, text) in
            [("name", kind), ("energy_uj", energy), ("max_energy_range_uj", "1000\n")]
        {
            atomic_write(&root.join(name).join(file), text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn only_packages_are_counted() {
        let root = tempfile::tempdir().unwrap();
        package(root.path(), "intel-rapl:0", "package-0\n", "17\n");
        package(root.path(), "intel-rapl:0:0", "core\n", "5\n");
        package(root.path(), "intel-rapl:1", "package-1\n", "19\n");
        package(root.path(), "intel-rapl:2", "psys\n", "900\n");
        package(root.path(), "intel-rapl-mmio:0", "package-0\n", "17\n");
        let mut packages = Rapl::packages(root.path()).unwrap();
        let found: Vec<_> =
            packages.iter_mut().map(|p| (p.read_uj().unwrap(), p.label().to_owned())).collect();
        assert_eq!(
            found,
            [(17, "rapl.intel-rapl:0".to_owned()), (19, "rapl.intel-rapl:1".to_owned())]
        );
        assert_eq!(packages[0].wrap_uj(), Some(1000));
    }

    #[test]
    fn what_cannot_be_read_has_a_reason() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Rapl::packages(root.path()).unwrap_err().reason, "no RAPL package");
        package(root.path(), "intel-rapl:0", "package-0\n", "17\n");
        let mut packages = Rapl::packages(root.path()).unwrap();
        crate::fs::remove_file(&root.path().join("intel-rapl:0/energy_uj")).unwrap();
        assert!(packages[0].read_uj().unwrap_err().reason.starts_with("ENOENT on `"));
        package(root.path(), "intel-rapl:0", "package-0\n", "many\n");
        assert!(packages[0].read_uj().unwrap_err().reason.contains("found `many`"));
    }
}
