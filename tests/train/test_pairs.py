"""Pairs: painted once, taken up where they stopped, read back whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from painting_kit import make_icons, tiny_painting

from limner.config import PainterConfig
from limner.data.records import Record
from limner.errors import LimnerError
from limner.train.loop import train
from limner.train.pairs import noise_of, noises, read_pairs, recombined


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_icons(tmp_path_factory.mktemp("pairs") / "icons")
    train(tiny_painting("flow", folder, train={"images": 8}), folder, folder.with_name("teacher"))
    return folder


def test_pairs_are_written_once_and_missing_ones_again(data: Path, tmp_path: Path) -> None:
    config = tiny_painting("pairs", data, pairs={"teacher": str(data.with_name("teacher"))})
    run = tmp_path / "pairs"
    train(config, data, run)
    first, second = sorted(run.glob("pairs-*.safetensors"))
    stamp, painted = first.stat().st_mtime_ns, read_pairs(run)
    second.unlink()
    train(config, data, run)
    assert first.stat().st_mtime_ns == stamp
    found = read_pairs(run)
    # Two runs of a float network may differ in the last bit where the load moves work between threads.
    assert np.abs(found.pictures.astype(int) - painted.pictures.astype(int)).max() <= 1
    assert (found.seeds == painted.seeds).all()
    assert found.pictures.shape == (12, 64, 64, 4)
    assert found.pictures.dtype == np.uint8
    assert len(found.captions) == len(found.names) == len(found.seeds) == 12
    assert len(set(found.seeds.tolist())) == 12


def test_noise_belongs_to_its_seed() -> None:
    shape = PainterConfig(noise=3)
    assert noise_of(5, shape).shape == (16, 16, 3)
    assert np.array_equal(noise_of(5, shape), noise_of(5, shape))
    both = noises([5, 6], shape)
    assert both.shape == (2, 3, 16, 16)
    assert abs(both.mean().item()) < 0.1
    assert abs(both.std().item() - 1) < 0.1


def test_recombined_captions_take_another_style() -> None:
    def record(name: str, style: str) -> Record:
        return Record(name, f"{name}, {style}", name, "", "", style, None, {"name": name}, lambda: b"")

    records = [record("cat", "flat"), record("sword", "pixel art")]
    found = {recombined(records, np.random.default_rng(seed)) for seed in range(40)}
    assert found == {(f"{what}, {how}", "") for what in ("cat", "sword") for how in ("flat", "pixel art")}
    plain = Record("x.png", "some words", "x", "", "", "", None, {}, lambda: b"")
    assert recombined([plain], np.random.default_rng(0)) == ("some words", "x.png")


def test_faults_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match="holds no pairs"):
        read_pairs(tmp_path)
    (tmp_path / "pairs-000000.safetensors").write_bytes(b"nothing")
    with pytest.raises(LimnerError, match=r"pairs-000000\.safetensors: damaged"):
        read_pairs(tmp_path)
    with pytest.raises(LimnerError, match="is not a run folder"):
        train(tiny_painting("pairs", data, pairs={"teacher": str(tmp_path)}), data, tmp_path / "out")
