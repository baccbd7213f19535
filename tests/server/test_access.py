"""API keys and buckets; and a server with keys, through OpenAI's client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from server_kit import Running, configured, picture_file, serving

from limner.server.access import Bucket, digest, new_key

KEY, REVOKED, SLOW, SMALL = "lim-good", "lim-revoked", "lim-slow", "lim-small"


@pytest.fixture(scope="module")
def guarded(zoo: Path) -> Iterator[Running]:
    keys = (
        {"name": "shop", "sha256": digest(KEY)},
        {"name": "old", "sha256": digest(REVOKED), "revoked": True},
        {"name": "slow", "sha256": digest(SLOW), "requests_per_minute": 2},
        {"name": "small", "sha256": digest(SMALL), "pixels_per_minute": 64 * 64},
    )
    with serving(configured(zoo, keys=keys)) as each:
        yield each


def client(running: Running, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0)


def test_a_bucket_refills_and_may_go_into_debt() -> None:
    now = [0.0]
    bucket = Bucket(60, lambda: now[0])
    assert bucket.take(100) == 0
    assert bucket.take(1) == 41
    now[0] = 41.0
    assert bucket.take(1) == 0
    assert bucket.take(1) == 1
    now[0] = 1000.0
    assert bucket.left() == (60, 0)


def test_no_limit_is_no_limit() -> None:
    assert all(Bucket(0).take(10**9) == 0 for _ in range(3))


def test_new_keys_differ_and_are_known_by_their_hash() -> None:
    (first, hashed), (second, _) = new_key(), new_key()
    assert first != second and hashed == digest(first) and len(first) > 40


def test_a_good_key_paints(guarded: Running) -> None:
    assert client(guarded, KEY).images.generate(prompt="a red cat").data


@pytest.mark.parametrize(
    ("key", "code"), [("lim-wrong", "invalid_api_key"), (REVOKED, "revoked_api_key"), ("Ж", "invalid_api_key")]
)
def test_bad_keys(key: str, code: str, guarded: Running) -> None:
    answer = guarded.get("/v1/models", headers={b"authorization": b"Bearer " + key.encode()})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert key not in answer.text


@pytest.mark.parametrize("header", [None, "", "Basic abc", "Bearer"])
def test_a_missing_key(header: str | None, guarded: Running) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = guarded.post("/v1/images/generations", json={"prompt": "a cat"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_api_key")


def test_the_client_raises_its_own_errors(guarded: Running) -> None:
    with pytest.raises(openai.AuthenticationError):
        client(guarded, "lim-wrong").models.list()


def test_requests_are_limited_by_key(guarded: Running) -> None:
    slow = client(guarded, SLOW)
    first = slow.models.with_raw_response.list()
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    slow.models.list()
    with pytest.raises(openai.RateLimitError) as caught:
        slow.models.list()
    assert caught.value.code == "rate_limit_exceeded" and 1 <= int(caught.value.response.headers["retry-after"]) <= 60
    assert client(guarded, KEY).models.list().data


def test_pixels_are_limited_by_key(guarded: Running) -> None:
    small = client(guarded, SMALL)
    assert small.images.generate(prompt="a red cat", size="128x128").data
    with pytest.raises(openai.RateLimitError) as caught:
        small.images.generate(prompt="a red cat")
    assert caught.value.type == "pixels"
    headers = {"authorization": f"Bearer {SMALL}"}
    answer = guarded.post("/v1/images/upscale", files={"image": picture_file()}, headers=headers)
    assert answer.status_code == 429


def test_health_and_results_need_no_key(guarded: Running) -> None:
    assert guarded.get("/livez").status_code == guarded.get("/readyz").status_code == 200
    result = client(guarded, KEY).images.generate(prompt="a red cat", response_format="url")
    assert result.data and result.data[0].url
    assert guarded.get(result.data[0].url.removeprefix(guarded.url)).status_code == 200
