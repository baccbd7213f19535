"""A frozen language model of Hugging Face (BERT, GPT and T5 families), as a function from captions to vectors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig
from transformers.utils import logging

from limner.errors import LimnerError
from limner.runtime.text import TextStates, readable

BATCH = 64
Progress = Callable[[int, int], None]


class FrozenEncoder:
    """A language model and its tokenizer; nothing of it is trained. Encoder-decoders give their encoder alone."""

    def __init__(self, network: nn.Module, tokenizer: Any, max_tokens: int) -> None:
        self.network = network.eval().requires_grad_(False)
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.width = int(self.network.config.hidden_size)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
        self.hash = _fingerprint(self.network, tokenizer, max_tokens)

    @classmethod
    def load(cls, source: str | os.PathLike[str], max_tokens: int = 64, device: str = "cpu") -> FrozenEncoder:
        """Open a folder (never touches the network) or a Hugging Face id. Captions are cut at `max_tokens`.

        Raises LimnerError for a folder without a model, a model that reads no text, or an id that cannot be fetched.
        """
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        config = _config(source)
        network = _network(source, config).to(device)
        tokenizer = _tokenizer(source)
        positions = getattr(config, "max_position_embeddings", None) or max_tokens  # T5 has no limit
        limit = min(max_tokens, int(tokenizer.model_max_length), int(positions))
        return cls(network, tokenizer, limit)

    def encode(self, captions: Sequence[str], progress: Progress | None = None) -> TextStates:
        """Vectors of the captions; L is the number of tokens of the longest.

        Raises UsageError for a caption that is no text or empty.
        """
        ids = self.tokens(captions)
        longest = max(map(len, ids))
        states = np.zeros((len(ids), longest, self.width), np.float32)
        mask = np.arange(longest) < np.array([len(each) for each in ids])[:, None]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            found = self._states([ids[row] for row in rows])
            states[rows, : found.shape[1]] = found
            if progress is not None:
                progress(min(start + BATCH, len(order)), len(order))
        return TextStates(states, mask, _pooled(states, mask))

    def tokens(self, captions: Sequence[str]) -> list[list[int]]:
        """Token numbers of each caption, at most max_tokens of them, special ones included."""
        texts = [readable(caption) for caption in captions]
        return self.tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"]

    @torch.inference_mode()
    def _states(self, ids: list[list[int]]) -> NDArray[np.float32]:
        device = next(self.network.parameters()).device
        tokens, mask = (each.to(device) for each in padded(ids))
        states = self.network(input_ids=tokens, attention_mask=mask).last_hidden_state
        return (states.float() * mask[..., None]).cpu().numpy()


def padded(ids: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens, mask), both (N, L) int64. Zeros fill up on the right, so that no model needs a token for padding."""
    longest = max(map(len, ids))
    tokens = torch.tensor([each + [0] * (longest - len(each)) for each in ids])
    mask = torch.tensor([[1] * len(each) + [0] * (longest - len(each)) for each in ids])
    return tokens, mask


def _pooled(states: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    mean = states.sum(1) / mask.sum(1, keepdims=True)
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)


def _config(source: str | os.PathLike[str]) -> PreTrainedConfig:
    config = _load(AutoConfig, source, "configuration")
    if any(hasattr(config, part) for part in ("vision_config", "audio_config", "image_size")):
        raise LimnerError(f"{source}: is a model of type {config.model_type!r}, not a plain text model: name another.")
    return config


def _network(source: str | os.PathLike[str], config: PreTrainedConfig) -> nn.Module:
    network, report = _load(AutoModel, source, "weights", output_loading_info=True)
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise LimnerError(f"{source}: has no weights for {missing[0]!r}; give a complete model.")
    if hasattr(network, "pooler"):
        network.pooler = None  # not used here, and random where the checkpoint has none
    if network.main_input_name != "input_ids":
        raise LimnerError(f"{source}: reads {network.main_input_name}, not text: name a text model.")
    return network.get_encoder() if config.is_encoder_decoder else network


def _tokenizer(source: str | os.PathLike[str]) -> Any:
    tokenizer = _load(AutoTokenizer, source, "tokenizer")
    # For a folder without one transformers makes up a tokenizer that knows its special tokens alone.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise LimnerError(f"{source}: has no tokenizer; give a folder with the tokenizer of the model.")
    return tokenizer


def _load(kind: Any, source: str | os.PathLike[str], what: str, **options: Any) -> Any:
    """`kind`.from_pretrained, offline for a folder, with any fault as one sentence."""
    folder = Path(source).is_dir()
    try:
        return kind.from_pretrained(source, local_files_only=folder, **options)
    except Exception as error:  # transformers raises nearly every kind: OSError, ValueError, KeyError, SafetensorError
        reason = " ".join(str(error).split())[:160]
        if folder:
            fix = "give a folder that save_pretrained wrote"
            raise LimnerError(f"{source}: has no {what} of a text model ({reason}); {fix}.") from None
        fix = "check the name and the connection, or give a folder"
        raise LimnerError(f"{source}: is no folder, and no such model can be fetched ({reason}); {fix}.") from None


def _fingerprint(network: nn.Module, tokenizer: Any, max_tokens: int) -> str:
    """sha256 over weights, vocabulary and length limit: what decides the vectors."""
    digest = hashlib.sha256(f"{max_tokens}".encode())
    for name, values in sorted(network.state_dict().items()):
        digest.update(name.encode() + values.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for word, number in sorted(tokenizer.get_vocab().items()):
        digest.update(f"{word}\0{number}\n".encode())
    return digest.hexdigest()
