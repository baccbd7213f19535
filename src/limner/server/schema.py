"""What clients send and get: OpenAI's Images API, and what limner adds to it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import Form, UploadFile
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from limner.runtime.generate import MAX_SEED
from limner.server.config import MOST_PICTURES
from limner.server.errors import refused

SIZE = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})")
MAX_PARTIALS = 3

OutputFormat = Literal["png", "jpeg", "webp"]
AnyFormat = Literal["png", "jpeg", "webp", "tiff", "avif"]
Background = Literal["transparent", "opaque", "auto"]
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]


def _number(value: Any) -> Any:
    """JSON has numbers of its own: "2" and true are none."""
    if isinstance(value, str | bool):
        raise ValueError(f"must be a whole number, not {type(value).__name__}")
    return value


Whole = Annotated[int, BeforeValidator(_number)]


class GenerationRequest(BaseModel):
    """Parameters of OpenAI's images.generate; `seed`, `style` (a name of the model's) and `negative_prompt` are
    limner's. null is as good as leaving a parameter out. `quality`, `user` and `safety_identifier` change nothing.
    """

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, description="what to paint", examples=["a red apple, flat style"])
    model: str | None = Field(default=None, description="a painter; default: the first one")
    n: Annotated[Whole, Field(ge=1, le=MOST_PICTURES)] | None = Field(
        default=None, description="pictures, with consecutive seeds; default 1"
    )
    size: str | None = Field(
        default=None, description="WIDTHxHEIGHT or auto", pattern=r"^(auto|[1-9][0-9]{0,5}x[1-9][0-9]{0,5})$"
    )
    seed: Annotated[Whole, Field(ge=0, le=MAX_SEED)] | None = Field(
        default=None, description="of the first picture; the same request with a seed gives the same pictures"
    )
    response_format: Literal["b64_json", "url"] | None = None
    output_format: OutputFormat | None = None
    output_compression: Annotated[Whole, Field(ge=0, le=100)] | None = Field(
        default=None, description="quality of jpeg and webp in percent; default 90"
    )
    background: Background | None = None
    moderation: Literal["auto", "low"] | None = None
    stream: bool | None = Field(default=None, strict=True, description="answer with server-sent events")
    partial_images: Annotated[Whole, Field(ge=0, le=MAX_PARTIALS)] | None = Field(
        default=None, description="coarser pictures sent before each; only with stream"
    )
    style: str | None = Field(default=None, max_length=64)
    negative_prompt: str | None = Field(default=None, description="what not to paint")
    quality: Quality | None = None
    user: str | None = Field(default=None, max_length=512)
    safety_identifier: str | None = Field(default=None, max_length=512)


class _Multipart(BaseModel):
    """What both multipart requests share. An empty field is as good as none."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(default=None, description="an upscaler; default: the first one")
    size: str | None = Field(default=None, description="WIDTHxHEIGHT, WIDTHx, xHEIGHT or auto")
    output_compression: int | None = Field(default=None, ge=0, le=100, description="of lossy formats, percent")
    user: str | None = Field(default=None, max_length=512)


class UpscaleForm(_Multipart):
    """Multipart fields of /v1/images/upscale."""

    image: UploadFile = Field(description="PNG, JPEG, WebP, TIFF, GIF or AVIF")
    scale: float | None = Field(default=None, gt=0, le=64, description="factor; default: the model's own")
    strength: float = Field(default=1.0, ge=0, le=1, description="0 is bicubic, 1 the network alone")
    output_format: AnyFormat | None = Field(default=None, description="default: that of the picture sent")
    response_format: Literal["b64_json", "url", "binary"] = Field(
        default="b64_json", description="binary: the file itself is the answer"
    )


class EditForm(_Multipart):
    """Multipart fields of OpenAI's images.edit. For now every edit is an enlargement: `prompt` is not read."""

    image: UploadFile | None = Field(default=None, description="the picture; clients that send a list name it image[]")
    images: list[UploadFile] = Field(default=[], alias="image[]", max_length=16)
    mask: UploadFile | None = Field(
        default=None, description="of the picture's size; where its alpha is 0 the model works, elsewhere bicubic"
    )
    prompt: str | None = Field(default=None, max_length=32_000)
    n: int | None = Field(default=None, ge=1, le=1, description="an enlargement has no seed: there is one result")
    output_format: OutputFormat | None = None
    response_format: Literal["b64_json", "url"] | None = None
    background: Background | None = None
    input_fidelity: Literal["high", "low"] | None = None
    quality: Quality | None = None
    stream: bool = False
    partial_images: int | None = Field(default=None, ge=0, le=MAX_PARTIALS)


UpscaleFields = Annotated[UpscaleForm, Form(media_type="multipart/form-data")]
EditFields = Annotated[EditForm, Form(media_type="multipart/form-data")]


class Image(BaseModel):
    """One result: `b64_json` or `url`."""

    b64_json: str | None = None
    url: str | None = None
    seed: int | None = Field(default=None, description="of a painted picture")


class ImagesResponse(BaseModel):
    """OpenAI's images response."""

    created: int
    data: list[Image]
    model: str
    background: Literal["transparent", "opaque"]
    output_format: AnyFormat
    size: str
    quality: Literal["high"] = "high"
    warnings: list[str] | None = Field(default=None, description="what the text model will not understand")


class Model(BaseModel):
    """OpenAI's model object, with what limner knows besides."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    task: Literal["generate", "upscale"]
    description: str
    license: str
    ready: bool
    sizes: list[str] | None = Field(default=None, description="of a painter")
    styles: list[str] | None = Field(default=None, description="of a painter")
    scale: int | None = Field(default=None, description="of an upscaler")


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Fault(BaseModel):
    """OpenAI's error object. `moderation`: for a refused prompt, the result of the filter."""

    message: str
    type: str
    param: str | None
    code: str | None
    moderation: dict[str, Any] | None = None


class ErrorBody(BaseModel):
    error: Fault


def square(size: str | None) -> int | None:
    """Side of a painter's `size`; None for its own. Raises ApiError for sides that differ."""
    if size is None or size == "auto":
        return None
    found = SIZE.fullmatch(size)
    if found is None or found[1] != found[2]:
        raise refused("size", f"size {size!r:.40} is impossible: painters paint squares, such as 64x64.")
    return int(found[1])


def target(size: str | None) -> tuple[int | None, int | None] | None:
    """(width, height) of an enlargement, None for a side that follows. Raises ApiError for what is no size."""
    if size is None or size in ("", "auto"):
        return None
    sides = re.fullmatch(r"([1-9]\d{0,5})?x([1-9]\d{0,5})?", size)
    if sides is None or not any(sides.groups()):
        raise refused("size", f"size {size!r:.40} is none: write WIDTHxHEIGHT, WIDTHx or xHEIGHT in pixels.")
    width, height = (int(side) if side else None for side in sides.groups())
    return width, height
