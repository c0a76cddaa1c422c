//! Models of the Hugging Face hub: found in the cache of its tools, fetched only where that is
//! allowed.

use std::path::PathBuf;

use checkpoints::hub::{HubCache, HubError, HubErrorKind};
use recipes::HubModel;

use crate::environment::{self, Network};
use crate::error::JobError;
use crate::stage::shell_word;

/// A model, and which of its files are meant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Repository, revision, and the file if it is one.
    pub(crate) model: &'a HubModel,
    /// Variant of the weight files, such as `fp16`.
    pub(crate) variant: Option<&'a str>,
}

/// Where a model of the hub lies on this machine: a folder in the diffusers layout, or one file.
/// Of a folder, the weights of `variant` come first, as [`checkpoints::ModelOptions`] has it.
///
/// The network is used only if something is missing, this build can fetch it, and nothing forbids
/// it.
///
/// # Errors
///
/// [`JobError::Absent`] with the command that fetches what is missing; a name that is none; in
/// builds that can fetch, also what the hub answers.
pub(crate) fn local_path(model: &HubModel, variant: Option<&str>) -> Result<PathBuf, JobError> {
    let cache = HubCache { dir: environment::hub_cache_dir() };
    let asked = Asked { model, variant };
    let network = environment::hub_network();
    let missing = match asked.cached(&cache) {
        Ok(path) => return Ok(path),
        Err(problem) => asked.missing(problem, network)?,
    };
    #[cfg(feature = "download")]
    if network == Network::Allowed {
        crate::download::fetch(asked, &cache)?;
        return Ok(asked.cached(&cache)?);
    }
    Err(missing)
}

