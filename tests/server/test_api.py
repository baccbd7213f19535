"""The API through OpenAI's own client, unmodified, and through plain HTTP for what limner adds."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image
from server_kit import Running, opened, picture_file

from limner.runtime import provenance
from limner.runtime.generate import Painter
from limner.runtime.painters import Upscaler
from limner.server.painting import over_white


@pytest.fixture(scope="module")
def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def painter(zoo: Path) -> Painter:
    return Painter.load(zoo / "icons", threads=1)


def decoded(entry: Any) -> np.ndarray:
    return opened(base64.b64decode(entry.b64_json))


# -------------------------------------------------------------------------------------------------------- generations


def test_the_client_paints_what_the_runtime_paints(client: openai.OpenAI, painter: Painter) -> None:
    result = client.images.generate(model="icons", prompt="a red cat", n=3, size="64x64", extra_body={"seed": 7})
    assert result.data is not None and len(result.data) == 3
    assert [entry.seed for entry in result.data] == [7, 8, 9]  # type: ignore[attr-defined]
    expected = painter.paint_array("a red cat", n=3, seed=7)
    np.testing.assert_array_equal(np.stack([decoded(entry) for entry in result.data]), expected)
    assert (result.size, result.output_format, result.background) == ("64x64", "png", "transparent")


def test_style_negative_prompt_and_size(running: Running, painter: Painter) -> None:
    asked = {"seed": 3, "style": "pixel", "negative": "dog", "size": 128}
    answer = running.paint(seed=3, style="pixel", negative_prompt="dog", size="128x128").json()
    np.testing.assert_array_equal(
        opened(base64.b64decode(answer["data"][0]["b64_json"])), painter.paint_array("a red cat", **asked)[0]
    )
    assert answer["size"] == "128x128" and answer["model"] == "icons"


def test_without_a_seed_one_is_drawn_and_told(running: Running) -> None:
    first, second = (running.paint().json()["data"][0] for _ in range(2))
    assert first["seed"] != second["seed"]
    again = running.paint(seed=first["seed"]).json()["data"][0]
    assert again["b64_json"] == first["b64_json"] != second["b64_json"]


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_formats(client: openai.OpenAI, format: Any) -> None:
    result = client.images.generate(prompt="a red cat", output_format=format, output_compression=50)
    assert result.data is not None
    picture = Image.open(io.BytesIO(base64.b64decode(result.data[0].b64_json or "")))
    assert (picture.format, picture.size) == (format.upper(), (64, 64))
    assert result.background == ("opaque" if format == "jpeg" else "transparent")


def test_an_opaque_background_is_white(running: Running, painter: Painter) -> None:
    answer = running.paint(seed=1, background="opaque").json()
    assert answer["background"] == "opaque"
    np.testing.assert_array_equal(
        opened(base64.b64decode(answer["data"][0]["b64_json"])), over_white(painter.paint_array("a red cat", seed=1)[0])
    )


def test_pictures_tell_their_origin_but_not_the_prompt(running: Running) -> None:
    data = base64.b64decode(running.paint(seed=5).json()["data"][0]["b64_json"])
    told = provenance.read(data)
    assert told is not None and (told.model, told.seed, told.prompt) == ("icons", 5, None)
    assert told.source_type == provenance.GENERATED


def test_a_url_serves_the_picture(client: openai.OpenAI, running: Running) -> None:
    result = client.images.generate(prompt="a red cat", response_format="url", extra_body={"seed": 7})
    assert result.data is not None and result.data[0].url is not None and result.data[0].b64_json is None
    fetched = running.get(result.data[0].url.removeprefix(running.url))
    assert fetched.headers["content-type"] == "image/png"
    expected = running.paint(seed=7).json()["data"][0]["b64_json"]
    assert base64.b64encode(fetched.content).decode() == expected


def test_unknown_words_are_warned_about(running: Running) -> None:
    assert "warnings" not in running.paint("a red cat").json()
    assert "unknown words" in running.paint("gramtwickel zwackelmann").json()["warnings"][0]


def test_null_is_as_good_as_nothing(running: Running) -> None:
    nothing = dict.fromkeys(("n", "size", "style", "output_format", "background", "moderation", "user", "stream"))
    assert running.paint(seed=1, **nothing).json()["data"] == running.paint(seed=1).json()["data"]


# ----------------------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize("partials", [0, 1, 3])
def test_a_stream_of_coarser_pictures(client: openai.OpenAI, running: Running, painter: Painter, partials: int) -> None:
    running.until_warm()
    stream = client.images.generate(
        prompt="a red cat", stream=True, partial_images=partials, size="128x128", extra_body={"seed": 7}
    )
    *coarse, last = list(stream)
    assert [event.type for event in coarse] == ["image_generation.partial_image"] * partials
    assert [event.partial_image_index for event in coarse] == list(range(partials))  # type: ignore[union-attr]
    assert last.type == "image_generation.completed" and last.size == "128x128"
    final = painter.paint_array("a red cat", seed=7, size=128)[0]
    np.testing.assert_array_equal(decoded(last), final)
    gaps = [np.abs(decoded(each).astype(int) - final).mean() for each in coarse]
    assert all(decoded(each).shape == (128, 128, 4) for each in coarse) and 0 not in gaps


def test_a_stream_of_several_pictures(running: Running) -> None:
    running.until_warm()
    answer = running.paint(n=2, seed=7, stream=True, partial_images=1)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
    kinds = [event["type"].removeprefix("image_generation.") for event in events]
    assert kinds == ["partial_image", "completed"] * 2
    assert [event["seed"] for event in events if "seed" in event] == [7, 8]


def test_faults_of_the_prompt_come_before_the_stream(running: Running) -> None:
    answer = running.paint("!!!", stream=True)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "prompt"


# ------------------------------------------------------------------------------------------------------ enlargements


def test_upscale_gives_what_the_runtime_gives(running: Running, zoo: Path) -> None:
    data = picture_file(alpha=True)
    answer = running.post("/v1/images/upscale", files={"image": data}, data={"response_format": "binary"})
    assert answer.headers["content-type"] == "image/png"
    expected = np.asarray(Upscaler.load(zoo / "photo-x2", threads=1).upscale(data))
    np.testing.assert_array_equal(opened(answer.content), expected)


@pytest.mark.parametrize(
    ("fields", "size", "format"),
    [
        ({"scale": "3"}, (72, 48), "PNG"),
        ({"size": "40x30"}, (40, 30), "PNG"),
        ({"size": "x32"}, (48, 32), "PNG"),
        ({"output_format": "jpeg", "output_compression": "30"}, (48, 32), "JPEG"),
        ({"output_format": "tiff"}, (48, 32), "TIFF"),
        ({"output_format": "avif", "strength": "0.5"}, (48, 32), "AVIF"),
    ],
)
def test_upscale_sizes_and_formats(
    fields: dict[str, str], size: tuple[int, int], format: str, running: Running
) -> None:
    answer = running.post("/v1/images/upscale", files={"image": picture_file()}, data=fields).json()
    picture = Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"])))
    assert (picture.size, picture.format) == (size, format)
    assert answer["size"] == f"{size[0]}x{size[1]}" and answer["model"] == "photo-x2"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "AVIF"])
def test_any_picture_goes_in(format: str, running: Running) -> None:
    answer = running.post("/v1/images/upscale", files={"image": picture_file(format=format)})
    assert answer.json()["output_format"] == ("png" if format == "GIF" else format.lower())


def test_the_client_edits(client: openai.OpenAI, zoo: Path) -> None:
    data = picture_file()
    result = client.images.edit(model="photo-x2", image=("a.png", data), prompt="larger")
    assert result.data is not None
    np.testing.assert_array_equal(decoded(result.data[0]), np.asarray(Upscaler.load(zoo / "photo-x2").upscale(data)))
    listed = client.images.edit(model="photo-x2", image=[("a.png", data)], prompt="larger")
    assert listed.data is not None and listed.data[0].b64_json == result.data[0].b64_json


def test_a_mask_keeps_what_it_covers(client: openai.OpenAI, zoo: Path) -> None:
    data, upscaler = picture_file(), Upscaler.load(zoo / "photo-x2")
    mask = ("mask.png", picture_file(alpha=True, seed=1))
    result = client.images.edit(model="photo-x2", image=("a.png", data), mask=mask, prompt="larger")
    assert result.data is not None
    painted, kept = (np.asarray(upscaler.upscale(data, strength=strength)) for strength in (1, 0))
    found = decoded(result.data[0])
    np.testing.assert_array_equal(found[:, :20], painted[:, :20])
    np.testing.assert_array_equal(found[:, -20:], kept[:, -20:])
    assert np.abs(painted.astype(int) - kept).max() > 0


def test_the_client_streams_an_edit(client: openai.OpenAI) -> None:
    events = list(client.images.edit(image=("a.png", picture_file()), prompt="larger", stream=True))
    assert [event.type for event in events] == ["image_edit.completed"]


# ------------------------------------------------------------------------------------------------------------ models


def test_models(client: openai.OpenAI) -> None:
    found = list(client.models.list())
    assert [model.id for model in found] == ["icons", "photo-x2"]
    one = client.models.retrieve("icons").model_dump()
    assert one["sizes"] == ["64x64", "128x128", "256x256"] and one["styles"] == ["flat", "pixel"]
    assert client.models.retrieve("photo-x2").model_dump()["scale"] == 2
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-image-9")
    assert caught.value.code == "model_not_found"


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"prompt": ""}, 400, "prompt", "invalid_value"),
        ({"prompt": "?!"}, 400, "prompt", "invalid_value"),
        ({"prompt": "cat \x00"}, 400, "prompt", "invalid_value"),
        ({"prompt": "cat " * 2000}, 400, "prompt", "string_too_long"),
        ({"prompt": 5}, 400, "prompt", "invalid_value"),
        ({"n": 0}, 400, "n", "invalid_value"),
        ({"n": 11}, 400, "n", "invalid_value"),
        ({"n": "2"}, 400, "n", "invalid_value"),
        ({"n": True}, 400, "n", "invalid_value"),
        ({"n": 1.5}, 400, "n", "invalid_value"),
        ({"seed": -1}, 400, "seed", "invalid_value"),
        ({"seed": 2**63}, 400, "seed", "invalid_value"),
        ({"seed": 2**63 - 1, "n": 2}, 400, "seed", "invalid_value"),
        ({"size": "64"}, 400, "size", "invalid_value"),
        ({"size": "65x65"}, 400, "size", "invalid_value"),
        ({"size": "64x128"}, 400, "size", "invalid_value"),
        ({"style": "baroque"}, 400, "style", "invalid_value"),
        ({"negative_prompt": "?"}, 400, "negative_prompt", "invalid_value"),
        ({"output_format": "gif"}, 400, "output_format", "invalid_value"),
        ({"output_format": "jpeg", "background": "transparent"}, 400, "background", "invalid_value"),
        ({"moderation": "off"}, 400, "moderation", "invalid_value"),
        ({"partial_images": 2}, 400, "partial_images", "invalid_value"),
        ({"partial_images": 4, "stream": True}, 400, "partial_images", "invalid_value"),
        ({"stream": True, "response_format": "url"}, 400, "response_format", "invalid_value"),
        ({"colour": "red"}, 400, "colour", "unknown_parameter"),
        ({"model": "gpt-image-9"}, 404, "model", "model_not_found"),
        ({"model": "photo-x2"}, 400, "model", "invalid_value"),
    ],
)
def test_bad_parameters(fields: dict[str, Any], status: int, param: str, code: str, running: Running) -> None:
    answer = running.post("/v1/images/generations", json={"prompt": "a red cat", **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)
    assert error["type"] == "invalid_request_error" and error["message"][-1] == "."


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "missing_required_parameter"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_value"),
        (b"{}", "missing_required_parameter"),
        (b'{"prompt": "\xff"}', "invalid_json"),
        (b'{"prompt": "\\ud800"}', "invalid_json"),
        (b'{"prompt": NaN}', "invalid_value"),
        (b'{"a":' * 100_000, "invalid_json"),
    ],
)
def test_bad_bodies(body: bytes, code: str, running: Running) -> None:
    answer = running.post("/v1/images/generations", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_a_refused_prompt_names_the_categories(client: openai.OpenAI, running: Running) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="hardcore porn")
    assert caught.value.code == "moderation_blocked" and caught.value.param == "prompt"
    body: Any = caught.value.body
    assert body["moderation"]["categories"]["sexual"] and not body["moderation"]["categories"]["hate"]
    assert "porn" not in body["message"]
    assert running.metric("prompts_flagged_total", category="sexual") >= 1


@pytest.mark.parametrize(
    ("fields", "files", "param", "code"),
    [
        ({}, {}, "image", "missing_required_parameter"),
        ({}, {"image": b""}, "image", "invalid_image"),
        ({}, {"image": b"no picture"}, "image", "invalid_image"),
        ({}, {"image": picture_file()[:-40]}, "image", "invalid_image"),
        ({"scale": "0"}, {"image": picture_file()}, "scale", "invalid_value"),
        ({"scale": "nan"}, {"image": picture_file()}, "scale", "invalid_value"),
        ({"scale": "2", "size": "9x9"}, {"image": picture_file()}, "scale", "invalid_value"),
        ({"size": "big"}, {"image": picture_file()}, "size", "invalid_value"),
        ({"size": "99999x99999"}, {"image": picture_file()}, "size", "invalid_value"),
        ({"strength": "2"}, {"image": picture_file()}, "strength", "invalid_value"),
        ({"output_format": "bmp"}, {"image": picture_file()}, "output_format", "invalid_value"),
        ({"path": "/etc/passwd"}, {"image": picture_file()}, "path", "unknown_parameter"),
        ({"model": "icons"}, {"image": picture_file()}, "model", "invalid_value"),
        ({"image": "http://localhost/"}, {}, "image", "invalid_value"),
    ],
)
def test_bad_upscales(fields: dict[str, str], files: dict[str, bytes], param: str, code: str, running: Running) -> None:
    parts = {name: (None, value) for name, value in fields.items()} | {
        name: ("p", data) for name, data in files.items()
    }
    answer = running.post("/v1/images/upscale", files=parts or {"user": (None, "me")})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error


@pytest.mark.parametrize(
    ("files", "param", "code"),
    [
        ([("prompt", (None, "x"))], "image", "missing_required_parameter"),
        ([("image[]", ("p", picture_file()))] * 2, "image", "invalid_value"),
        (
            [("image", ("p", picture_file())), ("mask", ("m", picture_file(8, 8, alpha=True)))],
            "mask",
            "mask_size_mismatch",
        ),
        ([("image", ("p", picture_file())), ("mask", ("m", picture_file()))], "mask", "invalid_value"),
        ([("image", ("p", picture_file())), ("mask", ("m", b"?"))], "mask", "invalid_image"),
        ([("image", ("p", picture_file())), ("n", (None, "2"))], "n", "invalid_value"),
    ],
)
def test_bad_edits(files: list[Any], param: str, code: str, running: Running) -> None:
    answer = running.post("/v1/images/edits", files=files)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x",
        b"--x\r\n\r\n",
        b"--y\r\n",
        b'--x\r\ncontent-disposition: form-data; name="image"\r\n\r\nabc',
        b"\xff" * 999,
    ],
)
def test_broken_multipart(body: bytes, running: Running) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = running.post("/v1/images/upscale", content=body, headers=headers)
    assert answer.status_code == 400 and set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/v1/images/generations", 405)])
def test_routes_that_are_not_there(path: str, status: int, running: Running) -> None:
    answer = running.get(path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")


def test_every_answer_has_a_request_id(running: Running) -> None:
    own = running.get("/v1/models", headers={"x-request-id": "my-request-1"})
    assert own.headers["x-request-id"] == "my-request-1"
    odd = running.get("/nowhere", headers={"x-request-id": "<script>"})
    assert odd.headers["x-request-id"].startswith("req_")
