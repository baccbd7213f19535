"""Small valid painter and text bundles with random seeded weights, built without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from kit import SIGNED_ZERO, GraphBuilder
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from limner import bundle

WORDS = [
    "a",
    "the",
    "red",
    "blue",
    "green",
    "apple",
    "cat",
    "house",
    "tree",
    "dog",
    "sword",
    "potion",
    "flat",
    "pixel",
    "style",
    "of",
    "and",
    "with",
]
TEXT_WIDTH, TOKENS = 12, 8
LEVELS = (8, 16, 32)


def make_text_bundle(folder: Path, *, seed: int = 0) -> Path:
    """A text bundle that knows WORDS: a vector per token, and their mean at unit length. Returns `folder`."""
    drafts = folder.with_name(f"{folder.name}-drafts")
    drafts.mkdir(parents=True, exist_ok=True)
    onnx.save(_text_graph(seed), drafts / "text.onnx")
    _tokenizer().save(str(drafts / "tokenizer.json"))
    manifest = bundle.TextManifest(
        name=folder.name,
        graphs={"float": bundle.Graph(file="text.onnx", dtype="float32")},
        license="Apache-2.0",
        sources=(bundle.Source(source="noise", license="CC0-1.0", pictures=1),),
        parameters=1000,
        width=TEXT_WIDTH,
        max_tokens=TOKENS,
        files={},
    )
    return bundle.write(folder, manifest, {name: drafts / name for name in ("text.onnx", "tokenizer.json")}).folder


def _tokenizer() -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate(["[UNK]", "[CLS]", "[SEP]", ",", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def _text_graph(seed: int) -> onnx.ModelProto:
    g = GraphBuilder(seed, quantize=False)
    table = g.random.normal(0, 1, (len(WORDS) + 4, TEXT_WIDTH)).astype(np.float32)
    weight = g.op("Unsqueeze", g.op("Cast", "mask", to=TensorProto.FLOAT), g.constant(np.array([2])))
    states = g.op("Mul", g.op("Gather", g.constant(table), "ids", axis=0), weight)
    total = g.op("ReduceSum", states, g.constant(np.array([1])), keepdims=0)
    pooled = g.op("LpNormalization", total, axis=-1, p=2)
    whole = ["N", "L"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, whole) for name in ("ids", "mask")]
    return model(g, inputs, {"states": (states, [*whole, TEXT_WIDTH]), "pooled": (pooled, ["N", TEXT_WIDTH])})


def model(
    g: GraphBuilder, inputs: list[onnx.ValueInfoProto], outputs: dict[str, tuple[str, list[Any]]]
) -> onnx.ModelProto:
    """The model of what was built. `outputs`: name -> (the builder's name of the value, shape)."""
    kind = TensorProto.UINT8 if g.quantize else TensorProto.FLOAT
    nodes = [*g.nodes, *(helper.make_node("Identity", [value], [name]) for name, (value, _) in outputs.items())]
    given = [helper.make_tensor_value_info(name, kind, shape) for name, (_, shape) in outputs.items()]
    graph = helper.make_graph(nodes, "kit", inputs, given, g.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def painter_graph(*, int8: bool, width: int = 16, depth: int = 1, noise: int = 4, seed: int = 0) -> onnx.ModelProto:
    """8 x 8 noise, FiLM by the pooled vector, attention to the tokens, then separable blocks up to 64 x 64 RGBA."""
    g = GraphBuilder(seed, int8)
    y = g.conv(g.op("Transpose", "noise", perm=[0, 3, 1, 2]), noise, width, 1, gain=2)
    y = _attended(g, _modulated(g, y, width), width)
    outputs: dict[str, tuple[str, list[Any]]] = {}
    for side in LEVELS:
        for _ in range(depth):
            y = _block(g, y, width)
        outputs[f"y{side}"] = (_picture(g, g.conv(y, width, 4, 1, gain=4), 1), ["N", side, side, 4])
        if side < LEVELS[-1]:
            y = g.op("DepthToSpace", g.conv(y, width, 4 * width, 1), blocksize=2)
    outputs["y"] = (_picture(g, g.conv(y, width, 16, 1, gain=4), 2), ["N", 64, 64, 4])
    return model(g, _painter_inputs(noise), outputs)


def _painter_inputs(noise: int) -> list[onnx.ValueInfoProto]:
    shapes = {
        "noise": ["N", 8, 8, noise],
        "states": ["N", TOKENS, TEXT_WIDTH],
        "mask": ["N", TOKENS],
        "pooled": ["N", TEXT_WIDTH],
    }
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]


def _dense(g: GraphBuilder, x: str, rows: int, columns: int) -> str:
    return g.op("MatMul", x, g.constant(g.random.normal(0, rows**-0.5, (rows, columns)).astype(np.float32)))


def _modulated(g: GraphBuilder, y: str, width: int) -> str:
    scale, shift = (
        g.op("Unsqueeze", _dense(g, "pooled", TEXT_WIDTH, width), g.constant(np.array([2, 3]))) for _ in range(2)
    )
    return g.op("Add", g.op("Mul", y, g.op("Add", scale, g.constant(np.float32(1)))), shift)


def _attended(g: GraphBuilder, y: str, width: int) -> str:
    """y + softmax(Q K^T / sqrt(width)) V over the prompt's tokens."""
    rows = g.op("Transpose", g.op("Reshape", y, g.constant(np.array([0, width, 64]))), perm=[0, 2, 1])
    keys = g.op("Transpose", _dense(g, "states", TEXT_WIDTH, width), perm=[0, 2, 1])
    scores = g.op("Mul", g.op("MatMul", _dense(g, rows, width, width), keys), g.constant(np.float32(width**-0.5)))
    padding = g.op("Mul", g.op("Sub", "mask", g.constant(np.float32(1))), g.constant(np.float32(1e4)))
    scores = g.op("Add", scores, g.op("Unsqueeze", padding, g.constant(np.array([1]))))
    mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), _dense(g, "states", TEXT_WIDTH, width))
    mixed = g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1]), g.constant(np.array([0, width, 8, 8])))
    return g.op("Add", y, mixed)


