"""CLIP's own tokenizer, from the merges that the crate `checkpoints` carries."""

import json
import shutil
from pathlib import Path

from common import GOLDEN

MERGES = GOLDEN.parent.parent / "checkpoints" / "data" / "clip-merges.txt"
N_TOKENS = 49408
# Ids that the published tokenizer gives.
KNOWN = {"a photo of a cat": [49406, 320, 1125, 539, 320, 2368, 49407]}


def vocabulary():
    """Bytes that show as themselves, the other bytes, the same at the end of a word, the merges, both marks."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = [chr(byte) for byte in shown] + [chr(0x100 + n) for n in range(0x100 - len(shown))]
    merges = MERGES.read_text(encoding="utf-8").splitlines()[1:]
    tokens = symbols + [f"{symbol}</w>" for symbol in symbols] + [merge.replace(" ", "") for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    if len(set(tokens)) != N_TOKENS:
        raise SystemExit(f"{MERGES} makes {len(set(tokens))} tokens, expected {N_TOKENS}")
    return {token: number for number, token in enumerate(tokens)}


def write(folder, padding):
    """The files of one tokenizer; `padding` is `pad_end` or `pad_exclamation`."""
    folder.mkdir(parents=True)
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        shutil.copyfile(GOLDEN / "tokenizer" / padding / name, folder / name)
    shutil.copyfile(MERGES, folder / "merges.txt")
    (folder / "vocab.json").write_text(json.dumps(vocabulary(), ensure_ascii=False), encoding="utf-8")
    return folder


def of_family(family, folder):
    """The folders of the tokenizers that a family reads with."""
    filled = {"sd1": ["pad_end"], "sd2": ["pad_exclamation"], "sdxl": ["pad_end", "pad_exclamation"]}
    return [write(Path(folder) / padding, padding) for padding in filled[family]]


def check(tokenizer):
    for text, ids in KNOWN.items():
        found = tokenizer(text).input_ids
        if found != ids:
            raise SystemExit(f"the tokenizer makes {found} of {text!r}, expected {ids}")
