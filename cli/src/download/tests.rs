use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use checkpoints::hash::bytes_sha256;
use recipes::HubModel;

use super::server::{Heard, Reply, Server};
use super::*;
use crate::exit::Exit;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";
const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
const INDEX: &[u8] = br#"{"scheduler": ["diffusers", "DDIMScheduler"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}"#;

/// The files of the model, those of weights long enough to be cut.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let weights = |seed: u8| -> Vec<u8> {
        let bytes = (0..200_000_u32).map(|n| (n % 251) as u8 ^ seed);
        bytes.collect()
    };
    vec![
        ("model_index.json", INDEX.to_vec()),
        ("safety_checker/model.safetensors", b"never".to_vec()),
        ("scheduler/scheduler_config.json", b"{\"a\": 1}".to_vec()),
        ("unet/config.json", b"{}".to_vec()),
        ("unet/diffusion_pytorch_model.bin", b"never".to_vec()),
        ("unet/diffusion_pytorch_model.fp16.safetensors", weights(1)),
        (WEIGHTS, weights(2)),
        ("unet/empty.txt", Vec::new()),
        ("v1.safetensors", weights(3)),
    ]
}

fn file(name: &str) -> Vec<u8> {
    files().into_iter().find(|file| file.0 == name).map(|file| file.1).unwrap()
}

/// How the hub names bytes: large files by their sha256, others by 40 digits.
fn etag(name: &str, bytes: &[u8]) -> String {
    let sha256 = bytes_sha256(bytes);
    if name.ends_with("safetensors") { sha256 } else { sha256[..40].to_owned() }
}

/// Serves the bytes of large files, as `/<sha256>`.
fn storage(answer: impl Fn(&Heard, &[u8]) -> Reply + Send + 'static) -> Server {
    let files = files();
    Server::start(move |request| {
        let path = |file: &(&str, Vec<u8>)| format!("/{}", etag(file.0, &file.1));
        match files.iter().find(|file| path(file) == request.path) {
            Some((_, bytes)) => answer(request, bytes).with("ETag", "\"of-the-storage\""),
            None => Reply::of(404, b""),
        }
    })
}

/// A hub with one model, whose large files lie in `storage`.
fn hub(storage: &Server) -> Server {
    let (files, storage) = (files(), storage.url());
    Server::start(move |request| {
        if request.path == "/api/models/org/name/revision/main" {
            let siblings: Vec<_> = files.iter().map(|file| json!({"rfilename": file.0})).collect();
            let listing = json!({"id": "org/name", "sha": COMMIT, "siblings": siblings});
            return Reply::of(200, listing.to_string().as_bytes());
        }
        // A model that was renamed.
        if let Some(rest) = request.path.strip_prefix("/org/name/") {
            return Reply::of(307, b"").with("Location", format!("/org/new/{rest}"));
        }
        let start = format!("/org/new/resolve/{COMMIT}/");
        let name = request.path.strip_prefix(&start).unwrap_or("");
        let Some((name, bytes)) = files.iter().find(|file| file.0 == name) else {
            return Reply::of(404, b"");
        };
        let etag = etag(name, bytes);
        if name.ends_with("safetensors") {
            Reply::of(302, b"moved")
                .with("Location", format!("{storage}/{etag}"))
                .with("X-Linked-Etag", format!("\"{etag}\""))
                .with("X-Linked-Size", bytes.len().to_string())
        } else {
            Reply::part_of(bytes, request).with("ETag", format!("\"{etag}\""))
        }
    })
}

fn client(hub: &Server) -> Client {
    let url = hub.url();
    let access = Access { endpoint: &url, token: Some(TOKEN), pause: Duration::ZERO };
    Client::new(access, "org/name").unwrap()
}

fn cache() -> (tempfile::TempDir, HubCache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = HubCache { dir: folder.path().to_owned() };
    (folder, cache)
}

/// Fetches `id` in `variant`; where it then lies.
fn fetched(
    hub: &Server,
    cache: &HubCache,
    id: &str,
    variant: Option<&str>,
) -> Result<PathBuf, DownloadError> {
    let model: HubModel = id.parse().unwrap();
    let asked = Asked { model: &model, variant };
    fetch_by(&client(hub), cache, asked, &mut |_| {})?;
    Ok(asked.cached(cache)?)
}