def _block(g: GraphBuilder, y: str, width: int) -> str:
    wide = g.op("Relu", g.conv(g.activation(y, zero=SIGNED_ZERO), width, 2 * width, 1, gain=2**0.5))
    middle = g.conv(g.activation(wide), 2 * width, 2 * width, 3, groups=2 * width)
    return g.op("Add", y, g.conv(g.activation(middle, zero=SIGNED_ZERO), 2 * width, width, 1))


def _picture(g: GraphBuilder, y: str, block: int) -> str:
    """(N, 4 * block**2, h, w) logits to (N, h * block, w * block, 4), the colours multiplied by alpha."""
    y = g.op("DepthToSpace", y, blocksize=block) if block > 1 else y
    y = g.op("Sigmoid", g.op("Transpose", y, perm=[0, 2, 3, 1]))
    split = g.constant(np.array([3, 1]))
    colour, alpha = f"colour{len(g.nodes)}", f"alpha{len(g.nodes)}"
    g.nodes.append(helper.make_node("Split", [y, split], [colour, alpha], axis=-1))
    y = g.op("Concat", g.op("Mul", colour, alpha), alpha, axis=-1)
    if not g.quantize:
        return y
    y = g.op("Add", g.op("Mul", y, g.constant(np.float32(255))), g.constant(np.float32(0.5)))
    return g.op("Cast", y, to=TensorProto.UINT8)


def make_painter(folder: Path, text: Path | None = None, **shape: int) -> Path:
    """A painter bundle with a float and an int8 graph of the same weights; returns `folder`.

    `text`: the text bundle that it is bound to, by default a new one beside it. `shape`: see `painter_graph`.
    """
    text = text or make_text_bundle(folder.with_name("text-kit"))
    drafts = folder.with_name(f"{folder.name}-drafts")
    drafts.mkdir(parents=True, exist_ok=True)
    for precision, int8 in (("float", False), ("int8", True)):
        onnx.save(painter_graph(int8=int8, **shape), drafts / f"{precision}.onnx")
    files = {f"{precision}.onnx": drafts / f"{precision}.onnx" for precision in ("float", "int8")}
    return bundle.write(folder, _manifest(folder.name, text, shape.get("noise", 4)), files).folder


def _manifest(name: str, text: Path, noise: int) -> bundle.PainterManifest:
    link = bundle.TextLink(bundle=text.name, sha256=bundle.read(text).manifest.files["text.onnx"])
    return bundle.PainterManifest(
        name=name,
        graphs={
            "float": bundle.Graph(file="float.onnx", dtype="float32"),
            "int8": bundle.Graph(file="int8.onnx", dtype="uint8"),
        },
        license="Apache-2.0",
        sources=(bundle.Source(source="noise", license="CC0-1.0", pictures=1),),
        parameters=1000,
        size=64,
        levels=LEVELS,
        noise=(8, 8, noise),
        text=link,
        text_tokens=TOKENS,
        styles={"flat": "flat style", "pixel": "pixel style"},
        macs=1e6,
        files={},
    )


def make_icon_upscaler(folder: Path, *, scale: int) -> Path:
    """An upscaler of premultiplied RGBA: the nearest neighbour. Returns `folder`."""
    drafts = folder.with_name(f"{folder.name}-drafts")
    drafts.mkdir(parents=True, exist_ok=True)
    for precision, int8 in (("float", False), ("int8", True)):
        onnx.save(_enlarging(int8, scale), drafts / f"{precision}.onnx")
    manifest = bundle.UpscalerManifest(
        name=folder.name,
        graphs={
            "float": bundle.Graph(file="float.onnx", dtype="float32"),
            "int8": bundle.Graph(file="int8.onnx", dtype="uint8"),
        },
        license="Apache-2.0",
        sources=(bundle.Source(source="noise", license="CC0-1.0", pictures=1),),
        parameters=1,
        scale=scale,
        channels=4,
        radius=1,
        macs_per_pixel=1.0,
        files={},
    )
    files = {f"{precision}.onnx": drafts / f"{precision}.onnx" for precision in ("float", "int8")}
    return bundle.write(folder, manifest, files).folder


def _enlarging(int8: bool, scale: int) -> onnx.ModelProto:
    g = GraphBuilder(0, int8)
    sizes = g.constant(np.array([1, scale, scale, 1], np.float32))
    picture = g.op("Cast", "x", to=TensorProto.FLOAT) if int8 else "x"
    y = g.op(
        "Resize", picture, "", sizes, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    y = g.op("Cast", y, to=TensorProto.UINT8) if int8 else y
    kind = TensorProto.UINT8 if int8 else TensorProto.FLOAT
    taken = helper.make_tensor_value_info("x", kind, [1, "height", "width", 4])
    return model(g, [taken], {"y": (y, [1, "H", "W", 4])})


def corrupted(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of a painter bundle whose manifest says something else."""
    opened = bundle.read(folder, bundle.PainterManifest)
    files = {name: folder / name for name in opened.manifest.files}
    return bundle.write(target, opened.manifest.model_copy(update=changes), files).folder
