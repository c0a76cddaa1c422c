"""CLIP tokenizer: ids of some 200 captions, from vocab.json + merges.txt and from tokenizer.json, both pad tokens."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import json  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
from collections import Counter  # noqa: E402

import torch  # noqa: E402
from tokenizers import Regex, normalizers, pre_tokenizers  # noqa: E402
from transformers import CLIPTokenizer  # noqa: E402

from captions import ODD, all_captions  # noqa: E402
from common import case_folder, save_case  # noqa: E402

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
MERGES = 400
MAX_LENGTH = 77
PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def bytes_to_unicode():
    """The byte alphabet in the order in which CLIP's vocabulary lists it."""
    kept = list(range(ord("!"), ord("~") + 1)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    alphabet = [chr(byte) for byte in kept]
    return alphabet + [chr(256 + n) for n in range(256 - len(kept))]


def train_merges(captions):
    """Byte-pair merges, ties broken by name: the library's trainer breaks them differently each time."""
    normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts = Counter(
        word
        for caption in captions
        for word, _ in split.pre_tokenize_str(normalizer.normalize_str(caption))
    )
    words = {word: [*word[:-1], word[-1] + "</w>"] for word in sorted(counts)}
    merges = []
    while len(merges) < MERGES:
        pairs = Counter()
        for word, parts in words.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {word: merge(parts, best) for word, parts in words.items()}
    return merges


def merge(parts, pair):
    merged = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def vocabulary_and_merges(captions):
    """Laid out as CLIP's: 256 bytes ('!' is 0), 256 bytes with </w>, one token per merge, start, end."""
    merges = train_merges(captions)
    tokens = bytes_to_unicode() + [f"{byte}</w>" for byte in bytes_to_unicode()]
    tokens += [left + right for left, right in merges] + [BOS, EOS]
    if len(set(tokens)) != len(tokens):
        raise SystemExit("a token occurs twice")
    return {token: number for number, token in enumerate(tokens)}, merges


def write_slow_form(folder, vocabulary, merges, pad_token):
    """vocab.json, merges.txt, special_tokens_map.json and tokenizer_config.json, as SD's folders hold them."""
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = ["#version: 0.2"] + [f"{left} {right}" for left, right in merges]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def token(content):
        return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    special = {"bos_token": token(BOS), "eos_token": token(EOS), "pad_token": pad_token, "unk_token": token(EOS)}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    config = {
        "add_prefix_space": False,
        "bos_token": token(BOS) | {"__type": "AddedToken"},
        "do_lower_case": True,
        "eos_token": token(EOS) | {"__type": "AddedToken"},
        "errors": "replace",
        "model_max_length": MAX_LENGTH,
        "pad_token": pad_token,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": token(EOS) | {"__type": "AddedToken"},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def encode(tokenizer, captions):
    return tokenizer(
        captions, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids


def main():
    folder = case_folder(__file__)
    captions = all_captions()
    # Trained without most of the odd captions, so that their words fall back to bytes and short merges.
    vocabulary, merges = vocabulary_and_merges([c for c in captions if c not in ODD] + ODD[5:42])
    (folder / "captions.json").write_text(json.dumps(captions, indent=0) + "\n")
    tensors = {}
    for name, pad_token in (("pad_end", EOS), ("pad_exclamation", "!")):
        slow, fast = folder / name, folder / f"{name}_json"
        for place in (slow, fast):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
        write_slow_form(slow, vocabulary, merges, pad_token)
        tokenizer = CLIPTokenizer.from_pretrained(str(slow))
        # A tokenizer saved after use keeps its padding and truncation in tokenizer.json,
        # one saved before use has none there: one file of each kind.
        if name == "pad_exclamation":
            encode(tokenizer, captions)
        with tempfile.TemporaryDirectory() as scratch:
            tokenizer.save_pretrained(scratch)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copyfile(Path(scratch, file), fast / file)
        tensors[f"ids.{name}"] = encode(tokenizer, captions)
        again = encode(CLIPTokenizer.from_pretrained(str(fast)), captions)
        if not torch.equal(again, tensors[f"ids.{name}"]):
            raise SystemExit(f"{fast.name} gives other ids than {slow.name}")
    save_case(folder, tensors)
    differ = (tensors["ids.pad_end"] != tensors["ids.pad_exclamation"]).any(dim=1).sum().item()
    print(f"  {len(captions)} captions, {len(vocabulary)} tokens; {differ} rows differ between the pad tokens")


if __name__ == "__main__":
    main()
