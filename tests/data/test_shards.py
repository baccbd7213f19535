from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from limner.config import DataConfig
from limner.data.records import Record, open_records
from limner.data.shards import expand, stream, write_shards
from limner.errors import LimnerError, UsageError

CONFIG = DataConfig(validation_fraction=0)


def make(count: int, split: str | None = None) -> list[Record]:
    return [
        Record(
            name=f"sub/p.{i}.PNG",
            text=f"picture {i}, é",
            group=f"g{i // 2}",
            license="MIT" if i % 2 else "CC0-1.0",
            source="s",
            style="flat",
            split=split,  # type: ignore[arg-type]
            extra={"number": i, "tags": ["a", None]},
            read=lambda i=i: bytes([i]) * (i + 1),
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    assert [path.name for path in write_shards(make(50), folder, per_shard=10)] == [f"{i:06d}.tar" for i in range(5)]
    return folder


def numbers(shards: Path, **choice: Any) -> list[int]:
    return [r.extra["number"] for r in stream(f"{shards}/{{000000..000004}}.tar", CONFIG, **choice)]


def test_written_shards_open_as_the_same_records(tmp_path: Path) -> None:
    before = make(7, split="validation")
    write_shards(before, tmp_path / "new", per_shard=3)
    after = open_records(tmp_path / "new", CONFIG)
    assert [r.name for r in after][:4] == [f"00000{i // 3}.tar/0000000{i}.png" for i in range(4)]
    for old, new in zip(before, after, strict=True):
        assert (new.text, new.group, new.license, new.style, new.split) == (
            old.text,
            old.group,
            old.license,
            "flat",
            "validation",
        )
        assert (new.extra, new.read()) == (old.extra, old.read())


def test_the_same_records_give_the_same_bytes(tmp_path: Path, shards: Path) -> None:
    again = write_shards(make(50), tmp_path, per_shard=10)
    assert [path.read_bytes() for path in again] == [(shards / path.name).read_bytes() for path in again]


def test_streaming_gives_every_record_with_its_bytes(shards: Path) -> None:
    found = list(stream(f"{shards}/{{000000..000004}}.tar", CONFIG, buffer=1))
    assert sorted(r.extra["number"] for r in found) == list(range(50))
    assert all(r.read() == bytes([r.extra["number"]]) * (r.extra["number"] + 1) for r in found)


def test_order_depends_on_seed_and_epoch_alone(shards: Path) -> None:
    first = numbers(shards, seed=1, epoch=2)
    assert first == numbers(shards, seed=1, epoch=2)
    assert first != numbers(shards, seed=1, epoch=3)
    assert first != numbers(shards, seed=2, epoch=2)


def test_the_buffer_mixes_shards(shards: Path) -> None:
    ordered, mixed = numbers(shards, buffer=1), numbers(shards, buffer=50)
    assert [n % 10 for n in ordered] == [*range(10)] * 5
    assert [n // 10 for n in ordered] != [0] * 10 + [1] * 10 + [2] * 10 + [3] * 10 + [4] * 10
    assert len({n // 10 for n in mixed[:10]}) > 2


def test_skip_resumes_the_same_sequence(shards: Path) -> None:
    whole = numbers(shards, epoch=1, buffer=8)
    assert numbers(shards, epoch=1, buffer=8, skip=33) == whole[33:]


def test_ranks_share_the_records_without_overlap(shards: Path) -> None:
    parts = [numbers(shards, epoch=4, rank=rank, world=3) for rank in range(3)]
    assert [len(part) for part in parts] == [20, 20, 10]
    assert sorted(number for part in parts for number in part) == list(range(50))
    with pytest.raises(UsageError, match="5 shards cannot feed 6 processes"):
        numbers(shards, world=6)


def test_filters_and_splits_apply_to_streams(shards: Path) -> None:
    url = f"{shards}/{{000000..000004}}.tar"
    config = DataConfig(licenses=("mit",), validation_fraction=0.4)
    halves = [{r.extra["number"] for r in stream(url, config, split=split)} for split in ("train", "validation")]
    assert halves[0] | halves[1] == set(range(1, 50, 2))
    assert halves[1] and not halves[0] & halves[1]
    known = {r.extra["number"]: r for r in open_records(shards, config)}
    assert {known[n].group for n in halves[0]}.isdisjoint(known[n].group for n in halves[1])


def test_pipe_commands_stream_the_same(shards: Path) -> None:
    piped = stream(f"pipe:cat {shards}/{{000000..000004}}.tar", CONFIG, epoch=1)
    assert [r.extra["number"] for r in piped] == numbers(shards, epoch=1)


def test_expand_takes_lists_and_braces() -> None:
    assert expand(["a/{00..02}.tar", "b.tar"]) == ["a/00.tar", "a/01.tar", "a/02.tar", "b.tar"]
    with pytest.raises(UsageError, match="braces do not match"):
        expand("a/{00..02.tar")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nowhere.tar", "nowhere.tar: cannot be read as a shard .no such file"),
        ("pipe:exit 3", "pipe:exit 3: cannot be read as a shard"),
        ("nothing://x.tar", "no gopen handler"),
    ],
)
def test_bad_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LimnerError, match=message) as caught:
        list(stream(url, CONFIG))
    assert "\n" not in str(caught.value)


def test_a_truncated_shard_is_an_error(tmp_path: Path, shards: Path) -> None:
    cut = shutil.copy(shards / "000004.tar", tmp_path)
    with Path(cut).open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(LimnerError, match=r"000004\.tar: cannot be read as a shard"):
        list(stream(str(cut), CONFIG))


def test_writing_refuses_what_it_cannot_finish(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(LimnerError, match="holds shards already"):
        write_shards(make(1), shards)
    with pytest.raises(LimnerError, match="no pictures to write"):
        write_shards([], tmp_path)
    with pytest.raises(UsageError, match="per_shard=0"):
        write_shards(make(1), tmp_path, per_shard=0)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LimnerError, match="cannot be made a folder"):
        write_shards(make(1), tmp_path / "file")


def test_a_picture_that_vanished_leaves_no_half_shard(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(b"x")
    records = open_records(tmp_path / "in", CONFIG)
    (tmp_path / "in" / "b.png").unlink()
    with pytest.raises(LimnerError, match=r"000000\.tar: cannot be written"):
        write_shards(records, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
