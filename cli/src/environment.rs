//! The only reader of environment variables, of the clock and of what the machine says of itself.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the user wants about colors, before the stream itself is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColorWish {
    /// `CLICOLOR_FORCE`: colors even into a file.
    Always,
    /// `NO_COLOR` or `TERM=dumb`: no colors.
    Never,
    /// Colors on a terminal.
    Auto,
}

/// Reads one variable; an empty one counts as absent.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name)
        .map(|value| value.to_string_lossy().into_owned())
        .filter(|v| !v.is_empty())
}

/// `NO_COLOR`, `CLICOLOR_FORCE`, `TERM`.
pub(crate) fn color_wish() -> ColorWish {
    color_wish_from(&variable)
}

fn color_wish_from(variable: &dyn Fn(&str) -> Option<String>) -> ColorWish {
    if variable("NO_COLOR").is_some() || variable("TERM").as_deref() == Some("dumb") {
        ColorWish::Never
    } else if variable("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        ColorWish::Always
    } else {
        ColorWish::Auto
    }
}

/// Where things may be kept that can be made again: `$XDG_CACHE_HOME/populate`, else
/// `~/.cache/populate`, else below the folder for temporary files.
pub(crate) fn cache_dir() -> PathBuf {
    let base = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("populate")
}

/// Whether the hub of models may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Yes, if this build can.
    Allowed,
    /// `HF_HUB_OFFLINE` forbids it.
    Forbidden,
}

/// The type of [`variable`], so that tests can bring their own.
type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where the Hugging Face tools keep models: `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE` (its old
/// name), else `hub` below `HF_HOME`, else below `huggingface` in the user's cache.
///
/// Source: `constants.py` of `huggingface_hub`.
pub(crate) fn hub_cache_dir() -> PathBuf {
    hub_cache_dir_from(&variable)
}

fn hub_cache_dir_from(variable: Variables<'_>) -> PathBuf {
    let named = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
    let dir = named.map(|path| expanded(&path, variable));
    dir.unwrap_or_else(|| hub_home_from(variable).join("hub"))
}

/// `HF_HOME`, else `$XDG_CACHE_HOME/huggingface`, else `~/.cache/huggingface`.
fn hub_home_from(variable: Variables<'_>) -> PathBuf {
    if let Some(path) = variable("HF_HOME") {
        return expanded(&path, variable);
    }
    let cache = variable("XDG_CACHE_HOME").unwrap_or_else(|| "~/.cache".to_owned());
    expanded(&cache, variable).join("huggingface")
}

/// A path with the user's own folder in place of `~` at its beginning.
fn expanded(path: &str, variable: Variables<'_>) -> PathBuf {
    match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home = variable("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
            home.join(rest.trim_start_matches('/'))
        }
        _ => PathBuf::from(path),
    }
}

/// `HF_HUB_OFFLINE`, else `TRANSFORMERS_OFFLINE`.
pub(crate) fn hub_network() -> Network {
    hub_network_from(&variable)
}

fn hub_network_from(variable: Variables<'_>) -> Network {
    let wish = variable("HF_HUB_OFFLINE").or_else(|| variable("TRANSFORMERS_OFFLINE"));
    let wish = wish.map(|value| value.to_ascii_uppercase());
    if matches!(wish.as_deref(), Some("1" | "ON" | "YES" | "TRUE")) {
        Network::Forbidden
    } else {
        Network::Allowed
    }
}

/// `HF_ENDPOINT`, else the public hub; without a slash at the end.
#[cfg(feature = "download")]
pub(crate) fn hub_endpoint() -> String {
    let named = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
    named.trim_end_matches('/').to_owned()
}

/// The user's token for the hub, never to be shown: `HF_TOKEN`, else `HUGGING_FACE_HUB_TOKEN` (its
/// old name), else the content of `HF_TOKEN_PATH`, else of `token` below `HF_HOME`.
#[cfg(feature = "download")]
pub(crate) fn hub_token() -> Option<String> {
    hub_token_from(&variable)
}

#[cfg(feature = "download")]
fn hub_token_from(variable: Variables<'_>) -> Option<String> {
    let trimmed = |text: &str| Some(text.trim().to_owned()).filter(|token| !token.is_empty());
    let given = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN"));
    given.as_deref().and_then(trimmed).or_else(|| {
        let path = variable("HF_TOKEN_PATH").map(|path| expanded(&path, variable));
        let path = path.unwrap_or_else(|| hub_home_from(variable).join("token"));
        let bytes = checkpoints::fs::read(&path).ok()?;
        trimmed(&String::from_utf8_lossy(&bytes))
    })
}

