"""Shares of the machine's limits, and the profile of the fused engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit import make_bundle, photo

from limner import bundle
from limner.errors import LimnerError
from limner.runtime import roofline
from limner.runtime.fused import native
from limner.runtime.roofline import Limits

REASON = native.unavailable()
built = pytest.mark.skipif(REASON is not None, reason=f"needs the extension: {REASON}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "small", scale=2)


def test_shares(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1000 multiply-accumulates and 15 bytes a pixel, and 1000 bytes of weights, against round limits."""
    monkeypatch.setattr(roofline, "limits", lambda: Limits(macs=1e9, bytes=1e8))
    monkeypatch.setattr(roofline, "cores", lambda: 2)
    manifest = bundle.read(folder).manifest
    for threads, share in ((1, 0.5), (2, 0.25), (8, 0.25)):
        peak, memory = roofline.shares(manifest, 100, 50, threads, 10.0) or (0, 0)
        assert peak == pytest.approx(share)
        assert memory == pytest.approx((5000 * 15 + 1000) / 1e8 / 0.01)


def test_nothing_is_measured_without_the_extension(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "unavailable", lambda: "not built")
    roofline.limits.cache_clear()
    assert roofline.shares(bundle.read(folder).manifest, 10, 10, 1, 1.0) is None
    roofline.limits.cache_clear()


def test_a_profile_needs_the_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_FUSED_ISA", "none")
    with pytest.raises(LimnerError, match="no profile, because the fused engine cannot run it"):
        roofline.profile(folder, photo(10, 10), 1, 1)


@built
def test_limits_are_plausible() -> None:
    found = roofline.limits()
    assert found is not None
    assert 1e8 < found.macs < 1e13 and 1e8 < found.bytes < 1e12


@built
def test_profile(folder: Path) -> None:
    stages = roofline.profile(folder, photo(60, 80), 1, 3)
    kinds = ["dense", "depthwise", "pointwise", "depthwise", "pointwise", "pointwise"]
    assert [stage.name.split()[1] for stage in stages] == kinds
    assert sum(stage.time_share for stage in stages) == pytest.approx(1)
    assert all(stage.ms > 0 and 0 < stage.peak_share < 2 for stage in stages)
