"""Prompts to vectors: a text bundle behind one call, with what is wrong with a prompt said in a sentence."""

from __future__ import annotations

import importlib
import os
import threading
import unicodedata
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from limner import bundle
from limner.bundle import TextManifest
from limner.errors import LimnerError, UsageError, one_of
from limner.runtime.backends import cores, openvino_core, openvino_options
from limner.runtime.languages import foreign

MAX_CHARACTERS = 10_000
CACHED_PROMPTS = 512
MANY_PIECES = 4  # English words that are not in the vocabulary mostly take two or three

Floats = NDArray[np.float32]
Run = Callable[[NDArray[np.int64]], tuple[Floats, Floats]]


@dataclass(frozen=True)
class TextStates:
    """Vectors of N prompts: `states` (N, L, width) float32, zero where `mask` (N, L) is False; `pooled` (N, width),
    the mean of a prompt's states at unit length.
    """

    states: Floats
    mask: NDArray[np.bool_]
    pooled: Floats

    def fitted(self, length: int) -> TextStates:
        """The same with L = `length`: zeros added, or tokens at the end cut off. `pooled` stays."""
        kept = min(length, self.mask.shape[1])
        states = np.zeros((len(self.states), length, self.states.shape[2]), np.float32)
        mask = np.zeros((len(self.mask), length), bool)
        states[:, :kept], mask[:, :kept] = self.states[:, :kept], self.mask[:, :kept]
        return TextStates(states, mask, self.pooled)


class TextEncoder:
    """A text bundle, open. Any number of threads may use one object at once.

    Every prompt is encoded by itself, so its vectors never depend on the others of the call.
    """

    def __init__(self, opened: bundle.Bundle[TextManifest], threads: int, engine: str) -> None:
        self.manifest = opened.manifest
        precision = "int8" if "int8" in self.manifest.graphs else "float"
        graph = opened.graph(precision)
        self.hash = self.manifest.files[self.manifest.graphs[precision].file]
        self._tokenizer = _tokenizer(opened.folder / self.manifest.tokenizer, self.manifest.max_tokens)
        self._run = _open(engine, graph, threads)
        self._cache: OrderedDict[str, tuple[Floats, Floats]] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls, name: str | os.PathLike[str] = "text-minilm", threads: int = 1, engine: str = "openvino"
    ) -> TextEncoder:
        """Open a text bundle by zoo name or folder. `threads`: CPU threads, 0 for all cores. `engine`: one of ENGINES;
        openvino-int8 multiplies 8-bit weights with 8-bit states where the processor has such instructions (VNNI): a
        third of the time, pooled vectors within a cosine of 0.9998 of the others'.

        Raises UsageError for an unknown name, engine or negative threads, LimnerError for a damaged bundle.
        """
        return cls(bundle.read(name, TextManifest), threads, engine)

    @property
    def width(self) -> int:
        """Length of a token's vector, and of the pooled one."""
        return self.manifest.width

    @property
    def max_tokens(self) -> int:
        """Tokens that are read, special ones included; the rest of a longer prompt is dropped, with a warning."""
        return self.manifest.max_tokens

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """Vectors of the prompts; L is the number of tokens of the longest. Recent prompts come from a cache.

        Raises UsageError for a prompt that is not `readable`, and for no prompt at all.
        """
        if isinstance(prompts, str) or not len(prompts):
            raise UsageError("no prompts to encode: give a list of one text or more.")
        found = [self._one(prompt) for prompt in prompts]
        longest = max(len(states) for states, _ in found)
        states = np.zeros((len(found), longest, self.width), np.float32)
        mask = np.zeros((len(found), longest), bool)
        for row, (each, _) in enumerate(found):
            states[row, : len(each)], mask[row, : len(each)] = each, True
        return TextStates(states, mask, np.stack([pooled for _, pooled in found]))

    def warnings(self, prompt: str) -> list[str]:
        """What the encoder will not understand of a prompt, one sentence each; empty when all is well.

        Raises UsageError as `encode` does.
        """
        found, tokens = [], self._tokens(prompt)
        if tokens.overflowing:
            rest = prompt[max(end for _, end in tokens.offsets) :].strip()
            limit = f"prompt is over the limit of {self.max_tokens} tokens"
            found.append(f"{limit}: {rest[-40:]!r} at its end is not read; shorten it.")
        reason = foreign(prompt, self.manifest.languages) or _unreadable(tokens)
        if reason:
            known = ", ".join(self.manifest.languages)
            found.append(f"prompt {reason}, but the text model reads {known}: the picture may not match it.")
        return found

    def forget(self) -> None:
        """Empty the cache of recent prompts, as benchmarks need."""
        with self._lock:
            self._cache.clear()

    def _one(self, prompt: str) -> tuple[Floats, Floats]:
        """(states (L, width), pooled (width,))."""
        with self._lock:
            if isinstance(prompt, str) and prompt in self._cache:
                self._cache.move_to_end(prompt)
                return self._cache[prompt]
        result = self._run(np.array([self._tokens(prompt).ids], np.int64))
        with self._lock:
            self._cache[prompt] = result
            while len(self._cache) > CACHED_PROMPTS:
                self._cache.popitem(last=False)
        return result

    def _tokens(self, prompt: str) -> Encoding:
        return self._tokenizer.encode(readable(prompt))


