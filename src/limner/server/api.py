"""The routes under /v1: OpenAI's Images API, and an upscaler beside it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, cast

from fastapi import APIRouter, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from pydantic_core import to_json

from limner import bundle
from limner.errors import LimnerError
from limner.server import schema
from limner.server.access import Allowed
from limner.server.direct import DirectRoute
from limner.server.enlarging import Enlarged, EnlargeOrder
from limner.server.errors import INVALID, ApiError, internal, of, refused
from limner.server.job import Job, finished
from limner.server.painting import Form, Painted, Painting, PaintOrder, Started
from limner.server.schema import (
    EditFields,
    EditForm,
    ErrorBody,
    GenerationRequest,
    ImagesResponse,
    Model,
    Models,
    UpscaleFields,
    UpscaleForm,
)
from limner.server.service import Service, created

router = APIRouter(prefix="/v1", tags=["images"])

DEFAULT_QUALITY = 90
JSON = "application/json"
OVERLAP_S = 0.001  # long enough for a thread to have begun, short against what it does
MIME = {kind: f"image/{kind}" for kind in ("png", "jpeg", "webp", "tiff", "avif")}

RETRY_AFTER = {"retry-after": {"description": "seconds", "schema": {"type": "integer"}}}
FAULTS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "A parameter or the picture is wrong, or the prompt was refused"},
    401: {"model": ErrorBody, "description": "The API key is missing, unknown or revoked"},
    404: {"model": ErrorBody, "description": "There is no such model"},
    408: {"model": ErrorBody, "description": "The body did not arrive in time"},
    413: {"model": ErrorBody, "description": "The body is too large"},
    429: {"model": ErrorBody, "description": "The key's limit is reached", "headers": RETRY_AFTER},
    500: {"model": ErrorBody, "description": "The server failed"},
    503: {"model": ErrorBody, "description": "The server is loading, busy or draining", "headers": RETRY_AFTER},
    507: {"model": ErrorBody, "description": "The server's disk is full", "headers": RETRY_AFTER},
}
EVENTS = {"description": "The pictures; with `stream`, server-sent events", "content": {"text/event-stream": {}}}
FILES = {"description": "The picture", "content": {mime: {} for mime in MIME.values()}}


# -------------------------------------------------------------------------------------------------------- generations


async def generate(body: GenerationRequest, request: Request, caller: Allowed) -> Response:
    """Paint pictures of a prompt."""
    service = _service(request)
    painting = service.painting(body.model)
    order = _paint_order(service, painting, body)
    sides = order.requests[0].size or painting.painter.size
    _note(request, service, model=painting.name, n=len(order.requests), prompt=body.prompt)
    with service.admitted("generate", len(order.requests)):
        caller.charge_pixels(len(order.requests) * sides**2)
        job = Job(service.config.batching.deadline_s)
        started = painting.start(order, job)
        warnings = await _warnings(painting, body.prompt)
        if not body.stream:
            painted = await finished(started.done, job, request, service.metrics)
            _see(request, service, painting, started, body.prompt, warnings)
            answer = _Answer(service, request, painting.name, sides, sides, order.form)
            return await answer.pictures(painted, body.response_format, warnings)
        # Faults of the prompt are answered as such, before the stream begins.
        await finished([started.accepted], job, request, service.metrics)
        _see(request, service, painting, started, body.prompt, warnings)
    return StreamingResponse(_events(service, painting, started, order, job, sides), media_type="text/event-stream")


router.add_api_route(
    "/images/generations",
    generate,
    methods=["POST"],
    response_model=ImagesResponse,
    responses={**FAULTS, 200: EVENTS},
    route_class_override=DirectRoute,
)


async def _warnings(painting: Painting, prompt: str) -> list[str]:
    """What the text model will not understand: found here while a thread encodes the prompt."""
    await asyncio.sleep(OVERLAP_S)
    return painting.painter.warnings(prompt)


def _see(
    request: Request, service: Service, painting: Painting, started: Started, prompt: str, warnings: list[str]
) -> None:
    """Count the prompt, once it is answered."""
    saw, vector = service.metrics.saw_prompt, started.accepted.result()
    request.scope["limner"].later.append(lambda: saw(painting.name, prompt, vector, bool(warnings)))


def _paint_order(service: Service, painting: Painting, body: GenerationRequest) -> PaintOrder:
    limits, count = service.config.limits, body.n or 1
    if count > limits.pictures:
        raise refused("n", f"n={count} is more than the limit of {limits.pictures}: ask several times.")
    _check_text("prompt", body.prompt, limits.prompt_characters)
    _check_text("negative_prompt", body.negative_prompt or "", limits.prompt_characters)
    _check_stream(body)
    size = _check_look(painting, body)
    asked = {"n": count, "seed": body.seed, "style": body.style, "size": size, "negative": body.negative_prompt}
    try:
        requests = painting.painter.requests(body.prompt, **asked)
    except LimnerError as error:
        raise _blamed(str(error)) from None
    level = service.config.moderation
    chosen = "low" if body.moderation == "low" and level == "auto" else level
    return PaintOrder(tuple(requests), chosen, _form(body), body.partial_images or 0)


def _check_stream(body: GenerationRequest) -> None:
    if body.partial_images and not body.stream:
        raise refused("partial_images", "partial_images needs stream: true.")
    if body.stream and body.response_format == "url":
        raise refused("response_format", "A stream holds its pictures: leave response_format out.")


def _check_look(painting: Painting, body: GenerationRequest) -> int | None:
    """The side asked for. Raises ApiError for a size or style that the painter has not."""
    painter, size = painting.painter, schema.square(body.size)
    if size is not None and size not in painter.sizes:
        known = ", ".join(f"{side}x{side}" for side in painter.sizes)
        raise refused("size", f"{painting.name} paints {known}, not {body.size}.")
    if body.style is not None and body.style not in painter.styles:
        known = ", ".join(painter.styles) or "none"
        raise refused("style", f"{painting.name} has no style {body.style!r:.80}; it has: {known}.")
    return size


def _blamed(sentence: str) -> ApiError:
    """The parameter that a sentence of the painter is about."""
    param = next((each for each in ("negative prompt", "seed", "prompt") if sentence.startswith(each)), None)
    return ApiError(400, sentence, param=param and param.replace(" ", "_"), code="invalid_value")


def _check_text(param: str, text: str, most: int) -> None:
    if len(text) > most:
        raise refused(param, f"{param} has {len(text)} characters, more than the limit of {most}.", "string_too_long")


def _form(body: GenerationRequest | EditForm) -> Form:
    format = body.output_format or "png"
    if format == "jpeg" and body.background == "transparent":
        raise refused("background", "jpeg holds no transparency: ask for output_format png or webp.")
    opaque = body.background == "opaque" or format == "jpeg"
    return Form(format, _quality(body.output_compression), opaque)


def _quality(percent: int | None) -> int:
    return DEFAULT_QUALITY if percent is None else max(1, percent)


async def _events(
    service: Service, painting: Painting, started: Started, order: PaintOrder, job: Job, side: int
) -> AsyncIterator[bytes]:
    """Server-sent events: for every picture its coarser ones, then itself."""
    common = {"size": f"{side}x{side}", **_look(order.form)}
    try:
        with service.admitted("generate", len(order.requests)):
            for coarse, done in zip(started.coarse, started.done, strict=True):
                if order.partials:
                    for index, data in enumerate(await asyncio.wrap_future(coarse)):
                        fields = {"partial_image_index": index, "b64_json": _text(data), **common}
                        yield _event("image_generation.partial_image", fields)
                painted = await asyncio.wrap_future(done)
                fields = {"b64_json": painted.base64, "seed": painted.seed, **common, "usage": _usage()}
                yield _event("image_generation.completed", fields)
                _count(service, painting.name, "generate", 1, side**2)
    except Exception as error:
        yield _event("error", (of(error) or internal()).body())
    finally:
        job.abandon()


def _usage() -> dict[str, Any]:
    """OpenAI's clients expect it; nothing is counted in tokens here."""
    details = {"image_tokens": 0, "text_tokens": 0}
    return {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "input_tokens_details": details}


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    data = json.dumps({"type": kind, "created_at": int(time.time()), **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


def _text(data: bytes) -> str:
    return Painted(data, 0).base64


# ----------------------------------------------------------------------------------------------------- enlarging


@router.post("/images/upscale", response_model=ImagesResponse, responses={**FAULTS, 200: FILES})
async def upscale(fields: UpscaleFields, request: Request, caller: Allowed) -> Response:
    """Enlarge a picture."""
    service = _service(request)
    size = schema.target(fields.size)
    if size is not None and fields.scale is not None:
        raise refused("scale", "scale and size are both given: choose one.")
    order = EnlargeOrder(
        image=_file("image", fields.image),
        mask=None,
        scale=fields.scale,
        size=size,
        strength=fields.strength,
        format=fields.output_format,
        quality=_quality(fields.output_compression),
        opaque=False,
        charge=caller.charge_pixels,
    )
    answer, enlarged = await _enlarged(service, request, fields, order)
    if fields.response_format == "binary":
        return Response(enlarged.data, media_type=MIME[enlarged.format])
    return await answer.pictures([enlarged], fields.response_format)


@router.post("/images/edits", response_model=ImagesResponse, responses={**FAULTS, 200: EVENTS})
async def edit(fields: EditFields, request: Request, caller: Allowed) -> Response:
    """Edit a picture: for now, enlarge it where the mask is transparent (everywhere without a mask)."""
    service, form = _service(request), _form(fields)
    order = EnlargeOrder(
        image=_only(fields),
        mask=None if fields.mask is None else _file("mask", fields.mask),
        scale=None,
        size=schema.target(fields.size),
        strength=1.0,
        format=form.format,
        quality=form.quality,
        opaque=form.opaque,
        charge=caller.charge_pixels,
    )
    answer, enlarged = await _enlarged(service, request, fields, order)
    if not fields.stream:
        return await answer.pictures([enlarged], fields.response_format)
    common = {"size": answer.size, **_look(answer.form), "usage": _usage()}
    event = _event("image_edit.completed", {"b64_json": enlarged.base64, **common})
    return Response(event, media_type="text/event-stream")


async def _enlarged(
    service: Service, request: Request, fields: UpscaleForm | EditForm, order: EnlargeOrder
) -> tuple[_Answer, Enlarged]:
    enlarging = service.enlarging(fields.model or None)
    _note(request, service, model=enlarging.name, n=1)
    with service.admitted("upscale", 1):
        job = Job(service.config.batching.deadline_s)
        (enlarged,) = await finished([enlarging.start(order, job)], job, request, service.metrics)
    form = Form(enlarged.format, order.quality, order.opaque)
    return _Answer(service, request, enlarging.name, enlarged.width, enlarged.height, form, "upscale"), enlarged


def _only(fields: EditForm) -> BinaryIO:
    given = ([fields.image] if fields.image is not None else []) + fields.images
    if not given:
        raise ApiError(400, "'image' is missing.", param="image", code="missing_required_parameter")
    if len(given) > 1:
        raise refused("image", "Several pictures were sent: the models here take one.")
    return _file("image", given[0])


def _file(param: str, upload: UploadFile) -> BinaryIO:
    if not upload.size:
        raise refused(param, f"{param} is empty: send a picture file.", "invalid_image")
    return cast(BinaryIO, upload.file)


# ------------------------------------------------------------------------------------------------------ answering


@dataclass(frozen=True)
class _Answer:
    """What an answer says of all its pictures; sides in pixels."""

    service: Service
    request: Request
    model: str
    width: int
    height: int
    form: Form
    task: Literal["generate", "upscale"] = "generate"

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"

    async def pictures(
        self, pictures: Sequence[Painted | Enlarged], response_format: str | None, warnings: Sequence[str] = ()
    ) -> Response:
        """OpenAI's images response."""
        if response_format == "url":
            put: Callable[[Any], dict[str, Any]] = self._url
            data: list[dict[str, Any]] = [await asyncio.to_thread(put, each) for each in pictures]
        else:
            data = [{"b64_json": each.base64} for each in pictures]
        for entry, each in zip(data, pictures, strict=True):
            if isinstance(each, Painted):
                entry["seed"] = each.seed
        _count(self.service, self.model, self.task, len(pictures), self.width * self.height)
        body = {"created": int(time.time()), "data": data, "model": self.model, "size": self.size, **_look(self.form)}
        # pydantic's own encoder takes a tenth of the time of json's for a picture in base64.
        return Response(to_json(body | ({"warnings": list(warnings)} if warnings else {})), media_type=JSON)

    def _url(self, picture: Painted | Enlarged) -> dict[str, Any]:
        name = self.service.results.put(picture.data, self.form.format)
        base = self.service.config.results.public_url or str(self.request.base_url)
        return {"url": f"{base.rstrip('/')}/v1/images/results/{name}"}


def _look(form: Form) -> dict[str, Any]:
    background = "opaque" if form.opaque else "transparent"
    return {"background": background, "output_format": form.format, "quality": "high"}


def _count(service: Service, model: str, task: str, pictures: int, pixels: int) -> None:
    service.metrics.pictures.labels(model, task).inc(pictures)
    service.metrics.pixels.labels(model).inc(pictures * pixels)


def _note(request: Request, service: Service, *, prompt: str | None = None, **fields: Any) -> None:
    """Into the log's line; the prompt only where the operator turned that on."""
    line = request.scope["limner"].log
    line.update(fields)
    if prompt is not None and service.config.logging.prompts:
        line["prompt"] = prompt


@router.get(
    "/images/results/{name}",
    response_class=FileResponse,
    responses={200: FILES, 404: {"model": ErrorBody, "description": "There is no such result, or it has expired"}},
)
async def result(name: str, request: Request) -> FileResponse:
    """A picture that was answered with a URL. The URL is the key: whoever has it may fetch it until it expires."""
    results = _service(request).results
    path = await asyncio.to_thread(results.find, name)
    if path is None:
        raise ApiError(404, "There is no such result, or it has expired.", code="not_found")
    headers = {"cache-control": "private, max-age=60", "x-content-type-options": "nosniff"}
    return FileResponse(path, media_type=MIME[path.suffix[1:]], headers=headers)


# --------------------------------------------------------------------------------------------------------- models


@router.get("/models", response_model=Models, responses=FAULTS, tags=["models"])
async def models(request: Request, caller: Allowed) -> JSONResponse:
    """The models served here, painters first."""
    service = _service(request)
    return JSONResponse(Models(data=[_model(service, name) for name in service.bundles]).model_dump(exclude_none=True))


@router.get("/models/{model}", response_model=Model, responses=FAULTS, tags=["models"])
async def model(model: str, request: Request, caller: Allowed) -> JSONResponse:
    """One model."""
    service = _service(request)
    if model not in service.bundles:
        message = f"The model {model[:80]!r} does not exist here."
        raise ApiError(404, message, type=INVALID, param="model", code="model_not_found")
    return JSONResponse(_model(service, model).model_dump(exclude_none=True))


def _model(service: Service, name: str) -> Model:
    opened = service.bundles[name]
    manifest = opened.manifest
    common = {
        "id": name,
        "created": created(opened),
        "owned_by": "limner",
        "task": manifest.task,
        "description": manifest.description,
        "license": manifest.license,
        "ready": name in service.paintings or name in service.enlargings,
    }
    if not isinstance(manifest, bundle.PainterManifest):
        return Model(**common, scale=manifest.scale)
    painter = service.painters.get(name)
    sides = painter.sizes if painter else (manifest.size,)
    return Model(**common, sizes=[f"{side}x{side}" for side in sides], styles=list(manifest.styles))


def _service(request: Request) -> Service:
    return request.app.state.service
