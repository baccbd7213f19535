"""`limner batch`: paints and upscales manifests, goes on where it was stopped, and survives what fails."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commandline import limner
from kit import make_bundle, photo
from painter_kit import make_painter

from limner import images
from limner.errors import UsageError
from limner.runtime import batch_job, batch_manifest
from limner.runtime.batch_job import FAILED
from limner.runtime.generate import Painter, Request


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    make_painter(folder / "kit")
    make_bundle(folder / "photo-kit")
    return folder


def manifest(path: Path, table: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in table), "utf-8")
    return path


def made(out: Path) -> dict[str, bytes]:
    paths = (path for path in out.rglob("*") if path.is_file() and ".limner" not in path.parts)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def batch(*words: object) -> int:
    return limner("batch", *map(str, words), "--threads", "1")


PROMPTS = [{"prompt": f"a red {thing}", "style": "flat"} for thing in ("apple", "cat", "dog", "house", "tree")]


def test_it_paints_what_the_painter_paints(bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = manifest(tmp_path / "m.jsonl", PROMPTS), tmp_path / "out"
    assert batch(source, out, "-m", bundles / "kit", "--json", "--chunk", 2) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["done"], told["skipped"], told["failed"]) == (5, 5, 0, 0)
    assert sorted(made(out)) == [f"000000/00000000{k}.png" for k in range(5)]
    picture = images.decode(out / "000000/000000003.png")
    (expected,) = Painter.load(bundles / "kit", threads=1).paint_batch([Request("a red house", 3, style="flat")])
    assert picture.alpha is not None
    assert np.array_equal(np.dstack([picture.pixels, picture.alpha]), expected)


def test_it_goes_on_where_it_was_stopped(bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = manifest(tmp_path / "m.jsonl", PROMPTS), tmp_path / "out"
    words = (source, out, "-m", bundles / "kit", "--json", "--chunk", 2)
    batch(*words)
    before = made(out)
    lost = out / "000000/000000002.png"
    lost.unlink()
    (out / ".limner/done/000001.json").unlink()  # as if it had been stopped inside the second chunk
    kept = (out / "000000/000000003.png").stat().st_mtime_ns
    capsys.readouterr()
    assert batch(*words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["skipped"]) == (1, 4)
    assert made(out) == before
    assert (out / "000000/000000003.png").stat().st_mtime_ns == kept


def test_it_upscales_what_it_can_and_tells_the_rest(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images.write(images.from_array(photo(12, 16)), tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    table = [
        {"input": "a.png"},
        {"input": "broken.png"},
        {"input": "missing.png"},
        {"input": "a.png", "width": 24, "output": "wide/a.webp"},
        {"prompt": "what?"},
    ]
    source, out = manifest(tmp_path / "m.jsonl", table), tmp_path / "out"
    words = (source, out, "-m", bundles / "photo-kit", "--quiet")
    assert batch(*words) == 1
    assert f"3 rows failed; {out / FAILED} tells why" in capsys.readouterr().err
    assert images.header(out / "000000/000000000.png") == (32, 24)
    assert images.header(out / "wide/a.webp") == (24, 18)
    failures = [json.loads(line) for line in (out / FAILED).read_text("utf-8").splitlines()]
    assert sorted(each["row"] for each in failures) == [1, 2, 4]
    # What was mended is made by the same command, and the list of failures gets shorter.
    for name in ("broken.png", "missing.png"):
        images.write(images.from_array(photo(8, 8)), tmp_path / name)
    assert batch(*words) == 1
    assert [json.loads(line)["row"] for line in (out / FAILED).read_text("utf-8").splitlines()] == [4]


def test_a_flagged_prompt_and_an_unknown_style_fail_alone(bundles: Path, tmp_path: Path) -> None:
    table = [{"prompt": "porn"}, {"prompt": "a red apple", "style": "cubist"}, {"prompt": "a red apple"}]
    source, out = manifest(tmp_path / "m.jsonl", table), tmp_path / "out"
    assert batch(source, out, "-m", bundles / "kit", "--quiet") == 1
    reasons = [json.loads(line)["reason"] for line in (out / FAILED).read_text("utf-8").splitlines()]
    assert "flagged as sexual" in reasons[0]
    assert "unknown style 'cubist'" in reasons[1]
    assert list(made(out)) == [FAILED, "000000/000000002.png"] or set(made(out)) == {FAILED, "000000/000000002.png"}


def test_another_bundle_does_not_go_on_with_the_job(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = manifest(tmp_path / "m.jsonl", PROMPTS[:1]), tmp_path / "out"
    batch(source, out, "-m", bundles / "kit")
    other = make_painter(tmp_path / "kit", seed=1)
    assert batch(source, out, "-m", other) == 2
    assert "was begun with another settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--format", "doc"], 2, "unknown format 'doc'"),
        (["--safety", "hihg"], 2, "unknown moderation level"),
        (["-m", "icnos"], 2, "unknown model"),
        (["--workers", "0"], 2, "workers"),
    ],
)
def test_wrong_requests_are_told_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    source = manifest(tmp_path / "m.jsonl", PROMPTS[:1])
    assert batch(source, tmp_path / "out", *words) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_processes_share_the_work(bundles: Path, tmp_path: Path) -> None:
    source = manifest(tmp_path / "m.jsonl", PROMPTS)
    assert batch(source, tmp_path / "one", "-m", bundles / "kit", "--quiet", "--chunk", 2) == 0
    assert batch(source, tmp_path / "two", "-m", bundles / "kit", "--quiet", "--chunk", 2, "-w", 2) == 0
    assert made(tmp_path / "one") == made(tmp_path / "two")


@pytest.mark.slow
def test_a_killed_job_leaves_whole_pictures_and_goes_on(bundles: Path, tmp_path: Path) -> None:
    source = manifest(tmp_path / "m.jsonl", [{"prompt": f"cat {k}"} for k in range(2000)])
    out = tmp_path / "out"
    code = "from limner.cli import main; main()"
    words = ["batch", str(source), str(out), "-m", str(bundles / "kit"), "--threads", "1", "--chunk", "50", "--quiet"]
    running = subprocess.Popen([sys.executable, "-c", code, *words])
    deadline = time.monotonic() + 120
    while len(list(out.glob("0*/*.png"))) < 100 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    there = list(out.glob("0*/*.png"))
    assert 100 <= len(there) < 2000
    assert all(images.decode(path).pixels.shape == (64, 64, 3) for path in there)
    assert batch(*words[1:5], "--chunk", "50", "--quiet") == 0
    assert len(list(out.glob("0*/*.png"))) == 2000


@pytest.mark.slow
def test_ray_does_the_same(bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    source = manifest(tmp_path / "m.jsonl", [*PROMPTS, {"prompt": "porn"}])
    words = ("-m", bundles / "kit", "--chunk", 2, "--json")
    assert batch(source, tmp_path / "one", *words) == 1
    alone = json.loads(capsys.readouterr().out)
    assert batch(source, tmp_path / "ray", *words, "--ray", "local") == 1
    together = json.loads(capsys.readouterr().out)
    assert {**alone, "seconds": 0} == {**together, "seconds": 0}
    assert made(tmp_path / "one") == made(tmp_path / "ray")


@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "auto"])
def test_a_cluster_that_does_not_answer(
    address: str, bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where no other cluster of this machine is noted
    source = manifest(tmp_path / "m.jsonl", PROMPTS[:1])
    start = time.monotonic()
    assert batch(source, tmp_path / "out", "-m", bundles / "kit", "--ray", address) == 2
    assert f"--ray {address}: no cluster is there" in capsys.readouterr().err
    assert time.monotonic() - start < 60


def test_what_listens_may_be_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    monkeypatch.setattr(batch_job, "HEALTH_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        with pytest.raises(UsageError, match="no Ray cluster"):
            batch_job._check_reachable(f"{host}:{port}")


@pytest.mark.slow
def test_a_cluster_by_address_whose_worker_dies(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A killed actor is started again and does once more what it held; nothing half written is left."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="the extra `cluster` is not installed")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    source, out = manifest(tmp_path / "m.jsonl", [{"prompt": f"a red house {k}"} for k in range(400)]), tmp_path / "out"
    (raylet,) = cluster.head_node.all_processes["raylet"]
    killer = threading.Thread(target=_kill_an_actor, args=(raylet.process.pid, out), daemon=True)
    killer.start()
    try:
        assert batch(source, out, "-m", bundles / "kit", "--ray", cluster.address, "--chunk", 4, "--json") == 0
    finally:
        cluster.shutdown()
    assert not killer.is_alive(), "no actor was killed"
    told = json.loads(capsys.readouterr().out)
    assert told["done"] + told["skipped"] == 400 and told["failed"] == 0
    assert len(list(out.rglob("*.png"))) == 400


def _kill_an_actor(raylet: int, out: Path) -> None:
    """SIGKILL for the first actor of our own cluster, once it has written something."""
    while True:
        for each in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                parent = int((each / "stat").read_text("utf-8").rpartition(")")[2].split()[1])
                if parent == raylet and b"MapWorker" in (each / "cmdline").read_bytes() and any(out.rglob("*.png")):
                    os.kill(int(each.name), signal.SIGKILL)
                    return
        time.sleep(0.05)


def test_what_ray_would_call_does_a_chunk(bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The actor and the job as Ray ships them: pickled, in another folder."""
    monkeypatch.chdir(tmp_path)
    source = manifest(Path("m.jsonl"), PROMPTS)
    plan = batch_manifest.plan(source, Path("out"), {}, chunk=3)
    relative = os.path.relpath(bundles / "kit")
    job = batch_job._portable(batch_job.Job(Path("out"), Path(), "paint", relative))
    assert job.threads == 1
    monkeypatch.chdir("/")
    actor = batch_job._Actor(pickle.loads(pickle.dumps(job)))
    rows = [actor({"chunk": str(tmp_path / chunk)}) for chunk in plan.chunks]
    assert rows == [{"done": 3, "skipped": 0, "failed": 0}, {"done": 2, "skipped": 0, "failed": 0}]
    assert sorted(made(tmp_path / "out")) == [f"000000/00000000{k}.png" for k in range(5)]
