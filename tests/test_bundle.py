from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kit
import pytest

from limner import bundle
from limner.errors import LimnerError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return kit.make_bundle(tmp_path / "tiny")


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_reads_what_was_written(folder: Path) -> None:
    opened = bundle.read(folder)
    assert opened.graph("int8").is_file()
    assert opened.bytes == sum((folder / name).stat().st_size for name in opened.manifest.files)


def test_changed_file_is_refused(folder: Path) -> None:
    graph = bundle.read(folder).graph("int8")
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    with pytest.raises(LimnerError, match="sha256 differs"):
        bundle.read(folder)


def test_missing_file_is_refused(folder: Path) -> None:
    bundle.read(folder).graph("int8").unlink()
    with pytest.raises(LimnerError, match="missing"):
        bundle.read(folder)


def test_newer_format_is_refused(folder: Path) -> None:
    edit(folder, format=2, invention="of the future")
    with pytest.raises(LimnerError, match="format 2 is newer than 1"):
        bundle.read(folder)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\secret"])
def test_climbing_paths_are_refused(folder: Path, name: str) -> None:
    edit(folder, files={name: "0" * 64})
    with pytest.raises(LimnerError, match="climbs out"):
        bundle.read(folder)


def test_climbing_links_are_refused(folder: Path, tmp_path: Path) -> None:
    graph = bundle.read(folder).graph("int8")
    graph.rename(tmp_path / "outside.onnx")
    graph.symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(LimnerError, match="climbs out"):
        bundle.read(folder)


def test_unknown_keys_and_bad_json_are_refused(folder: Path) -> None:
    edit(folder, colour="RGB")
    with pytest.raises(LimnerError, match="colour"):
        bundle.read(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(LimnerError, match="not readable as JSON"):
        bundle.read(folder)


def test_graph_without_a_hash_is_refused(folder: Path) -> None:
    edit(folder, graphs={"int8": {"file": "other.onnx", "dtype": "uint8"}})
    with pytest.raises(LimnerError, match="no sha256"):
        bundle.read(folder)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown model 'photo-x9'"):
        bundle.read("photo-x9")
    with pytest.raises(LimnerError, match=r"no manifest\.json there"):
        bundle.read(tmp_path)


def test_precision_that_is_not_there(folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown precision 'int4'"):
        bundle.read(folder).graph("int4")  # type: ignore[arg-type]


def test_writing_replaces_a_bundle_but_nothing_else(folder: Path, tmp_path: Path) -> None:
    opened = bundle.read(folder)
    files = {name: folder / name for name in opened.manifest.files}
    assert bundle.write(folder, opened.manifest, files).manifest == opened.manifest
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "keep.txt").write_text("precious")
    with pytest.raises(LimnerError, match="not a bundle"):
        bundle.write(photos, opened.manifest, files)
    assert (photos / "keep.txt").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "tiny", "tiny-drafts"]


def test_failed_write_leaves_the_old_bundle(folder: Path, tmp_path: Path) -> None:
    opened = bundle.read(folder)
    with pytest.raises(OSError, match="absent"):
        bundle.write(folder, opened.manifest, {"int8.onnx": tmp_path / "absent.onnx"})
    assert bundle.read(folder).manifest == opened.manifest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny", "tiny-drafts"]


def cached_repository(cache: Path, name: str, content: Path) -> None:
    """What huggingface_hub leaves on disk after a download."""
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    shutil.copytree(content, folder / "snapshots" / ("0" * 40))


def read_offline(name: str, cache: Path) -> subprocess.CompletedProcess[str]:
    code = f"from limner import bundle; print(bundle.read({name!r}).manifest.name)"
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_hugging_face_id(folder: Path, tmp_path: Path) -> None:
    cached_repository(tmp_path / "hub", "someone/painter", folder)
    found = read_offline("someone/painter", tmp_path / "hub")
    assert found.stdout.strip() == bundle.read(folder).manifest.name, found.stderr
    missing = read_offline("someone/else", tmp_path / "hub")
    assert missing.returncode == 1
    assert "someone/else: no such folder, and Hugging Face gave no repository" in missing.stderr


def test_a_bundle_of_another_task_is_named(folder: Path) -> None:
    with pytest.raises(LimnerError, match="is a bundle for 'upscale', not for 'generate'"):
        bundle.read(folder, bundle.PainterManifest)
    edit(folder, task="sing")
    with pytest.raises(LimnerError, match="task 'sing' is none of upscale, text, generate"):
        bundle.read(folder)
