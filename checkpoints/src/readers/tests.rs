use std::path::{Path, PathBuf};

use super::*;
use crate::folder::ComponentFiles;
use crate::key_map::{Naming, Part};
use crate::safetensors::write_tensors;
use crate::tensors::{HostTensor, TensorMap};

const ATTENTION: &str = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k";
const FEED_FORWARD: &str = "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/golden").join(name)
}

/// Layers of a golden base: everything with a weight of two axes or four.
fn layers(family: &str) -> Vec<(String, Vec<usize>)> {
    let mut layers = Vec::new();
    for component in ["unet", "text_encoder", "text_encoder_2"] {
        let dir = golden(&format!("family_{family}/base/{component}"));
        if !dir.is_dir() {
            continue;
        }
        let weights = ComponentFiles::open(&dir).unwrap().weights;
        for name in weights.names().filter(|name| !name.contains("embeddings.")) {
            let shape = weights.info(name).unwrap().shape.clone();
            if let (Some(path), true) = (name.strip_suffix(".weight"), shape.len() >= 2) {
                layers.push((format!("{component}.{path}"), shape));
            }
        }
    }
    layers
}

fn model(family: &str) -> ModelKeys {
    let layers = layers(family);
    ModelKeys::new(layers.iter().map(|(path, shape)| (path.as_str(), shape.as_slice())))
}

fn tensors(family: &str, file: &str) -> TensorMap {
    let path = golden(&format!("family_{family}/{file}.safetensors"));
    TensorFile::open(&path).unwrap().read_all().unwrap()
}

/// What all readers make of these tensors.
fn reports(tensors: &TensorMap, model: &ModelKeys) -> [ReaderReport; 4] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.safetensors");
    write_tensors(&path, tensors, &BTreeMap::new()).unwrap();
    let file = TensorFile::open(&path).unwrap();
    Reader::ALL.map(|reader| report(&file, model, reader).unwrap())
}

fn verdicts(reports: &[ReaderReport; 4]) -> [&'static str; 4] {
    [0, 1, 2, 3].map(|index: usize| reports[index].verdict.name())
}

fn reason(report: &ReaderReport) -> &str {
    match &report.verdict {
        Verdict::Refused(reason) => reason,
        Verdict::Applied | Verdict::Otherwise | Verdict::Partly => {
            panic!("{}: {:?}", report.reader.name(), report.verdict)
        }
    }
}

#[test]
fn every_reader_applies_what_kohya_tools_write() {
    for family in ["sd1", "sd2", "sdxl"] {
        let tensors = tensors(family, "kohya");
        for report in reports(&tensors, &model(family)) {
            let name = report.reader.name();
            assert_eq!(report.unknown, Vec::<String>::new(), "{family} {name}");
            assert_eq!((report.n_known, &report.verdict), (tensors.len(), &Verdict::Applied));
        }
    }
}

#[test]
fn what_diffusers_writes_reaches_no_attention_elsewhere() {
    for family in ["sd1", "sd2", "sdxl"] {
        let path = golden(&format!("family_{family}/diffusers.safetensors"));
        let file = TensorFile::open(&path).unwrap();
        let reports = Reader::ALL.map(|reader| report(&file, &model(family), reader).unwrap());
        assert_eq!(verdicts(&reports), ["partly", "refused", "refused", "applied"], "{family}");
        let unknown = &reports[0].unknown;
        let expected: Vec<&str> = file
            .names()
            .filter(|name| {
                (name.starts_with("unet.") && name.contains(".attn"))
                    || name.starts_with("text_encoder.encoder.")
            })
            .collect();
        assert!(expected.len() > 100 && *unknown == expected, "{family}: {}", unknown.len());
        assert!(reason(&reports[1]).contains("more than 12"), "{family}");
        // Alpha is 3 at rank 2.
        assert!(reports[0].notes[0].contains("lora_adapter_metadata"), "{:?}", reports[0].notes);
    }
}