/// The requests for bytes of a file, by the beginnings of what they asked for.
fn starts(storage: &Server) -> Vec<Option<String>> {
    let gets = storage.heard().into_iter().filter(|request| request.method == "GET");
    gets.map(|request| request.headers.get("range").cloned()).collect()
}

fn blob(cache: &HubCache, name: &str) -> PathBuf {
    let etag = etag(name, &file(name));
    cache.dir.join("models--org--name/blobs").join(etag)
}

/// Leaves the bytes that an earlier attempt might have left.
fn begun(cache: &HubCache, name: &str, bytes: &[u8]) {
    let etag = etag(name, &file(name));
    match cache.blob("org/name", &etag, &mut || {}).unwrap() {
        Blob::Growing(mut blob) => blob.append(bytes).unwrap(),
        Blob::Whole => panic!("{name} is there"),
    }
}

#[test]
fn a_base_is_fetched_whole_and_nothing_else() {
    let storage = storage(|request, bytes| Reply::part_of(bytes, request));
    let hub = hub(&storage);
    let (_folder, cache) = cache();
    let dir = fetched(&hub, &cache, "hf:org/name", None).unwrap();
    let snapshot = cache.snapshot("org/name", COMMIT).unwrap();
    assert_eq!(dir, snapshot.dir);
    for (name, bytes) in files() {
        let is_part = !name.starts_with("safety_checker")
            && !["bin", "fp16", "v1"].iter().any(|part| name.contains(part));
        if is_part {
            assert_eq!(checkpoints::fs::read(&dir.join(name)).unwrap(), bytes, "{name}");
        } else {
            assert!(snapshot.file(name).is_err(), "{name}");
        }
    }
    let path = cache.dir.join("models--org--name/refs/main");
    assert_eq!(checkpoints::fs::read(&path).unwrap(), COMMIT.as_bytes());
    // Nothing more is asked for what is there.
    let n_heard = storage.heard().len();
    assert_eq!(n_heard, 1);
    fetched(&hub, &cache, "hf:org/name", None).unwrap();
    assert_eq!(storage.heard().len(), n_heard);
    drop((hub, storage));
    let model: HubModel = "hf:org/name".parse().unwrap();
    assert_eq!(Asked { model: &model, variant: None }.cached(&cache).unwrap(), dir);
}

#[test]
fn a_variant_and_a_single_file_are_fetched_alone() {
    let storage = storage(|request, bytes| Reply::part_of(bytes, request));
    let hub = hub(&storage);
    let (_folder, cache) = cache();
    let dir = fetched(&hub, &cache, "hf:org/name", Some("fp16")).unwrap();
    assert!(dir.join("unet/diffusion_pytorch_model.fp16.safetensors").is_file());
    assert!(!dir.join(WEIGHTS).exists());
    let (_folder, cache) = self::cache();
    let path = fetched(&hub, &cache, "hf:org/name/v1.safetensors@main", None).unwrap();
    assert_eq!(checkpoints::fs::read(&path).unwrap(), file("v1.safetensors"));
    assert!(!path.with_file_name("model_index.json").exists());
}

#[test]
fn the_token_stays_with_the_hub() {
    let storage = storage(|request, bytes| Reply::part_of(bytes, request));
    let hub = hub(&storage);
    let (_folder, cache) = cache();
    fetched(&hub, &cache, "hf:org/name", None).unwrap();
    let token = |request: &Heard| request.headers.get("authorization").cloned();
    let expected = format!("Bearer {TOKEN}");
    // Also where it leads on within itself.
    assert!(hub.heard().iter().any(|request| request.path.starts_with("/org/new/")));
    assert!(hub.heard().iter().all(|request| token(request).as_ref() == Some(&expected)));
    assert!(!storage.heard().is_empty());
    assert!(storage.heard().iter().all(|request| token(request).is_none()));
}

