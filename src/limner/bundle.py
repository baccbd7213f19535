"""The bundle: a folder with manifest.json and ONNX graphs, the only thing the runtime knows. No torch, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, Generic, Literal, TypeVar, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from limner.errors import LimnerError, one_of

FORMAT = 1
MANIFEST = "manifest.json"
ZOO = Path(__file__).parent / "zoo"

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

Precision = Literal["float", "int8"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Graph(_Frozen):
    """One ONNX file of a picture network. Pictures are channels last.

    `float`: float32 in 0..1, not clipped at the output. `int8`: uint8 in 0..255, QDQ inside.
    """

    file: str
    dtype: Literal["float32", "uint8"]


class Source(_Frozen):
    """Pictures (or texts) of one origin under one licence that the weights learned from."""

    source: str
    license: str
    pictures: int = Field(ge=1)


class Manifest(_Frozen):
    """What every manifest.json says; each task adds its own keys."""

    format: Literal[1] = FORMAT
    name: str = Field(min_length=1)
    task: str
    description: str = ""
    graphs: dict[Precision, Graph]
    license: str
    sources: tuple[Source, ...]
    parameters: int = Field(ge=1)
    scores: dict[str, Any] = Field(default_factory=dict, description="what `limner pack` measured")
    recipe: dict[str, Any] = Field(default_factory=dict, description="the resolved RunConfig")
    created: str = ""
    limner: str = ""
    files: dict[str, str] = Field(description="sha256 of every file but the manifest")

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name:
                raise ValueError(f"file {name!r} climbs out of the bundle's folder")
        return files


class UpscalerManifest(Manifest):
    """Graphs: "x" (1, height, width, C) -> "y" (1, height * scale, width * scale, C), C = 3 or 4 (RGB, RGBA).

    `radius`: input pixels around an output pixel that can change it. `multiple`: height and width must be one of it.
    """

    task: Literal["upscale"] = "upscale"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    scale: int = Field(ge=1, le=8)
    channels: Literal[3, 4] = 3
    multiple: int = Field(default=1, ge=1, description="height and width of the input must be multiples of this")
    radius: int = Field(ge=0, description="receptive field radius, input pixels")
    macs_per_pixel: float = Field(gt=0, description="multiply-accumulates per input pixel")


class TextManifest(Manifest):
    """A prompt encoder: tokenizer.json and graphs (ids, mask) (N, L) int64 -> states (N, L, width), pooled (N, width).

    The text goes in as written; `pooled` has unit length. Prompts are cut at `max_tokens`, special tokens included.
    """

    task: Literal["text"] = "text"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    width: int = Field(ge=1, description="length of a token's vector")
    max_tokens: int = Field(ge=4)
    languages: tuple[str, ...] = Field(default=("en",), description="what the language model was trained on")
    tokenizer: str = Field(default="tokenizer.json", description="file in the format of the library tokenizers")


class TextLink(_Frozen):
    """The text bundle whose vectors a painter was trained on: its name, and the sha256 of its graph."""

    bundle: str
    sha256: str


class PainterManifest(Manifest):
    """Graphs: (noise, states, mask, pooled) -> "y" (N, size, size, 4), RGBA with premultiplied alpha.

    Inputs, all float32: "noise" (N, *noise), standard normal; "states" (N, text_tokens, width) and "mask"
    (N, text_tokens), 1 for a token and 0 for padding; "pooled" (N, width) of unit length. N is dynamic. Other outputs,
    "y8" for 8 x 8 pixels and so on, are the coarser levels, coarse to fine in `levels`, of the same kind as "y".
    """

    task: Literal["generate"] = "generate"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    size: int = Field(ge=8, description="side of the picture, pixels")
    levels: tuple[int, ...] = Field(default=(), description="sides of the coarser pictures the graphs also give")
    noise: tuple[int, int, int] = Field(description="shape of one picture's noise: height, width, channels")
    text: TextLink
    text_tokens: int = Field(ge=1, description="length L that the prompt's states are padded or cut to")
    styles: dict[str, str] = Field(default_factory=dict, description="style name -> words that ask for it")
    alpha_gain: float = Field(default=1.0, ge=1, description="contrast that alpha is given around one half; 1: none")
    variety: float = Field(default=0.0, ge=0, le=1, description="how far a seed moves the pooled vector of its prompt")
    macs: float = Field(gt=0, description="multiply-accumulates per picture")


KINDS: dict[str, type[Manifest]] = {
    "upscale": UpscalerManifest,
    "text": TextManifest,
    "generate": PainterManifest,
}
M_co = TypeVar("M_co", bound=Manifest, covariant=True)


class Bundle(Generic[M_co]):
    """A verified bundle on disk: `folder` and its `manifest`."""

    def __init__(self, folder: Path, manifest: M_co) -> None:
        self.folder, self.manifest = folder, manifest

    def graph(self, precision: Precision) -> Path:
        """Path of the ONNX file of that precision. Raises UsageError when the bundle has none."""
        if precision not in self.manifest.graphs:
            raise one_of("precision", precision, tuple(self.manifest.graphs))
        return self.folder / self.manifest.graphs[precision].file

    @property
    def bytes(self) -> int:
        return sum((self.folder / name).stat().st_size for name in self.manifest.files)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def zoo() -> list[str]:
    """Names of the bundles that ship."""
    return sorted(path.parent.name for path in ZOO.glob(f"*/{MANIFEST}"))


def find(name: str | os.PathLike[str]) -> Path:
    """Folder of a bundle given by zoo name, path, or Hugging Face id `owner/name` (fetched once, then cached)."""
    shipped = ZOO / str(name)
    if str(name) in zoo():
        return shipped
    folder = Path(name)
    if (folder / MANIFEST).is_file():
        return folder
    if HUB_ID.fullmatch(str(name)) and not folder.exists():
        return _fetch(str(name))
    if folder.exists() or len(folder.parts) > 1:
        raise LimnerError(f"{folder}: no {MANIFEST} there; give a bundle folder or one of: {', '.join(zoo())}.")
    raise one_of("model", str(name), tuple(zoo()))


def _fetch(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise LimnerError(
            f"{name}: there is no such folder; to fetch it from Hugging Face run `pip install 'limner[hub]'`."
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=[MANIFEST, "*.onnx", "*.json"]))
    except Exception as error:  # the hub's errors share no base class: network, authentication, missing files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LimnerError(
            f"{name}: no such folder, and Hugging Face gave no repository of that name ({reason:.160}); check the name."
        ) from None


@overload
def read(name: str | os.PathLike[str]) -> Bundle[Manifest]: ...


@overload
def read(name: str | os.PathLike[str], kind: type[M_co]) -> Bundle[M_co]: ...


def read(name: str | os.PathLike[str], kind: type[Manifest] = Manifest) -> Bundle[Any]:
    """Open and verify a bundle: schema, format version, task, paths, presence and sha256 of every file.

    `kind`: the manifest class of the task that is wanted. Raises LimnerError, also for a bundle of another task.
    """
    folder = find(name)
    manifest = _manifest(folder)
    if not isinstance(manifest, kind):
        wanted = next(task for task, each in KINDS.items() if each is kind)
        raise LimnerError(f"{name}: is a bundle for {manifest.task!r}, not for {wanted!r}; choose another.")
    for file, digest in manifest.files.items():
        _verify(folder, file, digest)
    for graph in manifest.graphs.values():
        if graph.file not in manifest.files:
            raise LimnerError(f"{folder / MANIFEST}: graph {graph.file!r} has no sha256 under 'files'; pack it again.")
    return Bundle(folder, manifest)


def _manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LimnerError(f"{path}: not readable as JSON ({error}); pack the bundle again.") from None
    keys = raw if isinstance(raw, dict) else {}
    version, task = keys.get("format"), keys.get("task")
    if isinstance(version, int) and version > FORMAT:
        raise LimnerError(f"{path}: bundle format {version} is newer than {FORMAT}, which this limner reads; upgrade.")
    if task not in KINDS:
        raise LimnerError(f"{path}: task {task!r} is none of {', '.join(KINDS)}; upgrade limner or correct it.")
    try:
        return KINDS[task].model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise LimnerError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}.") from None


def _verify(folder: Path, file: str, digest: str) -> None:
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise LimnerError(f"{folder / MANIFEST}: file {file!r} climbs out of the bundle's folder; do not use it.")
    if not path.is_file():
        raise LimnerError(f"{path}: missing; copy the whole bundle or pack it again.")
    if sha256(path) != digest:
        raise LimnerError(
            f"{path}: sha256 differs from the manifest; the file is damaged or was changed, copy it again."
        )


def write(folder: Path, manifest: M_co, files: dict[str, Path]) -> Bundle[M_co]:
    """Write a bundle whole or not at all: fill a temporary folder beside it, then rename.

    `files`: name in the bundle -> file to copy. Their sha256 replaces `manifest.files`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, source in files.items():
            shutil.copyfile(source, draft / name)
        sealed = manifest.model_copy(update={"files": {name: sha256(draft / name) for name in files}})
        (draft / MANIFEST).write_text(sealed.model_dump_json(indent=1) + "\n", "utf-8")
        draft.chmod(0o755)
        _replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Bundle(folder, sealed)


def _replace(draft: Path, folder: Path) -> None:
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise LimnerError(f"{folder}: exists and is not a bundle; choose another --out or remove it.")
    old = folder.with_name(f".{folder.name}-old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