#[test]
fn sdxl_in_the_names_of_diffusers_misses_one_layer_in_a1111() {
    let layers = layers("sdxl");
    let mut renamed = TensorMap::new();
    for (path, weight) in &layers {
        let Some(inner) = path.strip_prefix("unet.") else { continue };
        if inner.contains("embedding") {
            continue;
        }
        let stem = format!("lora_unet_{}", inner.replace('.', "_"));
        let (mut down, mut up) = (weight.clone(), vec![1; weight.len()]);
        (down[0], up[0], up[1]) = (1, weight[0], 1);
        for (part, shape) in [("lora_down", down), ("lora_up", up)] {
            let n_values = shape.iter().product();
            let tensor = HostTensor::from_f32(shape, vec![1.0; n_values]);
            renamed.insert(format!("{stem}.{part}.weight"), tensor);
        }
        renamed.insert(format!("{stem}.alpha"), HostTensor::scalar(1.0));
    }
    let reports = reports(&renamed, &model("sdxl"));
    assert_eq!(verdicts(&reports), ["applied", "applied", "partly", "applied"]);
    let stem = "lora_unet_up_blocks_0_upsamplers_0_conv";
    let parts = ["alpha", "lora_down.weight", "lora_up.weight"];
    assert_eq!(reports[2].unknown, parts.map(|part| format!("{stem}.{part}")));
}

#[test]
fn a_module_without_alpha_gets_that_of_the_others_in_diffusers() {
    let mut tensors = tensors("sd1", "kohya");
    tensors.remove("lora_te_text_model_encoder_layers_1_mlp_fc1.alpha").unwrap();
    let reports = reports(&tensors, &model("sd1"));
    assert_eq!(verdicts(&reports), ["applied", "applied", "applied", "applied otherwise"]);
    let note = &reports[3].notes[0];
    assert!(note.starts_with("1 of 18 modules of text_encoder have no alpha"), "{note}");
    // If none has alpha, every scale is 1 there, too.
    let mut bare = self::tensors("sd1", "kohya");
    bare.retain(|key, _| key.strip_suffix(".alpha").is_none());
    assert_eq!(verdicts(&self::reports(&bare, &model("sd1"))), ["applied"; 4]);
}

#[test]
fn another_alpha_is_lost_in_diffusers_where_patterns_do_not_reach() {
    let with = |key: &str| {
        let mut tensors = tensors("sd1", "kohya");
        tensors.insert(format!("{key}.alpha"), HostTensor::scalar(0.5)).unwrap();
        reports(&tensors, &model("sd1"))
    };
    let block = "lora_unet_mid_block_attentions_0_transformer_blocks_0";
    let attention = with(&format!("{block}_attn1_to_q"));
    assert_eq!(verdicts(&attention), ["applied", "applied", "applied", "applied otherwise"]);
    assert!(attention[3].notes[0].contains("1 of") && attention[3].notes[0].contains("of unet"));
    let text = with("lora_te_text_model_encoder_layers_0_mlp_fc2");
    assert!(text[3].notes[0].contains("1 of 18 modules of text_encoder"), "{:?}", text[3].notes);
    assert_eq!(verdicts(&with(&format!("{block}_ff_net_2"))), ["applied"; 4]);
}

#[test]
fn shapes_are_judged_as_each_reader_does() {
    let key = "lora_unet_mid_block_attentions_0_proj_in";
    let mut flat = tensors("sd1", "kohya");
    for part in ["lora_down", "lora_up"] {
        flat.get_mut(&format!("{key}.{part}.weight")).unwrap().shape.truncate(2);
    }
    let reports = reports(&flat, &model("sd1"));
    assert_eq!(verdicts(&reports), ["applied", "applied", "applied", "refused"]);
    assert!(reason(&reports[3]).contains("mid_block.attentions.0.proj_in"));
    let mut wrong = tensors("sd1", "kohya");
    let wide = HostTensor::from_f32([2, 9, 1, 1], vec![0.0; 18]);
    wrong.insert(format!("{key}.lora_down.weight"), wide).unwrap();
    let reports = self::reports(&wrong, &model("sd1"));
    assert_eq!(verdicts(&reports), ["applied otherwise", "refused", "refused", "refused"]);
}

