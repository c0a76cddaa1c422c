use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::ErrorKind;
use crate::fs::faults::FaultyFs;
use crate::tensors::{HostTensor, TensorMap};

pub(super) const RECIPE_YAML: &str = "name: cylinder\nseed: 7\nfit:\n  steps: 300\n";

pub(super) fn identity() -> RunIdentity<'static> {
    RunIdentity {
        id: "cylinder-01234567",
        fingerprint: "0123456789abcdef",
        resolved_recipe: RECIPE_YAML,
    }
}

pub(super) fn attempt(id: &str) -> Attempt {
    Attempt {
        id: id.to_owned(),
        host: "node1".to_owned(),
        pid: 4242,
        started_at: 1_000.0,
        device: "cpu".to_owned(),
        engine: BTreeMap::new(),
        numerics: BTreeMap::from([("simd".to_owned(), "avx2".to_owned())]),
    }
}

pub(super) fn tensors(value: f32) -> TensorMap {
    TensorMap::from([("a.weight".to_owned(), HostTensor::from_f32([2, 2], vec![value; 4]))])
}

pub(super) fn commit(run: &RunDir, step: u64) -> Result<Checkpoint, CheckpointError> {
    #[expect(clippy::cast_precision_loss, reason = "small steps")]
    let tensors = tensors(step as f32);
    let none = BTreeMap::new();
    let state = format!("{{\"step\":{step}}}");
    run.commit_checkpoint(
        step,
        &[
            ("adapter.safetensors", Content::Tensors(&tensors, &none)),
            ("state.json", Content::Bytes(state.as_bytes())),
        ],
    )
}

fn open(runs: &Path, id: &str) -> RunDir {
    RunDir::open(runs, &identity(), attempt(id)).unwrap()
}

#[test]
fn a_committed_checkpoint_is_found_with_its_files() {
    let runs = tempfile::tempdir().unwrap();
    let run = open(runs.path(), "7f3a");
    assert!(run.newest().unwrap().is_none());
    commit(&run, 100).unwrap();
    commit(&run, 1200).unwrap();
    let newest = run.newest().unwrap().unwrap();
    assert_eq!(newest.step(), 1200);
    assert!(newest.path().ends_with("checkpoints/step-00001200-7f3a"));
    assert_eq!(newest.tensors("adapter.safetensors").unwrap().read_all().unwrap(), tensors(1200.0));
    assert_eq!(newest.json::<serde_json::Value>("state.json").unwrap(), json!({"step": 1200}));
    assert_eq!(newest.commit().files["state.json"].bytes, 13);
    assert_eq!(run.folder().steps().unwrap(), [100, 1200]);
    assert_eq!(run.folder().at_step(100).unwrap().unwrap().step(), 100);
    assert!(run.folder().at_step(101).unwrap().is_none());
}

#[test]
fn a_step_is_committed_once_per_attempt_and_again_by_the_next() {
    let runs = tempfile::tempdir().unwrap();
    let run = open(runs.path(), "aaaa");
    let first = commit(&run, 5).unwrap().path().to_owned();
    assert_eq!(commit(&run, 5).unwrap().path(), first);
    drop(run);
    let run = open(runs.path(), "bbbb");
    let second = commit(&run, 5).unwrap();
    assert_ne!(second.path(), first);
    assert_eq!(run.newest().unwrap().unwrap().path(), second.path());
}

#[test]
fn a_damaged_checkpoint_is_told_and_the_one_before_is_taken() {
    let runs = tempfile::tempdir().unwrap();
    let run = open(runs.path(), "7f3a");
    for step in [1, 2, 3] {
        commit(&run, step).unwrap();
    }
    let damage = |step: u64, bytes: &[u8]| {
        let path = run.path().join(format!("checkpoints/step-{step:08}-7f3a/state.json"));
        crate::fs::atomic_write(&path, bytes).unwrap();
    };
    damage(3, b"{\"step\":4}");
    damage(2, b"{");
    let newest = run.newest().unwrap().unwrap();
    assert_eq!(newest.step(), 1);
    assert!(newest.damaged()[0].contains("sha256"), "{:?}", newest.damaged());
    assert!(
        newest.damaged()[1].contains("expected 10 bytes in `state.json`, found 1"),
        "{:?}",
        newest.damaged()
    );
    // Nothing is deleted while the newest is damaged.
    assert!(run.retain(1, &[]).unwrap().is_empty());

    damage(1, b"");
    let error = run.newest().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(matches!(error, CheckpointError::NoneVerifies { damages, .. } if damages.len() == 3));
}

#[test]
fn a_checkpoint_of_another_run_is_not_taken() {
    let runs = tempfile::tempdir().unwrap();
    let run = open(runs.path(), "7f3a");
    let checkpoint = commit(&run, 1).unwrap();
    let mut foreign = checkpoint.commit().clone();
    foreign.fingerprint = "ffff".to_owned();
    crate::fs::atomic_write_json(&checkpoint.file("COMMIT.json"), &foreign).unwrap();
    assert!(matches!(run.newest(), Err(CheckpointError::NoneVerifies { .. })));
}

