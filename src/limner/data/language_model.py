"""A causal language model in a Hugging Face folder as a rewriter of captions. Loads torch and transformers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from limner.data.rewrite import Request
from limner.errors import LimnerError


@dataclass
class LanguageModel:
    """A causal language model from a Hugging Face folder; weights as safetensors only, no code from the folder.

    Answers are greedy, so the same facts give the same captions. With a chat template it is asked as a chat, without
    one by example. Runs on the GPU where there is one.
    """

    folder: Path
    batch: int = 8
    workers: int = 1

    def __post_init__(self) -> None:
        if not (self.folder / "config.json").is_file():
            raise LimnerError(
                f"{self.folder}: no config.json; give the folder of a Hugging Face causal language model."
            )
        self._tokenizer, model = _loaded(self.folder)
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.convert_ids_to_tokens(0)

    @property
    def origin(self) -> str:
        """ "model:<name of the folder>"."""
        return f"model:{self.folder.resolve().name}"

    def close(self) -> None:
        """Nothing waits here."""

    def answers(self, requests: Sequence[Request]) -> list[str]:
        """One text for each request."""
        tokens = self._tokenizer([self._prompt(request) for request in requests], return_tensors="pt", padding=True)
        tokens = {key: tokens[key].to(self._model.device) for key in ("input_ids", "attention_mask")}
        room = self._room() - tokens["input_ids"].shape[1]
        if room < 8:
            raise LimnerError(f"{self.folder}: its {self._room()} tokens of context are too few for the task.")
        longest = min(room, 40 * max(request.wanted for request in requests) + 40)
        with torch.inference_mode(), _quiet():
            given = self._model.generate(
                **tokens, max_new_tokens=longest, do_sample=False, pad_token_id=self._tokenizer.pad_token_id
            )
        return self._tokenizer.batch_decode(given[:, tokens["input_ids"].shape[1] :], skip_special_tokens=True)

    def _room(self) -> int:
        return int(getattr(self._model.config, "max_position_embeddings", None) or 2048)

    def _prompt(self, request: Request) -> str:
        if getattr(self._tokenizer, "chat_template", None):
            chat = [{"role": "user", "content": f"{request.instruction}\n\n{request.facts}"}]
            return self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return f"{request.instruction}\n\n{_EXAMPLE}\n\n{request.facts}\nCaptions:\n"


def _loaded(folder: Path) -> tuple[Any, Any]:
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), **options, padding_side="left")
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(folder), **options, use_safetensors=True, output_loading_info=True
            )
            model, report = loaded
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise LimnerError(f"{folder}: not a causal language model that can be loaded ({reason}).") from None
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise LimnerError(f"{folder}: not a whole causal language model, its weights lack {missing}; take another.")
    return tokenizer, model


_EXAMPLE = """subject: pear
kind: fruit
colour: green
style: flat style
Captions:
a green pear
flat icon of a green pear
pear, a fruit, in flat style"""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and warnings of transformers, which would go between ours."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
