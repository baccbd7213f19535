"""Manifests: three forms, one meaning; what is wrong in a row fails that row alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from limner.errors import LimnerError, UsageError
from limner.runtime.batch_manifest import BadRow, PaintRow, UpscaleRow, plan, rows, task_of

PROMPTS: list[dict[str, Any]] = [
    {"prompt": "a red apple"},
    {"prompt": "a blue cat, sitting", "seed": 9, "style": "flat", "size": 128, "output": "cats/blue.webp"},
    {"prompt": "绿树", "negative": "leaf"},
]


def written(path: Path, table: list[dict[str, Any]]) -> Path:
    names = list(dict.fromkeys(name for row in table for name in row))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table), "utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(table)
    else:
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({name: [row.get(name) for row in table] for name in names}), path)
    return path


def planned(manifest: Path, out: Path, chunk: int = 256) -> list[Any]:
    made = plan(manifest, out, {"bundle": "b"}, chunk=chunk)
    return [row for part in made.chunks for row in rows(part, made.task)]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_every_form_says_the_same(tmp_path: Path, suffix: str) -> None:
    found = planned(written(tmp_path / f"m{suffix}", PROMPTS), tmp_path / "out")
    assert found == [
        PaintRow(row=0, output="000000/000000000.png", prompt="a red apple", seed=0),
        PaintRow(row=1, output="cats/blue.webp", prompt="a blue cat, sitting", seed=9, style="flat", size=128),
        PaintRow(row=2, output="000000/000000002.png", prompt="绿树", seed=2, negative="leaf"),
    ]


def test_rows_to_upscale(tmp_path: Path) -> None:
    manifest = written(tmp_path / "m.csv", [{"input": "a.png", "scale": 2}, {"input": "b.png", "width": 640}])
    assert task_of(manifest) == "upscale"
    assert planned(manifest, tmp_path / "out") == [
        UpscaleRow(row=0, output="000000/000000000.png", input="a.png", scale=2),
        UpscaleRow(row=1, output="000000/000000001.png", input="b.png", width=640),
    ]


def test_chunks_cover_all_rows_in_order(tmp_path: Path) -> None:
    manifest = written(tmp_path / "m.jsonl", [{"prompt": f"cat {k}"} for k in range(2001)])
    made = plan(manifest, tmp_path / "out", {}, chunk=500)
    assert [len(rows(part, "paint")) for part in made.chunks] == [500, 500, 500, 500, 1]
    assert rows(made.chunks[4], "paint")[0].output == "000002/000002000.png"  # pyright: ignore


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"seed": 1}, "prompt: Field required"),
        ({"prompt": ""}, "prompt: Field required"),
        ({"prompt": "cat", "seed": "x"}, "seed: Input should be a valid integer"),
        ({"prompt": "cat", "seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"prompt": "cat", "output": "../out.png"}, "does not stay inside"),
        ({"prompt": "cat", "output": "/etc/out.png"}, "does not stay inside"),
        ({"prompt": "cat", "output": ".limner/job.json"}, "does not stay inside"),
        ({"prompt": "cat", "output": "cat.doc"}, "unknown suffix"),
        ([1, 2], "is not a JSON object"),
    ],
)
def test_a_wrong_row_fails_alone(tmp_path: Path, row: Any, reason: str) -> None:
    manifest = written(tmp_path / "m.jsonl", [{"prompt": "a red apple"}, row, {"prompt": "a blue cat"}])
    good, bad, after = planned(manifest, tmp_path / "out")
    assert isinstance(bad, BadRow)
    assert bad.reason.startswith("row 1: ")
    assert reason in bad.reason
    assert (good.prompt, after.prompt) == ("a red apple", "a blue cat")


def test_lines_that_are_no_json_or_no_text_fail_alone(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_bytes(b'{"prompt": "cat"}\n{"prompt":\n{"prompt": "\xff"}\n\n{"prompt": "dog"}\n')
    kinds = [type(row) for row in planned(manifest, tmp_path / "out")]
    assert kinds == [PaintRow, BadRow, BadRow, PaintRow]


def test_scale_and_width_exclude_each_other(tmp_path: Path) -> None:
    manifest = written(tmp_path / "m.jsonl", [{"input": "a.png", "scale": 2, "width": 64}])
    (bad,) = planned(manifest, tmp_path / "out")
    assert "scale excludes width and height" in bad.reason


def test_two_rows_with_one_output_are_refused(tmp_path: Path) -> None:
    same = {"prompt": "cat", "output": "cat.png"}
    manifest = written(tmp_path / "m.jsonl", [same, {"prompt": "dog"}, same])
    with pytest.raises(UsageError, match="rows 0 and 2 have the same output"):
        planned(manifest, tmp_path / "out")
    assert not (tmp_path / "out/.limner/job.json").exists()


def test_a_job_goes_on_only_with_what_began_it(tmp_path: Path) -> None:
    manifest, out = written(tmp_path / "m.jsonl", PROMPTS), tmp_path / "out"
    first = plan(manifest, out, {"bundle": "b"}, chunk=2)
    assert plan(manifest, out, {"bundle": "b"}, chunk=99) == first
    with pytest.raises(UsageError, match="was begun with another settings"):
        plan(manifest, out, {"bundle": "c"})
    written(manifest, PROMPTS[:2])
    with pytest.raises(UsageError, match="was begun with another manifest"):
        plan(manifest, out, {"bundle": "b"})


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.txt", b"cat", "is no manifest"),
        ("m.jsonl", b"", "holds no rows"),
        ("m.jsonl", b'{"text": "cat"}', "neither 'prompt' nor 'input'"),
        ("m.jsonl", b'{"prompt": "cat", "input": "cat.png"}', "both 'prompt' and 'input'"),
        ("m.csv", b"prompt\n\xff\xfe", "is not CSV in UTF-8"),
        ("m.parquet", b"cat", "is not a Parquet file"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="the extra `cluster` is not installed")
    manifest = tmp_path / name
    manifest.write_bytes(data)
    with pytest.raises(LimnerError, match=message):
        planned(manifest, tmp_path / "out")


def test_a_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match=r"none\.csv: cannot be read"):
        plan(tmp_path / "none.csv", tmp_path / "out", {})