#[test]
fn a_cut_connection_goes_on_where_it_ended() {
    let n_asked = AtomicUsize::new(0);
    let storage = storage(move |request, bytes| {
        let cut_after = [70_000, 50_000, usize::MAX][n_asked.fetch_add(1, Ordering::SeqCst)];
        Reply::part_of(bytes, request).cut_after(cut_after)
    });
    let hub = hub(&storage);
    let (_folder, cache) = cache();
    let dir = fetched(&hub, &cache, "hf:org/name", None).unwrap();
    assert_eq!(checkpoints::fs::read(&dir.join(WEIGHTS)).unwrap(), file(WEIGHTS));
    let expected = [None, Some("bytes=70000-".to_owned()), Some("bytes=120000-".to_owned())];
    assert_eq!(starts(&storage), expected);
}

#[test]
fn an_earlier_attempt_is_gone_on_from_also_for_small_files() {
    let storage = storage(|request, bytes| Reply::part_of(bytes, request));
    let hub = hub(&storage);
    let (_folder, cache) = cache();
    begun(&cache, WEIGHTS, &file(WEIGHTS)[..1000]);
    begun(&cache, "model_index.json", &INDEX[..10]);
    let dir = fetched(&hub, &cache, "hf:org/name", None).unwrap();
    assert_eq!(checkpoints::fs::read(&dir.join(WEIGHTS)).unwrap(), file(WEIGHTS));
    assert_eq!(checkpoints::fs::read(&dir.join("model_index.json")).unwrap(), INDEX);
    assert_eq!(starts(&storage), [Some("bytes=1000-".to_owned())]);
    // The storage has its own ETag; there the sha256 is checked instead.
    assert!(storage.heard().iter().all(|request| !request.headers.contains_key("if-range")));
    let etag = format!("\"{}\"", etag("model_index.json", INDEX));
    let is_conditional = |request: &Heard| request.headers.get("if-range") == Some(&etag);
    assert!(hub.heard().iter().any(is_conditional));
}

#[test]
fn a_server_that_knows_no_ranges_is_asked_for_the_whole() {
    let storage = storage(|_, bytes| Reply::of(200, bytes));
    let hub = hub(&storage);
    let (_folder, cache) = cache();
    begun(&cache, WEIGHTS, b"anything");
    let dir = fetched(&hub, &cache, "hf:org/name", None).unwrap();
    assert_eq!(checkpoints::fs::read(&dir.join(WEIGHTS)).unwrap(), file(WEIGHTS));
    assert_eq!(starts(&storage).len(), 1);
}

#[test]
fn a_damaged_beginning_is_fetched_again() {
    let storage = storage(|request, bytes| Reply::part_of(bytes, request));
    let hub = hub(&storage);
    let (_folder, cache) = cache();
    begun(&cache, WEIGHTS, b"other bytes");
    let dir = fetched(&hub, &cache, "hf:org/name", None).unwrap();
    assert_eq!(checkpoints::fs::read(&dir.join(WEIGHTS)).unwrap(), file(WEIGHTS));
    assert_eq!(starts(&storage), [Some("bytes=11-".to_owned()), None]);
}

#[test]
fn bytes_with_another_sha256_never_get_a_name() {
    let storage = storage(|_, bytes| {
        let mut bytes = bytes.to_vec();
        bytes[77] ^= 1;
        Reply::of(200, &bytes)
    });
    let hub = hub(&storage);
    let (_folder, cache) = cache();
    let error = fetched(&hub, &cache, "hf:org/name", None).unwrap_err();
    assert!(matches!(error, DownloadError::Cache(HubError::Hash { .. })), "{error}");
    assert_eq!(error.exit(), Exit::Data);
    assert!(!blob(&cache, WEIGHTS).exists());
    let snapshot = cache.snapshot("org/name", COMMIT).unwrap();
    assert!(snapshot.file(WEIGHTS).is_err());
    assert!(!cache.dir.join("models--org--name/refs").exists());
    assert_eq!(starts(&storage).len(), 1);
}

#[test]
fn a_server_that_sends_nothing_is_given_up_and_what_came_is_kept() {
    let storage = storage(|request, bytes| {
        let cut_after = if request.headers.contains_key("range") { 0 } else { 90_000 };
        Reply::part_of(bytes, request).cut_after(cut_after)
    });
    let hub = hub(&storage);
    let (_folder, cache) = cache();
    let error = fetched(&hub, &cache, "hf:org/name", None).unwrap_err();
    assert!(matches!(error, DownloadError::Network { .. }), "{error}");
    assert!(error.to_string().contains(WEIGHTS), "{error}");
    assert_eq!(error.exit(), Exit::Unavailable);
    assert_eq!(starts(&storage).len(), 1 + ATTEMPTS as usize);
    let partial = blob(&cache, WEIGHTS).with_extension("incomplete");
    assert_eq!(checkpoints::fs::read(&partial).unwrap(), &file(WEIGHTS)[..90_000]);
}

