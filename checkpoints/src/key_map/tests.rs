use super::*;

/// Layers of a UNet as the preset `attn_ff_proj_conv` reaches them: `depths` are transformer blocks per level, 0 = plain.
fn unet_layers(depths: &[usize], mid_depth: usize) -> Vec<String> {
    let n_levels = depths.len();
    let mut layers = Vec::new();
    let block = |prefix: String, n_resnets: usize, depth: usize, layers: &mut Vec<String>| {
        for i in 0..n_resnets {
            for layer in ["conv1", "time_emb_proj", "conv2"] {
                layers.push(format!("{prefix}.resnets.{i}.{layer}"));
            }
        }
        let n_attentions = if depth == 0 {
            0
        } else if prefix.ends_with("mid_block") {
            1
        } else {
            n_resnets
        };
        for i in 0..n_attentions {
            transformer(&format!("{prefix}.attentions.{i}"), depth, layers);
        }
    };
    for (b, &depth) in depths.iter().enumerate() {
        block(format!("unet.down_blocks.{b}"), 2, depth, &mut layers);
        if b + 1 < n_levels {
            layers.push(format!("unet.down_blocks.{b}.downsamplers.0.conv"));
        }
        let up = depths[n_levels - 1 - b];
        block(format!("unet.up_blocks.{b}"), 3, up, &mut layers);
        layers.extend((0..3).map(|i| format!("unet.up_blocks.{b}.resnets.{i}.conv_shortcut")));
        if b + 1 < n_levels {
            layers.push(format!("unet.up_blocks.{b}.upsamplers.0.conv"));
        }
    }
    block("unet.mid_block".to_owned(), 2, mid_depth, &mut layers);
    // Levels whose width changes.
    layers.extend([1, 2].map(|b| format!("unet.down_blocks.{b}.resnets.0.conv_shortcut")));
    layers
}

fn transformer(prefix: &str, depth: usize, layers: &mut Vec<String>) {
    layers.extend(["proj_in", "proj_out"].map(|layer| format!("{prefix}.{layer}")));
    for d in 0..depth {
        let inside = format!("{prefix}.transformer_blocks.{d}");
        for attention in ["attn1", "attn2"] {
            layers.extend(
                ["to_q", "to_k", "to_v", "to_out.0"]
                    .map(|layer| format!("{inside}.{attention}.{layer}")),
            );
        }
        layers.extend(["net.0.proj", "net.2"].map(|layer| format!("{inside}.ff.{layer}")));
    }
}

fn text_layers(component: &str, n_layers: usize) -> Vec<String> {
    let inner = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.out_proj",
        "mlp.fc1",
        "mlp.fc2",
    ];
    (0..n_layers)
        .flat_map(|n| {
            inner.map(|layer| format!("{component}.text_model.encoder.layers.{n}.{layer}"))
        })
        .collect()
}

fn sd1() -> KeyMap {
    let layers = [unet_layers(&[1, 1, 1, 0], 1), text_layers("text_encoder", 12)].concat();
    KeyMap::new(Naming::Diffusers, layers.iter().map(String::as_str)).unwrap()
}

fn sdxl() -> KeyMap {
    let layers = [
        unet_layers(&[0, 2, 10], 10),
        text_layers("text_encoder", 12),
        text_layers("text_encoder_2", 32),
    ]
    .concat();
    KeyMap::new(Naming::Sgm { layers_per_block: 2 }, layers.iter().map(String::as_str)).unwrap()
}

#[test]
fn the_tables_have_the_published_numbers_of_modules() {
    assert_eq!(sd1().paths().count(), 278 + 72);
    assert_eq!(sdxl().paths().count(), 788 + 72 + 192);
}

#[test]
fn every_layer_comes_back_from_its_stem() {
    for map in [sd1(), sdxl()] {
        for path in map.paths() {
            let stem = map.kohya_from_diffusers(path).unwrap();
            assert_eq!(map.diffusers_from_kohya(stem), Some(path));
            for part in [Part::Down, Part::Up, Part::Alpha] {
                let key = map.kohya_key(path, part).unwrap();
                assert_eq!(map.parse(&key).unwrap(), ParsedKey { path: path.to_owned(), part });
            }
            let key = map.diffusers_key(path, Part::Up).unwrap();
            assert_eq!(
                map.parse(&key).unwrap(),
                ParsedKey { path: path.to_owned(), part: Part::Up }
            );
        }
    }
}

#[test]
fn sd1_stems_are_diffusers_paths() {
    let path = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0";
    let stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0";
    assert_eq!(sd1().kohya_from_diffusers(path), Some(stem));
    let text = "text_encoder.text_model.encoder.layers.3.self_attn.q_proj";
    assert_eq!(
        sd1().kohya_from_diffusers(text),
        Some("lora_te_text_model_encoder_layers_3_self_attn_q_proj")
    );
    let te1 = "lora_te1_text_model_encoder_layers_3_self_attn_q_proj";
    assert_eq!(sd1().diffusers_from_kohya(te1), Some(text));
}