#[test]
fn retention_keeps_the_newest_the_pinned_and_the_held() {
    let runs = tempfile::tempdir().unwrap();
    let run = open(runs.path(), "7f3a");
    for step in 1..=6 {
        commit(&run, step).unwrap();
    }
    let held = run.folder().at_step(3).unwrap().unwrap();
    assert_eq!(run.retain(2, &[1]).unwrap(), [4, 2]);
    assert_eq!(run.folder().steps().unwrap(), [1, 3, 5, 6]);
    drop(held);
    assert_eq!(run.retain(0, &[]).unwrap(), [5, 3, 1]);
    assert_eq!(run.folder().steps().unwrap(), [6]);
}

#[test]
fn a_half_deleted_checkpoint_is_none_and_is_removed() {
    let runs = tempfile::tempdir().unwrap();
    let run = open(runs.path(), "7f3a");
    commit(&run, 1).unwrap();
    let half = commit(&run, 2).unwrap().path().to_owned();
    crate::fs::remove_file(&half.join("COMMIT.json")).unwrap();
    assert_eq!(run.newest().unwrap().unwrap().step(), 1);
    run.retain(2, &[]).unwrap();
    assert!(!half.exists());
}

#[test]
fn a_second_process_is_told_who_holds_the_run() {
    let runs = tempfile::tempdir().unwrap();
    let run = open(runs.path(), "7f3a");
    let heartbeat = Heartbeat {
        attempt: "7f3a".to_owned(),
        phase: "train".to_owned(),
        step: 3,
        loss: Some(0.5),
        images_per_second: None,
        last_checkpoint: None,
        energy: None,
        written_at: 988.0,
        progress_at: 988.0,
    };
    run.heartbeat(&heartbeat).unwrap();
    assert_eq!(run.folder().heartbeat().unwrap().unwrap(), heartbeat);
    let error = RunDir::open(runs.path(), &identity(), attempt("bbbb")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(
        error.to_string().contains("host node1, pid 4242, attempt 7f3a, heartbeat 12 s ago"),
        "{error}"
    );
    drop(run);
    open(runs.path(), "bbbb");
}

#[test]
fn another_fingerprint_shows_how_the_recipes_differ() {
    let runs = tempfile::tempdir().unwrap();
    drop(open(runs.path(), "7f3a"));
    let other = RunIdentity {
        fingerprint: "ffff",
        resolved_recipe: "name: cylinder\nseed: 8\nfit:\n  steps: 300\n",
        ..identity()
    };
    let error = RunDir::open(runs.path(), &other, attempt("bbbb")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Recipe);
    assert!(error.to_string().ends_with("- seed: 7\n+ seed: 8"), "{error}");
    let folder = RunFolder::open(&runs.path().join(identity().id)).unwrap();
    assert_eq!((folder.fingerprint(), folder.recipe_yaml()), (identity().fingerprint, RECIPE_YAML));
    assert!(matches!(RunFolder::open(runs.path()), Err(CheckpointError::NotARun { .. })));
}

#[test]
fn leftovers_of_a_dead_writer_are_removed() {
    let runs = tempfile::tempdir().unwrap();
    drop(open(runs.path(), "7f3a"));
    let run_path = runs.path().join(identity().id);
    crate::fs::atomic_write(
        &run_path.join("checkpoints/.tmp-7f3a-00000003/adapter.safetensors"),
        b"half",
    )
    .unwrap();
    crate::fs::atomic_write(&run_path.join(".tmp-heartbeat.json-1-1"), b"half").unwrap();
    let run = open(runs.path(), "bbbb");
    assert!(crate::fs::list(&run.path().join("checkpoints")).unwrap().is_empty());
    assert!(!run_path.join(".tmp-heartbeat.json-1-1").exists());
}

#[test]
fn attempts_are_counted_and_standstill_is_noticed() {
    let runs = tempfile::tempdir().unwrap();
    for (idx, from_step) in [0, 100, 100].into_iter().enumerate() {
        let run = open(runs.path(), &format!("000{idx}"));
        assert_eq!(run.attempt_number(), idx as u64 + 1);
        run.begin(from_step).unwrap();
        if idx == 0 {
            let end = AttemptEnd {
                step: 100,
                exit_code: 75,
                reason: "SIGTERM".to_owned(),
                prepared: false,
                ended_at: 2.5,
                seconds_from_signal: Some(0.25),
            };
            run.end(&end).unwrap();
            let last = run.folder().attempt_records().unwrap().pop().unwrap();
            assert_eq!(last, AttemptRecord::End { number: 1, id: "0000".to_owned(), end });
        }
    }
    let folder = RunFolder::open(&runs.path().join(identity().id)).unwrap();
    assert_eq!(folder.n_stalled_attempts(100).unwrap(), 2);
    assert_eq!(folder.n_stalled_attempts(200).unwrap(), 0);
    // Once an attempt kept class pictures, those before it no longer count.
    for (idx, prepared) in [true, false].into_iter().enumerate() {
        let run = open(runs.path(), &format!("001{idx}"));
        run.begin(100).unwrap();
        let end = AttemptEnd {
            step: 100,
            exit_code: 75,
            reason: "SIGTERM".to_owned(),
            prepared,
            ended_at: 3.5,
            seconds_from_signal: None,
        };
        run.end(&end).unwrap();
    }
    assert_eq!(folder.n_stalled_attempts(100).unwrap(), 1);
    assert!(
        matches!(&folder.attempts().unwrap()[1], AttemptRecord::Start { from_step: 100, attempt, .. } if attempt.id == "0001")
    );
}

#[test]
fn torn_lines_of_metrics_are_skipped_and_later_attempts_win() {
    let runs = tempfile::tempdir().unwrap();
    let run = open(runs.path(), "7f3a");
    let mut metrics = run.journal("metrics.jsonl").unwrap();
    for step in 1..=3 {
        metrics.append(&json!({"step": step, "loss": 1.0})).unwrap();
    }
    metrics.sync().unwrap();
    drop(metrics);
    let path = run.path().join("metrics.jsonl");
    let mut torn = crate::fs::read(&path).unwrap();
    torn.truncate(torn.len() - 5);
    crate::fs::atomic_write(&path, &torn).unwrap();
    assert_eq!(run.folder().metrics().unwrap().len(), 2);

    let mut metrics = run.journal("metrics.jsonl").unwrap();
    metrics.append(&json!({"step": 2, "loss": 0.5})).unwrap();
    let found = run.folder().metrics().unwrap();
    assert_eq!(found, [json!({"step": 1, "loss": 1.0}), json!({"step": 2, "loss": 0.5})]);
    assert_eq!(run.folder().journal("metrics.jsonl").unwrap().len(), 3);
}

#[test]
fn a_finished_run_says_so() {
    let runs = tempfile::tempdir().unwrap();
    let run = open(runs.path(), "7f3a");
    assert_eq!(run.folder().done().unwrap(), None);
    let done = Done {
        exit_code: 1,
        step: 300,
        result: "selection 0.2 nats, expected at most 0.1".to_owned(),
        figures: BTreeMap::new(),
    };
    run.finish(&done).unwrap();
    assert_eq!(run.folder().done().unwrap(), Some(done));
}

#[test]
fn artefacts_stay_below_the_run() {
    let runs = tempfile::tempdir().unwrap();
    let run = open(runs.path(), "7f3a");
    let path = run.write("previews/0.png", b"\x89PNG").unwrap();
    assert_eq!(crate::fs::read(&path).unwrap(), b"\x89PNG");
    for name in ["../x", "/x", "", "a/../../x", "a\\..\\x", "."] {
        assert!(matches!(run.write(name, b""), Err(CheckpointError::PathEscapes { .. })), "{name}");
    }
    let escaping = RunIdentity { id: "../x", ..identity() };
    assert!(RunDir::open(runs.path(), &escaping, attempt("7f3a")).is_err());
}

#[test]
fn non_finite_tensors_are_not_committed() {
    let runs = tempfile::tempdir().unwrap();
    let run = open(runs.path(), "7f3a");
    let (bad, none) = (tensors(f32::NAN), BTreeMap::new());
    let error = run
        .commit_checkpoint(1, &[("adapter.safetensors", Content::Tensors(&bad, &none))])
        .unwrap_err();
    assert!(error.to_string().contains("`a.weight`"), "{error}");
    assert!(run.newest().unwrap().is_none());
}

#[test]
fn every_failed_operation_leaves_the_previous_checkpoint_intact() {
    let runs = tempfile::tempdir().unwrap();
    drop(open(runs.path(), "0000"));
    let mut n_failures = 0;
    for fail_at in 0.. {
        commit(&open(runs.path(), &format!("a{fail_at:03}")), 1).unwrap();
        let fs = FaultyFs::failing_at(fail_at);
        let outcome = RunDir::open_on(
            Arc::new(fs.clone()),
            runs.path(),
            &identity(),
            attempt(&format!("b{fail_at:03}")),
        )
        .and_then(|run| {
            commit(&run, 2)?;
            run.retain(1, &[])?;
            run.begin(1)
        });
        let run = open(runs.path(), "cccc");
        let newest = run.newest().unwrap().unwrap();
        assert!(newest.damaged().is_empty());
        if !fs.failed() {
            outcome.unwrap();
            assert_eq!(newest.step(), 2);
            break;
        }
        n_failures += 1;
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains(&runs.path().display().to_string()), "{error}");
        drop(newest);
        // Back to a run that has only step 1.
        drop(run);
        fs_err::remove_dir_all(runs.path().join(identity().id).join(CHECKPOINTS)).unwrap();
    }
    assert!(n_failures > 20, "{n_failures}");
}