#[test]
fn other_kinds_of_adapters_are_read_elsewhere_and_refused_by_diffusers() {
    let stem = "lora_unet_mid_block_resnets_0_conv1";
    for part in ["lora_mid.weight", "hada_w1_a", "lokr_w1", "diff"] {
        let mut tensors = tensors("sd1", "kohya");
        tensors.insert(format!("{stem}.{part}"), HostTensor::from_f32([1, 1], vec![0.0]));
        let reports = reports(&tensors, &model("sd1"));
        assert_eq!(verdicts(&reports), ["applied", "applied", "applied", "refused"], "{part}");
        assert!(reason(&reports[3]).contains(&format!("`{stem}.{part}` is left over")));
    }
    let mut magnitudes = tensors("sd1", "kohya");
    let scale = |shape: [usize; 2]| HostTensor::from_f32(shape, vec![1.0; shape[0] * shape[1]]);
    let stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
    magnitudes.insert(format!("{stem}.dora_scale"), scale([1, 24]));
    let reports = reports(&magnitudes, &model("sd1"));
    assert_eq!(verdicts(&reports), ["applied", "applied", "applied", "partly"]);
    assert!(reports[3].notes[0].contains("1 DoRA modules are dropped"));
    magnitudes.insert(format!("{stem}.dora_scale"), scale([24, 1]));
    let reports = self::reports(&magnitudes, &model("sd1"));
    assert_eq!(verdicts(&reports)[..3], ["applied otherwise"; 3]);
}

#[test]
fn forge_gives_up_above_twelve_unmatched_keys() {
    for (n, verdict) in [(12, "partly"), (13, "refused")] {
        let mut tensors = tensors("sd1", "kohya");
        for index in 0..n {
            tensors.insert(format!("lora_unet_elsewhere_{index}.alpha"), HostTensor::scalar(1.0));
        }
        let reports = reports(&tensors, &model("sd1"));
        assert_eq!(verdicts(&reports), ["partly", verdict, "partly", "refused"], "{n}");
        assert_eq!(reports[0].unknown.len(), n);
    }
}

#[test]
fn half_a_module_and_foreign_keys_end_the_loading() {
    let mut tensors = tensors("sd1", "kohya");
    let up = "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight";
    let factor = tensors.remove(up).unwrap();
    let reports = reports(&tensors, &model("sd1"));
    // The first two never look at a down factor alone.
    assert_eq!(verdicts(&reports), ["partly", "partly", "refused", "refused"]);
    tensors.insert(up.to_owned(), factor);
    tensors.insert("position_ids".to_owned(), HostTensor::scalar(0.0));
    let reports = self::reports(&tensors, &model("sd1"));
    assert_eq!(verdicts(&reports), ["partly", "partly", "partly", "refused"]);
    assert!(reason(&reports[3]).contains("`position_ids` has no `lora`"));
}

fn map() -> KeyMap {
    KeyMap::new(Naming::Diffusers, [ATTENTION, FEED_FORWARD]).unwrap()
}

fn keys(key: &dyn Fn(&str, Part) -> String, parts: &[Part]) -> Vec<String> {
    [ATTENTION, FEED_FORWARD]
        .iter()
        .flat_map(|path| parts.iter().map(|&part| key(path, part)))
        .collect()
}

fn n_unknown(keys: &[String], reader: Reader) -> usize {
    unknown_keys(keys.iter().map(String::as_str), &map(), reader).len()
}

#[test]
fn a_table_of_layers_alone_answers_what_is_known() {
    let kohya = keys(
        &|path, part| map().kohya_key(path, part).unwrap(),
        &[Part::Down, Part::Up, Part::Alpha],
    );
    let own = keys(&|path, part| map().diffusers_key(path, part).unwrap(), &[Part::Down, Part::Up]);
    let foreign = ["position_ids".to_owned(), "lora_unet_up_blocks_9.alpha".to_owned()];
    for (reader, n_own) in Reader::ALL.into_iter().zip([2, 2, 4, 0]) {
        assert_eq!(n_unknown(&kohya, reader), 0, "{}", reader.name());
        assert_eq!(n_unknown(&own, reader), n_own, "{}", reader.name());
        assert_eq!(n_unknown(&foreign, reader), 2, "{}", reader.name());
    }
}