/// The root of the CUDA toolkit as cubecl looks for it: `CUDA_PATH`, else the usual places.
pub(crate) fn cuda_root() -> Option<PathBuf> {
    if let Some(path) = variable("CUDA_PATH") {
        return Some(PathBuf::from(path));
    }
    let places = ["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from);
    let found = places.into_iter().find(|path| path.exists());
    found.or_else(|| Path::new("/usr/bin/nvcc").exists().then(|| PathBuf::from("/usr")))
}

/// Folders in which the loader looks for shared libraries, beside its own list.
pub(crate) fn library_paths() -> Vec<PathBuf> {
    let own = variable("LD_LIBRARY_PATH").unwrap_or_default();
    std::env::split_paths(&own).filter(|path| !path.as_os_str().is_empty()).collect()
}

/// `CUDA_VISIBLE_DEVICES`, in order; `None` if all are visible.
pub(crate) fn visible_cuda_devices() -> Option<Vec<String>> {
    let list = variable("CUDA_VISIBLE_DEVICES")?;
    Some(list.split(',').map(|device| device.trim().to_owned()).collect())
}

/// Seconds since 1970. May go back when the machine's clock is set.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

/// Seconds since its creation; never goes back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts at 0.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since the start.
    pub(crate) fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// The folder from which relative paths count.
pub(crate) fn working_dir() -> Option<PathBuf> {
    std::env::current_dir().ok()
}

/// Makes relative paths count from `dir`; whether that was possible.
pub(crate) fn enter(dir: &Path) -> bool {
    std::env::set_current_dir(dir).is_ok()
}

/// Four hex digits that tell this process's checkpoints from those of others.
pub(crate) fn attempt_id() -> String {
    let digits = RandomState::new().build_hasher().finish() & 0xffff;
    format!("{digits:04x}")
}

/// The machine's name.
pub(crate) fn host() -> String {
    let name = text_of("/proc/sys/kernel/hostname").or_else(|| variable("HOSTNAME"));
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// The scheduler that started the process, its job and how often it was restarted.
pub(crate) fn engine() -> BTreeMap<String, String> {
    engine_from(&variable)
}

fn engine_from(variable: &dyn Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let known = [
        ("slurm", "SLURM_JOB_ID", Some("SLURM_RESTART_COUNT")),
        ("kubernetes", "KUBERNETES_SERVICE_HOST", None),
        ("skypilot", "SKYPILOT_TASK_ID", None),
        ("dstack", "DSTACK_RUN_NAME", None),
        ("aws-batch", "AWS_BATCH_JOB_ID", Some("AWS_BATCH_JOB_ATTEMPT")),
        ("modal", "MODAL_TASK_ID", None),
        ("runpod", "RUNPOD_POD_ID", None),
    ];
    let mut engine = BTreeMap::new();
    let found = known.iter().find_map(|known| variable(known.1).map(|job| (known, job)));
    if let Some(((name, key, restarts), job)) = found {
        engine.insert("name".to_owned(), (*name).to_owned());
        // The address of a cluster's interface is nobody's business.
        if *key != "KUBERNETES_SERVICE_HOST" {
            engine.insert("job".to_owned(), job);
        }
        if let Some(count) = restarts.and_then(variable) {
            engine.insert("restarts".to_owned(), count);
        }
    }
    engine
}

/// What the bits of a result depend on beside the recipe.
pub(crate) fn numerics() -> BTreeMap<String, String> {
    let mut numerics = BTreeMap::new();
    let mut put = |key: &str, value: String| numerics.insert(key.to_owned(), value);
    if let Some(hash) = binary_sha256() {
        put("binary_sha256", hash);
    }
    put("simd", simd_level().to_owned());
    put("threads", n_threads().to_string());
    if let Some(size) = text_of("/sys/devices/system/cpu/cpu0/cache/index0/size") {
        put("l1_data", size);
    }
    put("target", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS));
    numerics
}

fn binary_sha256() -> Option<String> {
    let path = std::env::current_exe().ok()?;
    checkpoints::hash::file_sha256(&path).ok().map(|(hash, _)| hash)
}

/// Processors that this process may use.
pub(crate) fn n_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The widest vector instructions that the matrix products use here.
pub(crate) fn simd_level() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        let v3 = std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma");
        if v3 && std::is_x86_feature_detected!("avx512f") {
            return "x86-64-v4";
        }
        if v3 {
            return "x86-64-v3";
        }
        "x86-64"
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH
}