def _unreadable(tokens: Encoding) -> str:
    """A reason when most words are unknown, or known only in small pieces."""
    words = Counter(word for word in tokens.word_ids if word is not None)
    unknown = sum(token == "[UNK]" for token in tokens.tokens)
    odd = unknown + sum(pieces >= MANY_PIECES for pieces in words.values())
    return "consists mostly of unknown words" if odd * 2 > len(words) else ""


def checked(prompt: str) -> str:
    """The prompt, if it can be painted: readable, and with a word in it. Raises UsageError with the reason if not."""
    if not any(character.isalnum() for character in readable(prompt)):
        raise UsageError(f"prompt {prompt[:40]!r} has no word in it: describe the picture in words.")
    return prompt


def readable(text: str) -> str:
    """The text, if it can be encoded (a caption may be "&"). Raises UsageError with the reason if not."""
    if not isinstance(text, str):
        raise UsageError(f"prompt is of type {type(text).__name__}, not text: describe the picture in words.")
    if not text.strip():
        raise UsageError("prompt is empty: describe the picture in a few words.")
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"prompt has {len(text)} characters: shorten it to {MAX_CHARACTERS} or fewer.")
    for position, character in enumerate(text):
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r":
            code = f"U+{ord(character):04X}"
            raise UsageError(f"prompt has the control character {code} at position {position + 1}: remove it.")
    return text


def _tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise LimnerError(f"{path}: is no tokenizer ({error}); pack the bundle again.") from None
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return tokenizer


# Left to themselves both engines may round activations to 8 bits where weights have 8, each in its own way.
EXACT = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
# As many numbers of a token's state share a step: with 384 painted pictures move half as much again (docs/text.md).
INTEGERS = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 32}
EXACT_ONNXRUNTIME = ("session.disable_quant_qdq", "1")


def _openvino(graph: Path, threads: int, rounding: dict[str, int] = EXACT) -> Run:
    """Any length from one compiled graph: exact lengths cost less than padding to a few fixed ones."""
    try:
        compiled = openvino_core().compile_model(graph, "CPU", openvino_options(threads) | rounding)
    except Exception as error:
        raise _broken(graph, error) from error
    idle: deque[Any] = deque()  # one request for every call in flight

    def run(ids: NDArray[np.int64]) -> tuple[Floats, Floats]:
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        try:
            request.infer({"ids": ids, "mask": np.ones_like(ids)}, share_inputs=True, share_outputs=True)
            result = tuple(request.get_tensor(name).data[0].copy() for name in ("states", "pooled"))
        except Exception as error:
            raise _broken(graph, error) from error
        idle.append(request)
        return result

    return run


def _onnxruntime(graph: Path, threads: int) -> Run:
    try:
        package = importlib.import_module("onnxruntime")
    except ImportError as error:
        reason = f"engine 'onnxruntime' cannot be loaded ({error})"
        raise LimnerError(f"{reason}: run `pip install onnxruntime` or choose engine openvino.") from None
    options = package.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(*EXACT_ONNXRUNTIME)
    try:
        session = package.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _broken(graph, error) from error

    def run(ids: NDArray[np.int64]) -> tuple[Floats, Floats]:
        try:
            states, pooled = session.run(["states", "pooled"], {"ids": ids, "mask": np.ones_like(ids)})
        except Exception as error:
            raise _broken(graph, error) from error
        return states[0], pooled[0]

    return run


ENGINES: dict[str, Callable[[Path, int], Run]] = {
    "openvino": _openvino,
    "openvino-int8": partial(_openvino, rounding=INTEGERS),
    "onnxruntime": _onnxruntime,
}


def _broken(graph: Path, error: Exception) -> LimnerError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
    return LimnerError(f"{graph}: the text graph cannot be run ({reason:.200}); pack the bundle again.")


def _open(engine: str, graph: Path, threads: int) -> Run:
    if engine not in ENGINES:
        raise one_of("engine", engine, tuple(ENGINES))
    if threads < 0:
        raise UsageError(f"threads={threads} is impossible: give a number of CPU threads, or 0 for all cores.")
    return ENGINES[engine](graph, threads or cores())
