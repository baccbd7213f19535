"""From a BERT-like language model to a text bundle: trim, shrink, round, measure against the original, write."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn
from transformers import BertModel

import limner
from limner import bundle
from limner.bundle import Bundle, Graph, Source, TextManifest
from limner.errors import LimnerError, UsageError
from limner.runtime.text import TextEncoder
from limner.text import distill, fidelity, graph, vocabulary
from limner.text.distill import Polish
from limner.text.encoder import FrozenEncoder, padded

Progress = Callable[[str, int, int], None]
PARITY = 0.99  # smallest cosine between the packed graph on the engine and the student in torch
COMPARED = 5000  # held-out texts that fidelity is measured on
MEASURABLE = 7


@dataclass(frozen=True)
class Plan:
    """What a bundle is made of.

    `keep`: layers of the original to start from, () for all. `vocabulary`: pieces to keep, 0 for all. `captions`: texts
    of the domain, `texts`: general ones; both are learned from. `held`: texts that fidelity is measured on. `fitted`:
    texts for the closed form.
    """

    name: str
    captions: Sequence[str] = ()
    texts: Sequence[str] = ()
    held: Sequence[str] = ()
    keep: tuple[int, ...] = ()
    vocabulary: int = 0
    max_tokens: int = 64
    min_cosine: float = 0.9
    fitted: int = 2600
    polish: Polish = field(default_factory=lambda: Polish(steps=0))
    license: str = "Apache-2.0"
    languages: tuple[str, ...] = ("en",)
    sources: tuple[Source, ...] = ()
    description: str = ""


def pack(source: str | os.PathLike[str], out: Path, plan: Plan, run: Path, progress: Progress | None = None) -> Bundle:
    """Write the text bundle `out` from a Hugging Face model (folder or id); `run`: folder of the polish checkpoint.

    Raises LimnerError for a model that is not BERT-like, without texts to learn or measure from, or when the engine
    differs from torch, or the pooled vectors have a mean cosine below `min_cosine` with those of the original.
    """
    original = FrozenEncoder.load(source, plan.max_tokens)
    _check(source, original, plan)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer, kept = _tokenizer(original, plan, Path(folder))
        student = _student(original, plan, tokenizer, kept, run, progress)
        encoder = graph.read(student).cut(original.max_tokens)
        onnx.save(graph.build(encoder, plan.name), Path(folder) / "int8.onnx")
        files = {name: Path(folder) / name for name in ("int8.onnx", "tokenizer.json")}
        manifest = _manifest(plan, encoder, original.max_tokens)
        trial = bundle.write(Path(folder) / "trial", manifest, files)
        scores = _scores(original, student, trial, plan, progress)
        return bundle.write(out, manifest.model_copy(update={"scores": scores}), files)


def _check(source: str | os.PathLike[str], original: FrozenEncoder, plan: Plan) -> None:
    if not isinstance(original.network, BertModel):
        kind = original.network.config.model_type  # pyright: ignore[reportAttributeAccessIssue]
        raise LimnerError(f"{source}: is of type {kind!r}; only models of type 'bert' can be packed so far.")
    config = original.network.config
    if config.hidden_act != "gelu" or config.hidden_size % (2 * graph.GROUP):
        shape = f"activation {config.hidden_act!r} and width {config.hidden_size}"
        raise LimnerError(f"{source}: has {shape}; a text bundle needs 'gelu' and a multiple of {2 * graph.GROUP}.")
    if (plan.keep or plan.vocabulary) and not plan.captions:
        raise UsageError("fewer layers or words need captions to learn from: give --captions FILE.")
    if len(plan.held) < MEASURABLE:
        raise UsageError(f"{len(plan.held)} held-out texts cannot be measured: give --held FILE, {MEASURABLE} or more.")


def _tokenizer(original: FrozenEncoder, plan: Plan, folder: Path) -> tuple[Tokenizer, list[int]]:
    """The tokenizer that ships, written to tokenizer.json in `folder`, and the old number of each piece."""
    path = folder / "tokenizer.json"
    original.tokenizer.backend_tokenizer.save(str(path))
    kept = list(range(original.network.config.vocab_size))  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    if plan.vocabulary:
        text, kept = vocabulary.trimmed(path, plan.captions, plan.texts, plan.vocabulary)
        path.write_text(text, "utf-8")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(original.max_tokens)
    tokenizer.save(str(path), pretty=False)
    return tokenizer, kept


def _student(
    original: FrozenEncoder, plan: Plan, tokenizer: Tokenizer, kept: list[int], run: Path, progress: Progress | None
) -> BertModel:
    teacher = original.network
    assert isinstance(teacher, BertModel)
    student = distill.with_vocabulary(teacher, kept)
    if not plan.keep:
        return student
    random = np.random.default_rng(plan.polish.seed)
    general = [plan.texts[number] for number in random.permutation(len(plan.texts))[: len(plan.captions)]]
    mixed = [*plan.captions, *general]
    if distill.resumes(run):
        distill.goals(plan.keep, len(teacher.encoder.layer))
        student.encoder.layer = nn.ModuleList([copy.deepcopy(student.encoder.layer[number]) for number in plan.keep])
    else:
        sample = [mixed[number] for number in random.permutation(len(mixed))[: plan.fitted]]
        distill.fit(student, teacher, _pairs(original, tokenizer, kept, sample), plan.keep)
    if plan.polish.steps:
        mixed += distill.recombined(plan.captions, len(plan.captions) // 2, plan.polish.seed)
        pairs = _pairs(original, tokenizer, kept, mixed)
        distill.polish(student, teacher, pairs, run, plan.polish, _stage("polish", progress))
    return student


def _pairs(
    original: FrozenEncoder, tokenizer: Tokenizer, kept: list[int], texts: Sequence[str]
) -> list[tuple[list[int], list[int]]]:
    """Both token numbers of the texts that the trimmed vocabulary splits as the full one does."""
    both = zip(original.tokens(texts), tokenizer.encode_batch(list(texts)), strict=True)
    return [(old, new.ids) for old, new in both if [kept[number] for number in new.ids] == old]


def _stage(name: str, progress: Progress | None) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(name, done, total)


def _manifest(plan: Plan, encoder: graph.Encoder, max_tokens: int) -> TextManifest:
    return TextManifest(
        name=plan.name,
        description=plan.description,
        graphs={"int8": Graph(file="int8.onnx", dtype="float32")},
        license=plan.license,
        sources=plan.sources,
        parameters=encoder.parameters,
        width=encoder.width,
        max_tokens=max_tokens,
        languages=plan.languages,
        recipe={
            "layers": list(plan.keep),
            "vocabulary": len(encoder.tokens),
            "captions": len(plan.captions),
            "texts": len(plan.texts),
            "polish_steps": plan.polish.steps,
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        limner=limner.__version__,
        files={},
    )


def _scores(
    original: FrozenEncoder, student: BertModel, trial: Bundle, plan: Plan, progress: Progress | None
) -> dict[str, Any]:
    """Parity and fidelity on the default engine; raises LimnerError below their limits."""
    texts = list(plan.held[:COMPARED])
    encoder = TextEncoder.load(trial.folder)
    with _single_thread():
        found = _pooled(encoder, texts, _stage("measure", progress))
        parity = float((found * _torch_pooled(student, trial, texts)).sum(1).mean())
        measured = fidelity.compare(original.encode(texts).pooled, found)
    if not parity >= PARITY:
        raise LimnerError(
            f"{plan.name}: the engine's vectors have a cosine of {parity:.4f} with torch's; packed nothing."
        )
    if not measured.cosine >= plan.min_cosine:
        figures = f"a mean cosine of {measured.cosine:.4f} with the original, less than {plan.min_cosine}"
        raise LimnerError(f"{plan.name}: has {figures}: keep more layers, polish longer or lower --min-cosine.")
    return {"parity": round(parity, 5), "fidelity": measured.to_json()}


@contextmanager
def _single_thread() -> Iterator[None]:
    """Both engines in turn on the same core, so that neither waits for the other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pooled(
    encoder: TextEncoder, texts: Sequence[str], progress: Callable[[int, int], None] | None
) -> NDArray[np.float32]:
    found = []
    for number, text in enumerate(texts):
        found.append(encoder.encode([text]).pooled[0])
        if progress is not None:
            progress(number + 1, len(texts))
    return np.stack(found)


@torch.inference_mode()
def _torch_pooled(student: BertModel, trial: Bundle, texts: Sequence[str]) -> NDArray[np.float32]:
    tokenizer = Tokenizer.from_file(str(trial.folder / "tokenizer.json"))
    found = []
    for text in texts:
        ids, mask = padded([tokenizer.encode(text).ids])
        states = student(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        found.append(nn.functional.normalize(states.sum(0), dim=0).numpy())
    return np.stack(found)
