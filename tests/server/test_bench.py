"""`limner bench --server` against a server of the test; the figures of a busy machine are not judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commandline import limner
from server_kit import Running

from limner.server import bench


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "ROUND_S", 0.3)
    monkeypatch.setattr(bench, "IDLE_REQUESTS", 2)


@pytest.mark.usefixtures("hasty")
def test_a_running_server_is_measured(running: Running, zoo: Path, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    words = ["--server", running.url, "--clients", "3", "--soak", "1", "--json", str(target)]
    assert limner("bench", str(zoo / "icons"), *words) == 0
    report = bench.ServerReport.model_validate(json.loads(target.read_text()))
    assert report.idle is not None and report.idle.server_ms > 0 and report.idle.bare_ms > 0
    assert report.load is not None and report.load.clients == 3 and report.load.share > 0
    assert report.soak is not None and (report.soak.lost, report.soak.wrong) == (0, 0)
    assert set(report.soak.statuses) <= {"200", "503"} and report.soak.memory_last > 50
    assert report.stop is None and report.cold_start_s is None


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
def test_a_server_of_its_own_is_started_and_stopped(zoo: Path) -> None:
    report = bench.bench("local", str(zoo / "icons"), clients=8, threads=2)
    assert report.cold_start_s is not None and report.cold_start_s > 0
    assert report.stop is not None and (report.stop.lost, report.stop.exit_code) == (0, 0)
    assert report.stop.answered > 0


@pytest.mark.parametrize("where", ["nowhere", "https://127.0.0.1:1"])
def test_a_bad_url_is_told(where: str, zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("bench", str(zoo / "icons"), "--server", where) == 2
    assert "--server" in capsys.readouterr().err
