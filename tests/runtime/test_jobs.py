"""The batch job: what becomes what, and a pipeline that goes on, skips, overlaps and leaves nothing half written."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from limner import images
from limner.errors import LimnerError, UsageError
from limner.images import Picture
from limner.runtime import jobs
from limner.runtime.jobs import PIPE, Item, Result, plan, run


def save(path: Path, value: int = 100, side: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(Picture(np.full((side, side, 3), value, np.uint8)), path)
    return path


def double(picture: Picture) -> Picture:
    return Picture(picture.pixels.repeat(2, 0).repeat(2, 1))


def targets(items: list[Item]) -> list[str]:
    return [str(item.target) for item in items]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, so that plans can be written with relative names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(folder: Path) -> Path:
    for name in ("photos/a.png", "photos/trip/b.jpg", "photos/.hidden/c.png", "photos/.d.png"):
        save(folder / name)
    (folder / "photos/notes.txt").write_text("no picture")
    return Path("photos")


# --------------------------------------------------------------------------------------------------------- planning


@pytest.mark.parametrize(
    ("inputs", "out", "format", "expected"),
    [
        (["a.png"], None, None, ["a-x4.png"]),
        (["in/a.jpg"], None, None, ["in/a-x4.jpg"]),
        (["a.gif"], None, None, ["a-x4.png"]),
        (["a.JPG"], None, "webp", ["a-x4.webp"]),
        (["a.png"], "big.png", None, ["big.png"]),
        (["a.png"], "big.jpg", "jpeg", ["big.jpg"]),
        (["a.png"], "big", None, ["big/a.png"]),
        (["in/a.png"], "v1.0/", None, ["v1.0/a.png"]),
        (["a.png", "in/b.gif"], "big", None, ["big/a.png", "big/b.png"]),
        (["two.dots.png"], "big", "jpg", ["big/two.dots.jpg"]),
        (["-"], None, None, ["-"]),
        (["-"], "a.webp", None, ["a.webp"]),
        (["a.png"], "-", None, ["-"]),
        (["photos"], None, None, ["photos/a-x4.png", "photos/trip/b-x4.jpg"]),
        (["photos"], "big", None, ["big/a.png", "big/trip/b.jpg"]),
        (["photos"], "photos", "webp", ["photos/a.webp", "photos/trip/b.webp"]),
        (["photos/*.png"], "big", None, ["big/a.png"]),
        (["photos/**/*.*"], "big", None, ["big/a.png", "big/trip/b.jpg"]),
        (["photos/*/b.jpg"], None, None, ["photos/trip/b-x4.jpg"]),
        (["photos/a.png", "./photos/../photos/a.png"], None, None, ["photos/a-x4.png"]),
    ],
)
def test_where_outputs_go(
    photos: Path, inputs: list[str], out: str | None, format: str | None, expected: list[str]
) -> None:
    assert targets(plan(inputs, out, tag="-x4", format=format)) == expected


def test_an_existing_folder_may_look_like_a_file(folder: Path) -> None:
    (folder / "big.png").mkdir()
    assert targets(plan(["a.jpg"], "big.png")) == ["big.png/a.jpg"]


def test_a_name_with_pattern_signs_is_a_name_where_it_exists(folder: Path) -> None:
    save(folder / "a[1].png")
    assert targets(plan(["a[1].png"], tag="-x4")) == ["a[1]-x4.png"]


def test_a_folder_can_be_done_again(photos: Path) -> None:
    first = plan(["photos"], tag="-x4")
    for item in first:
        save(item.target)
    assert plan(["photos"], tag="-x4") == first
    assert plan(["photos/a.png", "photos/a-x4.png"], tag="-x4") == first[:1]


def test_an_output_folder_inside_the_input_is_not_an_input(photos: Path) -> None:
    first = plan(["photos"], "photos/big")
    for item in first:
        save(item.target)
    assert plan(["photos"], "photos/big") == first
    assert plan(["photos/**/*.png"], "photos/big") == first[:1]


def test_the_format_follows_the_target(folder: Path) -> None:
    assert [plan(["a.jpg"], out, tag="-x4")[0].format for out in (None, "b.tif", "-")] == ["jpeg", "tiff", "png"]
    assert plan(["-"], format="webp")[0].format == "webp"


@pytest.mark.parametrize(
    ("inputs", "out", "format", "words"),
    [
        (["photos/a.png"], "photos/a.png", None, "would replace an input"),
        (["photos/a.png"], "photos", None, "would replace an input"),
        (["photos"], "photos", None, "would replace an input"),
        (["a.png", "in/a.png"], "big", None, "both become big/a.png"),
        (["a.png", "a.jpg"], None, "webp", "both become a-x4.webp"),
        (["a.png", "b.png"], "big.png", None, "one output for several inputs"),
        (["photos"], "big.png", None, "one output for several inputs"),
        (["photos/*"], "-", None, "one output for several inputs"),
        (["a.png"], "big.bmp", None, "unknown suffix '.bmp'"),
        (["a.png"], None, "pgn", "unknown format 'pgn': did you mean 'png'"),
        (["a.png"], "big.png", "jpg", "does not go with --format jpg"),
        (["-"], "big", None, "has no name"),
        (["photos/a**"], None, None, "is not a pattern"),
    ],
)
def test_what_cannot_be_planned(
    photos: Path, inputs: list[str], out: str | None, format: str | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        plan(inputs, out, tag="-x4", format=format)


def test_without_a_tag_the_input_would_be_replaced(photos: Path) -> None:
    with pytest.raises(UsageError, match="would replace an input"):
        plan(["photos/a.png"], tag="")


def test_a_link_to_the_input_is_the_input(folder: Path) -> None:
    save(folder / "a.png")
    (folder / "link.png").symlink_to("a.png")
    with pytest.raises(UsageError, match="would replace an input"):
        plan(["a.png"], "link.png")


@pytest.mark.parametrize("word", ["empty", "photos/*.webp"])
def test_folders_and_patterns_need_pictures(photos: Path, word: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(LimnerError, match="no pictures there"):
        plan([word])


# ---------------------------------------------------------------------------------------------------------- running


def test_every_picture_is_made(photos: Path) -> None:
    reports: list[Result] = []
    summary = run(plan(["photos"], "big"), double, report=reports.append)
    assert [result.item.target for result in summary.done] == [Path("big/a.png"), Path("big/trip/b.jpg")]
    assert reports == summary.done
    assert images.header("big/trip/b.jpg") == (16, 16)
    assert (images.decode("big/a.png").pixels == 100).all()


def test_what_is_done_is_skipped_unless_told(photos: Path) -> None:
    save(Path("big/a.png"), value=1)
    items = plan(["photos"], "big")
    summary = run(items, double)
    assert [len(part) for part in (summary.done, summary.skipped, summary.failed)] == [1, 1, 0]
    assert images.decode("big/a.png").pixels[0, 0, 0] == 1
    assert len(run(items, double, overwrite=True).done) == 2
    assert images.decode("big/a.png").pixels[0, 0, 0] == 100


def test_it_goes_on_after_every_kind_of_error(folder: Path) -> None:
    save(folder / "in/good.png")
    save(folder / "in/odd.png", value=7)
    save(folder / "in/worse.png", value=8)
    (folder / "in/broken.png").write_bytes(save(folder / "x.png").read_bytes()[:60])
    (folder / "in/text.png").write_text("no picture")

    def picky(picture: Picture) -> Picture:
        if picture.pixels[0, 0, 0] == 7:
            raise LimnerError("7 is refused.")
        if picture.pixels[0, 0, 0] == 8:
            raise RuntimeError("engine fault")
        return double(picture)

    summary = run([*plan(["in"], "out"), *plan(["missing.png"], "out")], picky)
    assert [result.item.source.name for result in summary.done] == ["good.png"]
    reasons = {result.item.source.name: result.reason for result in summary.failed}
    assert set(reasons) == {"broken.png", "missing.png", "odd.png", "text.png", "worse.png"}
    assert all(name in reason for name, reason in reasons.items())
    assert reasons["odd.png"] == "in/odd.png: 7 is refused."
    assert "RuntimeError: engine fault" in reasons["worse.png"]
    assert [path.name for path in Path("out").iterdir()] == ["good.png"]


def test_a_target_that_cannot_be_written_fails_before_the_work(folder: Path) -> None:
    save(folder / "a.png")
    (folder / "file").write_text("in the way")
    painted: list[Picture] = []
    summary = run([Item(Path("a.png"), Path("file/a.png"), "png")], lambda p: painted.append(p) or p)
    assert "not a folder that can be written to" in summary.failed[0].reason
    assert not painted


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(picture: Picture, path: Path, **options: object) -> None:
        with open("/dev/full", "wb", buffering=0) as file:  # noqa: PTH123
            file.write(b"x")

    save(folder / "a.png")
    monkeypatch.setattr(images, "write", full)
    (failure,) = run(plan(["a.png"], "out"), double).failed
    assert failure.reason == "out/a.png: cannot be written (No space left on device); choose another -o."


def test_a_bomb_is_refused_by_its_size(folder: Path) -> None:
    save(folder / "a.png", side=20)
    assert "limit of 399" in run(plan(["a.png"], "big"), double, max_pixels=399).failed[0].reason
    assert run(plan(["a.png"], "big"), double, max_pixels=400).done


def test_stdin_to_stdout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, taken = io.BytesIO(save(folder / "a.png").read_bytes()), io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(given))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(taken))
    assert len(run(plan(["-"], format="webp"), double).done) == 1
    assert taken.getvalue()[8:12] == b"WEBP"
    assert images.header(taken.getvalue()) == (16, 16)


def test_a_reader_that_left_ends_the_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as broken:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(broken.raw)))  # type: ignore[attr-defined]
        with pytest.raises(BrokenPipeError):
            run([Item(save(folder / "a.png"), PIPE, "png")], double)


def test_decoding_painting_and_encoding_overlap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [save(folder / f"in/{i}.png").name for i in range(6)]
    monkeypatch.setattr(images, "decode", slow(images.decode))
    monkeypatch.setattr(images, "write", slow(images.write))
    start = time.perf_counter()
    summary = run(plan(["in"], "out"), slow(double))
    spent = time.perf_counter() - start
    assert [result.item.source.name for result in summary.done] == names
    assert spent < 0.75 * 3 * PAUSE * len(names)


PAUSE = 0.05


def slow(function: Callable) -> Callable:
    def paused(*arguments: object, **options: object) -> object:
        time.sleep(PAUSE)
        return function(*arguments, **options)

    return paused


def test_pictures_in_memory_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(8):
        save(folder / f"in/{i}.png")
    alive, most, lock = 0, 0, threading.Lock()

    def count(change: int) -> None:
        nonlocal alive, most
        with lock:
            alive += change
            most = max(most, alive)

    def counted(picture: Picture) -> Picture:
        count(1)
        return double(picture)

    def write(picture: Picture, path: Path, **options: object) -> None:
        time.sleep(0.02)
        count(-1)

    monkeypatch.setattr(images, "write", write)
    monkeypatch.setattr(jobs, "PENDING_BYTES", 0)
    assert len(run(plan(["in"], "out"), counted).done) == 8
    assert most == 1
    monkeypatch.setattr(jobs, "PENDING_BYTES", 2 * 16 * 16 * 3)
    assert len(run(plan(["in"], "out"), counted).done) == 8
    assert 1 < most <= jobs.ENCODERS + 1


def test_an_interrupt_leaves_nothing_half_written(photos: Path) -> None:
    save(photos / "aa.png")

    def interrupted(picture: Picture) -> Picture:
        if Path("big/a.png").exists():
            raise KeyboardInterrupt
        return double(picture)

    with pytest.raises(KeyboardInterrupt):
        run([*plan(["photos/a.png"], "big"), *plan(["photos"], "big2")], waiting_for(Path("big/a.png"), interrupted))
    assert [str(path) for path in sorted(Path("big").iterdir())] == ["big/a.png"]
    assert images.header("big/a.png") == (16, 16)
    assert not Path("big2").exists()


def waiting_for(path: Path, upscale: Callable[[Picture], Picture]) -> Callable[[Picture], Picture]:
    """From the second picture on, wait until `path` has been written."""
    calls: list[Picture] = []

    def painted(picture: Picture) -> Picture:
        calls.append(picture)
        while len(calls) > 1 and not path.exists():
            time.sleep(0.005)
        return upscale(picture)

    return painted
