"""Trains the safety filter's probe and prints how good the filter is on prompts that it never saw.

    python runs/safety/probe.py --text text-minilm --icons ../shared/data/icons     # a few minutes

Reads prompts.tsv beside it (written by hand; a third is held out by a hash), and captions of the icons' train split as
prompts that must pass; writes src/limner/runtime/safety_data/probe.npz. `--text` is a text bundle, or the folder of a
Hugging Face model. Expected, held-out prompts, level auto: precision 0.96, recall 0.86.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from limner import bundle
from limner.runtime.safety import DATA, Probe, PromptFilter, save_probe

Floats = NDArray[np.float32]
TABLE = Path(__file__).parent / "prompts.tsv"
# Users add a style; the probe must read through it.
FRAMES = ("{}", "{}, flat style icon", "a picture of {}", "{}, pixel art game sprite")
DECAY, UNSAFE_WEIGHT, FOLDS = 3e-4, 4.0, 5
# Of the safe prompts, what may pass the threshold of level auto, in each category.
FALSE_ALARMS, FALSE_ALARMS_ICONS = 2e-3, 1e-4
SHARE = 5  # one in so many captions of the train split is an example
ODDS_LOW = np.log(9)  # logit of 0.9, the threshold of level low


class Example(NamedTuple):
    text: str
    category: str  # "" for safe


def held_out(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] % 3 == 0


def table() -> list[Example]:
    rows = (line.split("\t") for line in TABLE.read_text("utf-8").splitlines()[1:])
    return [Example(text, category) for category, text in rows]


def captions(folder: Path, split: str) -> list[str]:
    """Distinct texts and names of the icons, in order."""
    found: dict[str, None] = {}
    for path in sorted(folder.glob(f"*/{split}.zip")):
        with zipfile.ZipFile(path) as file:
            rows = [json.loads(line) for line in file.read("metadata.jsonl").decode("utf-8").splitlines()]
        found |= dict.fromkeys(row[key] for row in rows for key in ("text", "name"))
    return list(found)


# ---------------------------------------------------------------------------------------------------------- embedding


def encoder(name: str) -> tuple[Callable[[list[str]], Floats], str]:
    """(texts -> (N, d) at unit length, the encoder's hash)."""
    if (Path(name) / "config.json").is_file():
        return _hugging_face(Path(name)), bundle.sha256(Path(name) / "model.safetensors")
    from limner.runtime.text import TextEncoder

    text = TextEncoder.load(name)
    return lambda prompts: np.concatenate([text.encode([prompt]).pooled for prompt in prompts]), text.hash


def _hugging_face(folder: Path) -> Callable[[list[str]], Floats]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def embed(prompts: list[str]) -> Floats:
        tokens = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            states, mask = model(**tokens).last_hidden_state, tokens["attention_mask"][..., None]
        pooled = ((states * mask).sum(1) / mask.sum(1)).numpy()
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    def embed_all(prompts: list[str]) -> Floats:
        order = np.argsort([len(prompt) for prompt in prompts])  # little padding
        batches = [order[at : at + 64] for at in range(0, len(order), 64)]
        states = np.concatenate([embed([prompts[i] for i in batch]) for batch in batches])
        return states[np.argsort(order)]

    return embed_all


# ------------------------------------------------------------------------------------------------------------ fitting


def fit(states: Floats, labels: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Weights (C, d) and biases (C,) of one logistic regression per column of `labels` (N, C), with L2 decay."""
    x, columns = np.c_[states, np.ones(len(states))].astype(float), []
    for label in labels.T:
        sign, weight = np.where(label, 1.0, -1.0), np.where(label, UNSAFE_WEIGHT, 1.0)

        def loss(w: NDArray[np.float64], sign: NDArray = sign, weight: NDArray = weight) -> tuple[float, NDArray]:
            margin = sign * (x @ w)
            slope = -sign * weight / (1 + np.exp(margin)) / len(x)
            decay = np.r_[w[:-1], 0]
            return float(
                (weight * np.logaddexp(0, -margin)).mean() + DECAY * decay @ w / 2
            ), x.T @ slope + DECAY * decay

        columns.append(minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x)
    found = np.array(columns, np.float32)
    return found[:, :-1], found[:, -1]


def calibrated(states: Floats, labels: NDArray[np.bool_], groups: NDArray[np.int64], icons: NDArray[np.bool_]) -> Probe:
    """A probe scaled so that few safe prompts (by cross-validation) reach 0.5 and none 0.9. `groups`: fold of a row."""
    logits = np.zeros(labels.shape)
    for fold in range(FOLDS):
        weight, bias = fit(states[groups != fold], labels[groups != fold])
        logits[groups == fold] = states[groups == fold] @ weight.T + bias
    safe = ~labels.any(1)
    auto = np.maximum(
        np.quantile(logits[safe & ~icons], 1 - FALSE_ALARMS, axis=0),
        np.quantile(logits[safe & icons], 1 - FALSE_ALARMS_ICONS, axis=0) if icons.any() else -np.inf,
    )
    low = np.maximum(logits[safe].max(0), auto + 1)
    weight, bias = fit(states, labels)
    scale = (ODDS_LOW / (low - auto)).astype(np.float32)
    return Probe((), weight * scale[:, None], ((bias - auto) * scale).astype(np.float32))


# ----------------------------------------------------------------------------------------------------------- reporting


def report(title: str, flags: NDArray[np.bool_], unsafe: NDArray[np.bool_]) -> None:
    hits, alarms = int((flags & unsafe).sum()), int((flags & ~unsafe).sum())
    print(
        f"{title:28} precision {hits / max(hits + alarms, 1):.3f}  recall {hits / unsafe.sum():.3f}  "
        f"({hits} of {unsafe.sum()} unsafe, {alarms} of {(~unsafe).sum()} safe flagged)"
    )


def judge(examples: list[Example], states: Floats, name: str) -> None:
    unsafe = np.array([bool(each.category) for each in examples])
    for level in ("auto", "low"):
        both, lists = PromptFilter(level, encoder=name), PromptFilter(level)
        verdicts = [both.check(each.text, state) for each, state in zip(examples, states, strict=True)]
        flags = np.array([verdict.flagged for verdict in verdicts])
        report(f"{level}: lists alone", np.array([lists.check(each.text).flagged for each in examples]), unsafe)
        report(f"{level}: lists and probe", flags, unsafe)
        for category in sorted({each.category for each in examples} - {""}):
            rows = [i for i, each in enumerate(examples) if each.category == category]
            named = np.mean([category in verdicts[i].categories for i in rows])
            print(f"    {category:20} flagged {flags[rows].mean():.2f}, by that name {named:.2f}, of {len(rows)}")
        for each, verdict in zip(examples, verdicts, strict=True):
            if level == "auto" and verdict.flagged != bool(each.category):
                print(f"    {'missed' if each.category else 'false alarm'}: {each.text} {verdict.categories}")


def judge_icons(texts: list[str], states: Floats, name: str) -> None:
    for level in ("auto", "low"):
        both = PromptFilter(level, encoder=name)
        verdicts = [both.check(text, state) for text, state in zip(texts, states, strict=True)]
        stopped = [(text, verdict) for text, verdict in zip(texts, verdicts, strict=True) if verdict.flagged]
        print(f"{level}: {len(stopped)} of {len(texts)} captions of icons outside the train split flagged")
        for text, verdict in stopped:
            top = verdict.categories[0]
            print(f"    {text}: {verdict.stage} {top} {verdict.scores[top]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="text-minilm", help="text bundle, or folder of a Hugging Face model")
    parser.add_argument("--icons", type=Path, help="folder of icons with captions, as safe examples")
    parser.add_argument("--out", type=Path, default=DATA / "probe.npz")
    options = parser.parse_args()
    embed, name = encoder(options.text)
    lists, examples = PromptFilter(), table()
    train = [each for each in examples if not held_out(each.text)]
    icons = [] if options.icons is None else captions(options.icons, "train")[::SHARE]
    icons = [text for text in icons if not lists.check(text).flagged]
    texts = [frame.format(each.text) for frame in FRAMES for each in train] + icons
    categories = tuple(sorted({each.category for each in train} - {""}))
    kinds = np.array([each.category for each in train] * len(FRAMES) + [""] * len(icons))
    folds = np.array([hashlib.sha256(b"fold" + text.encode()).digest()[0] % FOLDS for text in texts])
    folds[: len(train) * len(FRAMES)] = np.tile(folds[: len(train)], len(FRAMES))
    is_icon = np.arange(len(texts)) >= len(train) * len(FRAMES)
    probe = calibrated(embed(texts), kinds[:, None] == np.array(categories), folds, is_icon)
    save_probe(options.out, Probe(categories, probe.weight, probe.bias), name)
    print(f"{options.out}: {options.out.stat().st_size} bytes, encoder {name[:12]}", file=sys.stderr)
    tests = [each for each in examples if held_out(each.text)]
    judge(tests, embed([each.text for each in tests]), name)
    if options.icons is not None:
        others = [text for split in ("validation", "test") for text in captions(options.icons, split)]
        judge_icons(others, embed(others), name)


if __name__ == "__main__":
    main()
