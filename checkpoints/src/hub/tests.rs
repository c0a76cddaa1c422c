use super::*;
use crate::advice::ErrorKind;

const REPO: &str = "org/name";
const FIRST: &str = "0123456789abcdef0123456789abcdef01234567";
const SECOND: &str = "0123456fffffffffffffffffffffffffffffffff";

/// A cache with one model: `FIRST` is `main` and whole, `SECOND` has one file.
fn example() -> (tempfile::TempDir, HubCache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = HubCache { dir: folder.path().to_owned() };
    let index = br#"{"scheduler": ["diffusers", "DDIMScheduler"],
        "vae": ["diffusers", "AutoencoderKL"]}"#;
    put(&cache, FIRST, "model_index.json", index);
    put(&cache, FIRST, "scheduler/scheduler_config.json", b"{}");
    put(&cache, FIRST, "vae/config.json", b"{}");
    put(&cache, FIRST, "vae/diffusion_pytorch_model.safetensors", b"weights");
    put(&cache, SECOND, "model_index.json", index);
    cache.write_ref(REPO, "main", FIRST).unwrap();
    cache.write_ref(REPO, "refs/pr/1", SECOND).unwrap();
    (folder, cache)
}

fn put(cache: &HubCache, commit: &str, name: &str, bytes: &[u8]) {
    let etag = crate::hash::bytes_sha256(bytes);
    if let Blob::Growing(mut blob) = cache.blob(REPO, &etag, &mut || {}).unwrap() {
        blob.append(bytes).unwrap();
        blob.finish(Some(bytes.len() as u64)).unwrap();
    }
    cache.link(REPO, commit, name, &etag).unwrap();
}

fn blob(cache: &HubCache, bytes: &[u8]) -> PathBuf {
    cache.dir.join("models--org--name/blobs").join(crate::hash::bytes_sha256(bytes))
}

/// The words of an error after which fetching helps.
fn absent(error: &HubError) -> String {
    assert_eq!(error.kind(), HubErrorKind::Absent, "{error}");
    error.to_string()
}

#[test]
fn a_revision_is_a_branch_a_commit_or_the_beginning_of_one() {
    let (_folder, cache) = example();
    let commit = |revision| cache.resolve(REPO, revision).map(|snapshot| snapshot.commit);
    assert_eq!(commit(None).unwrap(), FIRST);
    assert_eq!(commit(Some("main")).unwrap(), FIRST);
    assert_eq!(commit(Some("refs/pr/1")).unwrap(), SECOND);
    assert_eq!(commit(Some(SECOND)).unwrap(), SECOND);
    assert_eq!(commit(Some("0123456F")).unwrap(), SECOND);
    assert_eq!(commit(Some(&FIRST[..12])).unwrap(), FIRST);
    let error = commit(Some("0123456")).unwrap_err();
    assert_eq!(error.kind(), HubErrorKind::Name);
    assert!(error.to_string().contains(&format!("{FIRST}, {SECOND}")), "{error}");
    // Six digits are too few to stand for a commit.
    let error = absent(&commit(Some("012345")).unwrap_err());
    assert!(error.contains("found `main`, `refs/pr/1`"), "{error}");
    cache.write_ref(REPO, "0123456", SECOND).unwrap();
    assert_eq!(commit(Some("0123456")).unwrap(), SECOND);
}

#[test]
fn a_file_is_found_by_its_path_in_the_repository() {
    let (folder, cache) = example();
    let snapshot = cache.resolve(REPO, None).unwrap();
    let expected = folder.path().join("models--org--name/snapshots").join(FIRST);
    assert_eq!(snapshot.dir, expected);
    assert_eq!(snapshot.file("vae/config.json").unwrap(), expected.join("vae/config.json"));
    snapshot.check_base(None).unwrap();
    let error = snapshot.file("../../../x").unwrap_err();
    assert_eq!(error.kind(), HubErrorKind::Name);
    let error = absent(&snapshot.file("v1-5.safetensors").unwrap_err());
    assert!(error.contains("`v1-5.safetensors` is missing") && error.contains(FIRST), "{error}");
}