#[test]
fn refusals_say_what_to_do_and_hold_no_secret() {
    for (status, exit, words) in [
        (401, Exit::Misconfigured, "the hub does not know the token, or the model (HTTP 401)"),
        (403, Exit::Misconfigured, "the hub refuses access (HTTP 403)"),
        (404, Exit::Usage, "the hub has no such thing (HTTP 404)"),
        (503, Exit::Unavailable, "the hub failed (HTTP 503)"),
    ] {
        let hub = Server::start(move |_| Reply::of(status, TOKEN.as_bytes()));
        let (_folder, cache) = cache();
        let error = fetched(&hub, &cache, "hf:org/name", None).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(words), "{message}");
        assert!(message.contains("the list of files at `main`"), "{message}");
        assert_eq!(error.exit(), exit, "{message}");
        let hint = error.hint().unwrap();
        assert!(!message.contains(TOKEN) && !hint.contains(TOKEN), "{message} {hint}");
        let is_consent = matches!(status, 401 | 403);
        assert_eq!(hint.contains(&format!("{}/org/name", hub.url())), is_consent, "{hint}");
        let n_asked = if status == 503 { ATTEMPTS as usize } else { 1 };
        assert_eq!(hub.heard().len(), n_asked);
    }
}

#[test]
fn a_gated_file_is_named_and_a_passing_failure_passes() {
    let n_failures = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&n_failures);
    let files = files();
    let hub = Server::start(move |request| {
        if request.path.starts_with("/api/") {
            if counted.fetch_add(1, Ordering::SeqCst) < 2 {
                return Reply::of(502, b"");
            }
            let siblings: Vec<_> = files.iter().map(|file| json!({"rfilename": file.0})).collect();
            let listing = json!({"sha": COMMIT, "siblings": siblings});
            return Reply::of(200, listing.to_string().as_bytes());
        }
        Reply::of(403, b"")
    });
    let (_folder, cache) = cache();
    let error = fetched(&hub, &cache, "hf:org/name", None).unwrap_err();
    assert_eq!(n_failures.load(Ordering::SeqCst), 3);
    assert!(error.to_string().contains("could not fetch `model_index.json`"), "{error}");
    assert_eq!(error.exit(), Exit::Misconfigured);
}

#[test]
fn a_list_that_makes_no_sense_is_refused() {
    for listing in ["<html>", "{}", r#"{"sha": "../../x", "siblings": []}"#] {
        let hub = Server::start(move |_| Reply::of(200, listing.as_bytes()));
        let (folder, cache) = cache();
        let error = fetched(&hub, &cache, "hf:org/name", None).unwrap_err();
        assert!(matches!(error, DownloadError::Answer { .. }), "{error}");
        assert!(checkpoints::fs::list(folder.path()).unwrap().is_empty());
    }
}

#[test]
fn an_endless_redirection_ends() {
    let hub =
        Server::start(|request| Reply::of(302, b"").with("Location", format!("{}x", request.path)));
    let (_folder, cache) = cache();
    let error = fetched(&hub, &cache, "hf:org/name", None).unwrap_err();
    assert!(error.to_string().contains("leads on more than 10 times"), "{error}");
}

#[test]
fn an_address_or_a_token_that_cannot_be_used_is_refused_without_showing_it() {
    let new = |endpoint, token| {
        let access = Access { endpoint, token: Some(token), pause: Duration::ZERO };
        Client::new(access, "org/name").map(|_| ()).unwrap_err()
    };
    for endpoint in ["hub.org", "ftp://hub.org", "https://me:secret@hub.org"] {
        let error = new(endpoint, TOKEN);
        assert!(matches!(error, DownloadError::Endpoint), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let error = new("https://hub.org", "hf_secret\nX-Other: 1");
    assert!(matches!(error, DownloadError::Token), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
}
