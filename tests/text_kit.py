"""Tiny language models and text bundles with random weights, and the tokenizers that go with them."""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path

import onnx
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5Model,
)

from limner import bundle
from limner.text import graph

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "a", "an", "the", "red", "green", "blue", "apple", "pear", "cat", "dog", "house", "small",
    "style", "flat", "pixel", "art", "of", "with", "and", "on", "in",
]  # fmt: skip
PIECES = ["##s", "##ing", "##ed", "##ple", "##tle", "cas", "кот"]
WIDTH = 32


def wordpiece() -> Tokenizer:
    """A BERT-like tokenizer of a few words, all letters and some pieces."""
    letters = [*string.ascii_lowercase, *string.digits, *",.-!'"]
    pieces = [*SPECIAL, *WORDS, *(letter for letter in letters if letter not in WORDS)]
    pieces += [f"##{letter}" for letter in string.ascii_lowercase + string.digits] + PIECES
    tokenizer = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def save_model(folder: Path, family: str, layers: int = 3, seed: int = 0) -> Path:
    """A random model of the family "bert", "gpt" or "t5" with its tokenizer, as save_pretrained writes them."""
    network = _network(family, wordpiece().get_vocab_size(), layers, seed)
    network.save_pretrained(folder)
    tokenizer = wordpiece()
    if family == "gpt":  # as GPT-2: no token for padding, none around the text
        tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", model_max_length=24)
    else:
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", model_max_length=24
        )
    fast.save_pretrained(folder)
    return folder


def _network(family: str, vocabulary: int, layers: int, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    if family == "gpt":
        return GPT2Model(GPT2Config(vocab_size=vocabulary, n_embd=WIDTH, n_layer=layers, n_head=2, n_positions=24))
    if family == "t5":
        shape = {"d_model": WIDTH, "d_kv": 16, "d_ff": 64, "num_layers": layers, "num_heads": 2}
        return T5Model(T5Config(vocab_size=vocabulary, decoder_start_token_id=0, **shape))
    return bert(vocabulary, layers, seed)


def bert(vocabulary: int, layers: int = 3, seed: int = 0) -> BertModel:
    """A random BertModel; larger weights than BERT starts from, so that tokens influence each other visibly."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=24,
        initializer_range=0.2,
    )
    return BertModel(config, add_pooling_layer=False).eval()


def make_text_bundle(folder: Path, max_tokens: int = 16, seed: int = 0) -> Path:
    """A text bundle of a random three-layer encoder of width WIDTH. Returns `folder`."""
    drafts = folder.with_name(f"{folder.name}-drafts")
    drafts.mkdir(parents=True, exist_ok=True)
    wordpiece().save(str(drafts / "tokenizer.json"))
    onnx.save(_graph(max_tokens, seed), drafts / "int8.onnx")
    manifest = bundle.TextManifest(
        name=folder.name,
        graphs={"int8": bundle.Graph(file="int8.onnx", dtype="float32")},
        license="Apache-2.0",
        sources=(bundle.Source(source="noise", license="CC0-1.0", pictures=1),),
        parameters=1000,
        width=WIDTH,
        max_tokens=max_tokens,
        files={},
    )
    return bundle.write(folder, manifest, {name: drafts / name for name in ("int8.onnx", "tokenizer.json")}).folder


@cache
def _graph(max_tokens: int, seed: int) -> onnx.ModelProto:
    encoder = graph.read(bert(wordpiece().get_vocab_size(), seed=seed)).cut(max_tokens)
    return graph.build(encoder, "tiny")