#[test]
fn what_was_never_fetched_is_named() {
    let (folder, cache) = example();
    let error = absent(&cache.resolve("org/other", None).unwrap_err());
    assert!(error.contains("`org/other`"), "{error}");
    assert!(error.contains(&folder.path().display().to_string()), "{error}");
    let error = absent(&cache.resolve(REPO, Some("v2")).unwrap_err());
    assert!(error.contains("`v2`"), "{error}");
    let gone = "f".repeat(40);
    let error = absent(&cache.resolve(REPO, Some(&gone)).unwrap_err());
    assert!(error.contains(&format!("snapshots/{gone}")), "{error}");
    let half = cache.resolve(REPO, Some(SECOND)).unwrap();
    let error = half.check_base(None).unwrap_err();
    assert_eq!(error.kind(), HubErrorKind::Weights);
    assert!(error.to_string().contains("component `vae`"), "{error}");
    let error = cache.resolve("../org", None).unwrap_err();
    assert_eq!(error.kind(), HubErrorKind::Name);
    let error = cache.resolve(REPO, Some("../../x")).unwrap_err();
    assert_eq!(error.kind(), HubErrorKind::Name);
}

#[test]
fn half_a_component_is_not_taken_for_a_whole_one() {
    let (_folder, cache) = example();
    let snapshot = cache.resolve(REPO, None).unwrap();
    crate::fs::remove_file(&snapshot.dir.join("vae/config.json")).unwrap();
    let error = absent(&snapshot.check_base(None).unwrap_err());
    assert!(error.contains("`vae/config.json`"), "{error}");
    crate::fs::remove_file(&snapshot.dir.join("vae/diffusion_pytorch_model.safetensors")).unwrap();
    let error = snapshot.check_base(None).unwrap_err();
    assert_eq!(error.kind(), HubErrorKind::Weights);
}

#[cfg(unix)]
#[test]
fn a_name_without_its_bytes_is_a_broken_link() {
    let (_folder, cache) = example();
    let snapshot = cache.resolve(REPO, None).unwrap();
    let weights = blob(&cache, b"weights");
    let partial = weights.with_extension("incomplete");
    fs_err::rename(&weights, &partial).unwrap();
    let error = absent(&snapshot.check_base(None).unwrap_err());
    assert!(error.contains("`vae/diffusion_pytorch_model.safetensors`"), "{error}");
    assert!(error.contains("is not complete"), "{error}");
    // Newer tools put a mark of the process into the name.
    let marked = weights.with_extension("0a1b2c3d.incomplete");
    fs_err::rename(&partial, &marked).unwrap();
    let error = absent(&snapshot.check_base(None).unwrap_err());
    assert!(error.contains("is not complete"), "{error}");
    crate::fs::remove_file(&marked).unwrap();
    let error = absent(&snapshot.check_base(None).unwrap_err());
    assert!(error.contains("is not there"), "{error}");
    crate::fs::atomic_write(&partial, b"weig").unwrap();
    let link = snapshot.dir.join("vae/diffusion_pytorch_model.safetensors");
    let target = fs_err::read_link(&link).unwrap().with_extension("incomplete");
    crate::fs::replace_link(&target, &link).unwrap();
    let error = absent(&snapshot.check_base(None).unwrap_err());
    assert!(error.contains("is not complete"), "{error}");
}

#[test]
fn a_ref_that_holds_no_commit_leads_nowhere() {
    let (_folder, cache) = example();
    for content in ["", "../../..", "main", &FIRST[..39]] {
        let path = cache.dir.join("models--org--name/refs/main");
        crate::fs::atomic_write(&path, content.as_bytes()).unwrap();
        let error = absent(&cache.resolve(REPO, None).unwrap_err());
        assert!(error.contains("refs/main"), "{error}");
    }
    crate::fs::atomic_write(
        &cache.dir.join("models--org--name/refs/main"),
        format!("{FIRST}\n").as_bytes(),
    )
    .unwrap();
    assert_eq!(cache.resolve(REPO, None).unwrap().commit, FIRST);
}

#[test]
fn an_unreadable_index_is_an_error_of_files() {
    let (_folder, cache) = example();
    let snapshot = cache.resolve(REPO, None).unwrap();
    crate::fs::atomic_write(&snapshot.dir.join("model_index.json"), b"{").unwrap();
    let error = snapshot.check_base(None).unwrap_err();
    assert_eq!(error.kind(), HubErrorKind::Files(ErrorKind::Data));
    assert!(error.to_string().contains("model_index.json"), "{error}");
}