#[test]
fn sdxl_stems_are_the_published_sgm_names() {
    let map = sdxl();
    for (path, stem) in [
        ("down_blocks.1.attentions.0.proj_in", "input_blocks_4_1_proj_in"),
        ("down_blocks.2.attentions.1.proj_in", "input_blocks_8_1_proj_in"),
        ("mid_block.attentions.0.proj_out", "middle_block_1_proj_out"),
        ("mid_block.resnets.1.conv1", "middle_block_2_in_layers_2"),
        ("up_blocks.0.attentions.2.proj_in", "output_blocks_2_1_proj_in"),
        ("up_blocks.1.attentions.0.proj_in", "output_blocks_3_1_proj_in"),
        ("down_blocks.1.resnets.0.conv_shortcut", "input_blocks_4_0_skip_connection"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks_3_0_op"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks_2_2_conv"),
        ("up_blocks.2.resnets.1.time_emb_proj", "output_blocks_7_0_emb_layers_1"),
    ] {
        let (path, stem) = (format!("unet.{path}"), format!("lora_unet_{stem}"));
        assert_eq!(map.kohya_from_diffusers(&path), Some(stem.as_str()));
    }
    let te2 = map.kohya_from_diffusers("text_encoder_2.text_model.encoder.layers.31.mlp.fc1");
    assert_eq!(te2, Some("lora_te2_text_model_encoder_layers_31_mlp_fc1"));
    // Such files occur as well.
    assert!(map.diffusers_from_kohya("lora_unet_down_blocks_1_attentions_0_proj_in").is_some());
}

#[test]
fn an_upsampler_without_attention_has_another_place() {
    let sgm =
        sgm::path("up_blocks.2.upsamplers.0.conv", 2, &["unet.up_blocks.1.attentions.0.proj_in"]);
    assert_eq!(sgm.as_deref(), Some("output_blocks.8.1.conv"));
    assert_eq!(sgm::path("time_embedding.linear_2", 2, &[]).as_deref(), Some("time_embed.2"));
    assert_eq!(sgm::path("add_embedding.linear_1", 2, &[]).as_deref(), Some("label_emb.0.0"));
}

#[test]
fn older_spellings_are_read() {
    let map = sd1();
    let attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn1";
    for (key, layer) in [
        (format!("unet.{attention}.to_q.lora_A.weight"), "to_q"),
        (format!("base_model.model.{attention}.to_q.lora_A.weight"), "to_q"),
        (format!("base_model.model.unet.{attention}.to_q.lora_A.weight"), "to_q"),
        (format!("unet.{attention}.to_q.lora.down.weight"), "to_q"),
        (format!("unet.{attention}.to_k.lora_linear_layer.down.weight"), "to_k"),
        (format!("unet.{attention}.processor.to_v_lora.down.weight"), "to_v"),
        (format!("unet.{attention}.processor.to_out_lora.down.weight"), "to_out.0"),
    ] {
        let expected = ParsedKey { path: format!("unet.{attention}.{layer}"), part: Part::Down };
        assert_eq!(map.parse(&key).unwrap(), expected, "{key}");
    }
    let text = map.parse("text_encoder.encoder.layers.0.mlp.fc1.lora_B.weight").unwrap();
    assert_eq!(text.path, "text_encoder.text_model.encoder.layers.0.mlp.fc1");
    let native =
        map.parse("base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_B.weight").unwrap();
    assert_eq!(native, text);
    // Only the second text encoder of SDXL has so many layers; of others the shapes decide.
    let key =
        |n: u32| format!("base_model.model.text_model.encoder.layers.{n}.mlp.fc1.lora_A.weight");
    let second = "text_encoder_2.text_model.encoder.layers";
    assert_eq!(sdxl().parse(&key(31)).unwrap().path, format!("{second}.31.mlp.fc1"));
    let fitting =
        sdxl().parse_fitting(&key(0), &|parsed| parsed.path.starts_with("text_encoder_2."));
    assert_eq!(fitting.unwrap().path, format!("{second}.0.mlp.fc1"));
    assert_eq!(sdxl().parse_fitting(&key(0), &|_| false).unwrap(), sdxl().parse(&key(0)).unwrap());
    let magnitude = map.parse(&format!("unet.{attention}.to_q.lora_magnitude_vector")).unwrap();
    assert_eq!(magnitude.part, Part::DoraScale);
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let map = sd1();
    let stem = "lora_unet_down_blocks_0_attentions_0_proj_in";
    for (key, reason) in [
        (format!("{stem}.hada_w1_a"), "LoHa"),
        (format!("{stem}.lokr_w1"), "LoKr"),
        (format!("{stem}.oft_blocks"), "OFT"),
        (format!("{stem}.diff_b"), "full difference"),
        (format!("{stem}.lora_sideways.weight"), "unknown suffix"),
        ("lora_unet_down_blocks_9_attentions_0_proj_in.alpha".to_owned(), "this model lacks"),
        ("lora_unet_x".to_owned(), "no suffix"),
        ("unet.down_blocks.9.proj_in.lora_A.weight".to_owned(), "this model lacks"),
        ("first_stage_model.x.weight".to_owned(), "no tensor of a LoRA"),
    ] {
        let error = map.parse(&key).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(&key), "{error}");
    }
}

#[test]
fn two_layers_with_one_stem_are_refused() {
    let error =
        KeyMap::new(Naming::Diffusers, ["unet.a.b_c", "unet.a_b.c"]).unwrap_err().to_string();
    assert!(error.contains("`lora_unet_a_b_c`") && error.contains("`unet.a.b_c`"), "{error}");
    assert!(KeyMap::new(Naming::Diffusers, ["vae.decoder"]).is_err());
}