/// Most memory that this process held so far, in bytes; `None` where the system does not tell.
pub(crate) fn peak_bytes() -> Option<u64> {
    let status = text_of("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The trimmed text of a small file that the system keeps; `None` if there is none.
pub(crate) fn text_of(path: &str) -> Option<String> {
    let bytes = checkpoints::fs::read(Path::new(path)).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The command line of this process, as a shell reads it back.
pub(crate) fn own_command() -> String {
    let words = std::env::args_os().skip(1);
    let words = words.map(|word| crate::stage::shell_word(&word.to_string_lossy()));
    std::iter::once("populate".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// Whether `--json` stands on the command line, where it could not be parsed.
pub(crate) fn asked_for_json() -> bool {
    std::env::args_os().any(|word| word == "--json")
}

/// Signals that were ignored when the process started, as a mask of `1 << (number - 1)`.
pub(crate) fn ignored_signals() -> u64 {
    text_of("/proc/self/status").map_or(0, |status| ignored_from(&status))
}

fn ignored_from(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_wins_over_force_and_zero_is_no_force() {
        let wish = |set: &[(&str, &str)]| {
            color_wish_from(&|name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(wish(&[]), ColorWish::Auto);
        assert_eq!(wish(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]), ColorWish::Never);
        assert_eq!(wish(&[("CLICOLOR_FORCE", "1")]), ColorWish::Always);
        assert_eq!(wish(&[("CLICOLOR_FORCE", "0")]), ColorWish::Auto);
        assert_eq!(wish(&[("TERM", "dumb")]), ColorWish::Never);
    }

    fn given(set: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        let set: BTreeMap<String, String> =
            set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        move |name| set.get(name).cloned()
    }

    #[test]
    fn the_cache_of_the_hub_is_where_its_own_tools_look() {
        let dir = |set: &[(&str, &str)]| {
            hub_cache_dir_from(&given(set)).to_str().map(str::to_owned).unwrap_or_default()
        };
        let home = ("HOME", "/home/me");
        assert_eq!(dir(&[home]), "/home/me/.cache/huggingface/hub");
        let xdg = ("XDG_CACHE_HOME", "~/xdg");
        assert_eq!(dir(&[home, xdg]), "/home/me/xdg/huggingface/hub");
        let hf = ("HF_HOME", "/data/hf");
        assert_eq!(dir(&[home, xdg, hf]), "/data/hf/hub");
        let old = ("HUGGINGFACE_HUB_CACHE", "/data/old");
        assert_eq!(dir(&[home, xdg, hf, old]), "/data/old");
        let new = ("HF_HUB_CACHE", "~/models");
        assert_eq!(dir(&[home, xdg, hf, old, new]), "/home/me/models");
    }

    #[test]
    fn only_a_yes_keeps_the_hub_from_being_asked() {
        let network = |set: &[(&str, &str)]| hub_network_from(&given(set));
        assert_eq!(network(&[]), Network::Allowed);
        for yes in ["1", "on", "YES", "True"] {
            assert_eq!(network(&[("HF_HUB_OFFLINE", yes)]), Network::Forbidden, "{yes}");
        }
        assert_eq!(network(&[("TRANSFORMERS_OFFLINE", "1")]), Network::Forbidden);
        let newer_wins = [("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")];
        assert_eq!(network(&newer_wins), Network::Allowed);
    }

    #[cfg(feature = "download")]
    #[test]
    fn the_token_comes_from_the_environment_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        checkpoints::fs::atomic_write(&folder.path().join("token"), b"from home\n").unwrap();
        checkpoints::fs::atomic_write(&folder.path().join("other"), b" from path\n").unwrap();
        let home = folder.path().display().to_string();
        let path = folder.path().join("other").display().to_string();
        let token = |set: &[(&str, &str)]| hub_token_from(&given(set));
        let (home, path) = (("HF_HOME", home.as_str()), ("HF_TOKEN_PATH", path.as_str()));
        assert_eq!(token(&[home]).as_deref(), Some("from home"));
        assert_eq!(token(&[home, path]).as_deref(), Some("from path"));
        assert_eq!(token(&[home, path, ("HF_TOKEN", " t \n")]).as_deref(), Some("t"));
        assert_eq!(token(&[("HF_HOME", "/nonexistent")]), None);
    }

    #[test]
    fn ignored_signals_are_read_from_the_status_of_the_process() {
        let status = "Name:\tpopulate\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert_eq!(ignored_from(status), 0x1001);
        assert_eq!(ignored_from("Name:\tx\n"), 0);
    }

    #[test]
    fn an_engine_is_recognized_by_its_variables_and_no_address_is_kept() {
        let slurm = engine_from(&|name| match name {
            "SLURM_JOB_ID" => Some("17".to_owned()),
            "SLURM_RESTART_COUNT" => Some("2".to_owned()),
            _ => None,
        });
        assert_eq!(slurm["name"], "slurm");
        assert_eq!((slurm["job"].as_str(), slurm["restarts"].as_str()), ("17", "2"));
        let kubernetes =
            engine_from(&|name| (name == "KUBERNETES_SERVICE_HOST").then(|| "10.0.0.1".to_owned()));
        assert_eq!(kubernetes.len(), 1);
        assert!(engine_from(&|_| None).is_empty());
    }

    #[test]
    fn attempts_have_four_hex_digits() {
        let id = attempt_id();
        assert!(id.len() == 4 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
}