impl Asked<'_> {
    /// Where it lies in the cache, with all files that a base needs.
    ///
    /// # Errors
    ///
    /// What is missing, or wrong.
    pub(crate) fn cached(&self, cache: &HubCache) -> Result<PathBuf, HubError> {
        let snapshot = cache.resolve(&self.model.repo, self.model.revision.as_deref())?;
        if let Some(file) = &self.model.file {
            return snapshot.file(file);
        }
        snapshot.check_base(self.variant)?;
        Ok(snapshot.dir)
    }

    /// The error of a model that is not there, or not wholly.
    ///
    /// # Errors
    ///
    /// Any other problem: fetching would not help.
    fn missing(&self, problem: HubError, network: Network) -> Result<JobError, JobError> {
        match problem.kind() {
            HubErrorKind::Absent | HubErrorKind::Weights => Ok(JobError::Absent {
                message: problem.to_string(),
                hint: self.advice(&problem, network),
            }),
            HubErrorKind::Name | HubErrorKind::Damaged | HubErrorKind::Files(_) => {
                Err(problem.into())
            }
        }
    }

    /// How to get what is missing, and what may be wrong if it is all there.
    fn advice(&self, problem: &HubError, network: Network) -> String {
        let fetch = format!("fetch it with `{}`", self.command(network, problem.kind()));
        match problem.hint() {
            Some(other) => format!("{fetch}; if it is all there: {other}"),
            None => fetch,
        }
    }

    /// The command that puts what is asked for into the cache.
    fn command(&self, network: Network, problem: HubErrorKind) -> String {
        let mut words = vec!["hf", "download", self.model.repo.as_str()];
        words.extend(self.model.file.as_deref());
        if let Some(revision) = &self.model.revision {
            words.extend(["--revision", revision.as_str()]);
        }
        // Some components of a variant may be there in their plain form alone.
        let weights = match self.variant {
            Some(variant) if problem == HubErrorKind::Absent => {
                format!("*/*.{variant}*.safetensors")
            }
            Some(_) | None => "*/*.safetensors".to_owned(),
        };
        if self.model.file.is_none() {
            for pattern in ["model_index.json", "*/*.json", "*/*.txt", weights.as_str()] {
                words.extend(["--include", pattern]);
            }
            words.extend(["--exclude", "safety_checker/*"]);
        }
        let command: Vec<String> = words.into_iter().map(shell_word).collect();
        let offline = if network == Network::Forbidden { "HF_HUB_OFFLINE=0 " } else { "" };
        format!("{offline}{}", command.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use checkpoints::hub::Blob;

    use super::*;
    use crate::exit::Exit;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn model(id: &str) -> HubModel {
        id.parse().unwrap()
    }

    fn put(cache: &HubCache, name: &str, bytes: &[u8]) {
        let etag = checkpoints::hash::bytes_sha256(bytes);
        if let Blob::Growing(mut blob) = cache.blob("org/name", &etag, &mut || {}).unwrap() {
            blob.append(bytes).unwrap();
            blob.finish(None).unwrap();
        }
        cache.link("org/name", COMMIT, name, &etag).unwrap();
    }

    /// A cache in which `org/name` has a whole base and one file at its root.
    fn example() -> (tempfile::TempDir, HubCache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = HubCache { dir: folder.path().to_owned() };
        put(&cache, "model_index.json", br#"{"unet": ["diffusers", "UNet2DConditionModel"]}"#);
        put(&cache, "unet/config.json", b"{}");
        put(&cache, "unet/diffusion_pytorch_model.safetensors", b"weights");
        put(&cache, "single.safetensors", b"weights");
        cache.write_ref("org/name", "main", COMMIT).unwrap();
        (folder, cache)
    }

    #[test]
    fn what_was_fetched_is_found_without_a_network() {
        let (folder, cache) = example();
        let snapshot = folder.path().join("models--org--name/snapshots").join(COMMIT);
        for id in ["hf:org/name", "hf:org/name@main", "hf:org/name@0123456"] {
            let asked = Asked { model: &model(id), variant: None };
            assert_eq!(asked.cached(&cache).unwrap(), snapshot, "{id}");
        }
        let file = model("hf:org/name/single.safetensors");
        let found = Asked { model: &file, variant: None }.cached(&cache).unwrap();
        assert_eq!(found, snapshot.join("single.safetensors"));
    }

    #[test]
    fn what_is_missing_comes_with_the_command_that_fetches_it() {
        let (_folder, cache) = example();
        let missing = |id: &str, variant, network| {
            let model = model(id);
            let asked = Asked { model: &model, variant };
            let error = asked.missing(asked.cached(&cache).unwrap_err(), network).unwrap();
            assert_eq!(error.exit(), Exit::Misconfigured);
            (error.to_string(), error.hint().unwrap())
        };
        let (message, hint) = missing("hf:org/other@v1", Some("fp16"), Network::Allowed);
        assert!(message.contains("`org/other` is not in the cache"), "{message}");
        let expected = "fetch it with `hf download org/other --revision v1 \
             --include model_index.json --include '*/*.json' --include '*/*.txt' \
             --include '*/*.fp16*.safetensors' --exclude 'safety_checker/*'`";
        assert_eq!(hint, expected);
        let id = "hf:org/name/v2/other.safetensors";
        let (message, hint) = missing(id, None, Network::Forbidden);
        assert!(message.contains("`v2/other.safetensors` is missing"), "{message}");
        let command = "HF_HUB_OFFLINE=0 hf download org/name v2/other.safetensors";
        assert_eq!(hint, format!("fetch it with `{command}`"));
    }

    #[test]
    fn no_command_is_given_for_a_name_that_the_hub_cannot_have() {
        let (_folder, cache) = example();
        let model = HubModel { repo: "../x".to_owned(), file: None, revision: None };
        let asked = Asked { model: &model, variant: None };
        let problem = asked.cached(&cache).unwrap_err();
        let error = asked.missing(problem, Network::Allowed).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
    }

    #[cfg(unix)]
    #[test]
    fn a_base_that_is_there_in_part_is_missing() {
        let (folder, cache) = example();
        let etag = checkpoints::hash::bytes_sha256(b"weights");
        let blob = folder.path().join("models--org--name/blobs").join(etag);
        checkpoints::fs::remove_file(&blob).unwrap();
        let asked = Asked { model: &model("hf:org/name"), variant: None };
        let problem = asked.cached(&cache).unwrap_err();
        let error = asked.missing(problem, Network::Allowed).unwrap();
        assert_eq!(error.exit(), Exit::Misconfigured);
        let message = error.to_string();
        assert!(message.contains("`unet/diffusion_pytorch_model.safetensors`"), "{message}");
    }
}
