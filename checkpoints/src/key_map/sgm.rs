//! The names that sgm (and ldm before it) give the blocks of a UNet, for layers of adapters and for whole checkpoints.
//!
//! Source: diffusers `convert_ldm_unet_checkpoint`, read both ways.

/// The sgm path of a diffusers path below the UNet; `None` if it has none. `layers` are all paths of the model.
pub(super) fn path(inner: &str, layers_per_block: usize, layers: &[&str]) -> Option<String> {
    path_where(inner, layers_per_block, &|block| {
        let attention = format!("unet.up_blocks.{block}.attentions.");
        layers.iter().any(|layer| layer.starts_with(&attention))
    })
}

/// The sgm path of a diffusers path (of a layer or a tensor) below the UNet; `None` if it has none. `attends` says whether
/// the up block of that number has attention.
///
/// With L layers per block, `down_blocks.b.resnets.i` is `input_blocks.(1+(L+1)b+i).0`, and so on.
pub(crate) fn path_where(
    inner: &str,
    layers_per_block: usize,
    attends: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let parts: Vec<&str> = inner.split('.').collect();
    let width = layers_per_block + 1;
    let number = |text: &str| text.parse::<usize>().ok();
    Some(match parts.as_slice() {
        ["conv_in", rest @ ..] => joined("input_blocks.0.0", rest),
        ["conv_norm_out", rest @ ..] => joined("out.0", rest),
        ["conv_out", rest @ ..] => joined("out.2", rest),
        ["time_embedding", linear, rest @ ..] => {
            joined(&format!("time_embed.{}", linear_idx(linear)?), rest)
        }
        ["add_embedding", linear, rest @ ..] => {
            joined(&format!("label_emb.0.{}", linear_idx(linear)?), rest)
        }
        ["down_blocks", b, "downsamplers", "0", "conv", rest @ ..] => {
            joined(&format!("input_blocks.{}.0.op", width * (number(b)? + 1)), rest)
        }
        ["down_blocks", b, kind, i, rest @ ..] => {
            inside(&format!("input_blocks.{}", 1 + width * number(b)? + number(i)?), kind, rest)?
        }
        ["mid_block", "attentions", "0", rest @ ..] => joined("middle_block.1", rest),
        ["mid_block", "resnets", i @ ("0" | "1"), rest @ ..] => {
            resnet(if *i == "0" { "middle_block.0" } else { "middle_block.2" }, rest)?
        }
        ["up_blocks", b, "upsamplers", "0", "conv", rest @ ..] => {
            let place = if attends(b) { 2 } else { 1 };
            joined(
                &format!("output_blocks.{}.{place}.conv", width * number(b)? + layers_per_block),
                rest,
            )
        }
        ["up_blocks", b, kind, i, rest @ ..] => {
            inside(&format!("output_blocks.{}", width * number(b)? + number(i)?), kind, rest)?
        }
        _ => return None,
    })
}

fn inside(block: &str, kind: &str, rest: &[&str]) -> Option<String> {
    match kind {
        "resnets" => resnet(&format!("{block}.0"), rest),
        "attentions" => Some(joined(&format!("{block}.1"), rest)),
        _ => None,
    }
}

fn resnet(block: &str, rest: &[&str]) -> Option<String> {
    let (layer, rest) = rest.split_first()?;
    let name = match *layer {
        "norm1" => "in_layers.0",
        "conv1" => "in_layers.2",
        "time_emb_proj" => "emb_layers.1",
        "norm2" => "out_layers.0",
        "conv2" => "out_layers.3",
        "conv_shortcut" => "skip_connection",
        _ => return None,
    };
    Some(joined(&format!("{block}.{name}"), rest))
}

fn linear_idx(name: &str) -> Option<usize> {
    match name {
        "linear_1" => Some(0),
        "linear_2" => Some(2),
        _ => None,
    }
}

fn joined(start: &str, rest: &[&str]) -> String {
    std::iter::once(start).chain(rest.iter().copied()).collect::<Vec<_>>().join(".")
}
