"""Depthwise convolutions: torch's own, with gradients from a loop of ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from limner.models import depthwise
from limner.models.depthwise import Conv2d, conv2d, kernel_gradient, runs_here

compiled = pytest.mark.skipif(depthwise.library() is None, reason="needs the compiled loop")


def picture(
    channels: int = 32, height: int = 9, width: int = 14, pictures: int = 3, dtype: torch.dtype = torch.float32
) -> Tensor:
    x = torch.randn(pictures, channels, height, width).to(dtype, memory_format=torch.channels_last)
    return x.requires_grad_()


def gradients(out: Tensor, *of: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape).to(memory_format=torch.channels_last)
    return list(torch.autograd.grad((out.float() * weights).sum(), of))


@compiled
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", [(9, 14), (1, 1), (2, 1), (1, 33), (48, 48)])
@pytest.mark.parametrize("channels", [16, 96])
def test_gradients_are_those_of_torch(kernel: int, size: tuple[int, int], channels: int) -> None:
    torch.manual_seed(0)
    x = picture(channels, *size)
    weight, bias = torch.randn(channels, 1, kernel, kernel).requires_grad_(), torch.randn(channels).requires_grad_()
    assert runs_here(x, weight)
    ours = conv2d(x, weight, bias, padding=kernel // 2, groups=channels)
    theirs = F.conv2d(x, weight, bias, padding=kernel // 2, groups=channels)
    torch.testing.assert_close(ours, theirs)
    pairs = zip(gradients(ours, x, weight, bias), gradients(theirs, x, weight, bias), strict=True)
    for own, other in pairs:
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-3)


@compiled
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_bfloat16_is_summed_in_float(kernel: int) -> None:
    torch.manual_seed(0)
    x, gradient = (picture(dtype=torch.bfloat16).detach() for _ in range(2))
    own, bias = kernel_gradient(x, gradient, kernel)
    exact = torch.nn.grad.conv2d_weight(
        x.double(), (32, 1, kernel, kernel), gradient.double(), padding=kernel // 2, groups=32
    )
    torch.testing.assert_close(own.double(), exact, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(bias.double(), gradient.double().sum((0, 2, 3)), rtol=1e-5, atol=1e-4)


@compiled
def test_autocast_computes_in_its_type_and_gives_gradients_in_the_weights_own() -> None:
    torch.manual_seed(0)
    x, weight, bias = picture(), torch.randn(32, 1, 5, 5).requires_grad_(), torch.randn(32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = conv2d(x, weight, bias, padding=2, groups=32)
        theirs = F.conv2d(x, weight, bias, padding=2, groups=32)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, theirs)
    found = gradients(out, x, weight, bias)
    assert {part.dtype for part in found} == {torch.float32}
    for own, other in zip(
        found, gradients(F.conv2d(x, weight, bias, padding=2, groups=32), x, weight, bias), strict=True
    ):
        assert (own - other).norm() < 0.02 * other.norm()


@compiled
def test_threads_share_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, gradient = picture(pictures=5).detach(), picture(pictures=5).detach()
    alone = kernel_gradient(x, gradient, 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    shared, again = (kernel_gradient(x, gradient, 3) for _ in range(2))
    for one, several, repeated in zip(alone, shared, again, strict=True):
        torch.testing.assert_close(one, several, rtol=1e-5, atol=1e-4)
        assert torch.equal(several, repeated)


@pytest.mark.parametrize(
    "change",
    [{"stride": 2}, {"padding": 0}, {"groups": 16}, {"channels": 20}, {"kernel": 1}, {"kernel": 9}],
    ids=str,
)
def test_what_it_does_not_do_is_left_to_torch(change: dict[str, int]) -> None:
    torch.manual_seed(0)
    asked = {"channels": 32, "kernel": 3, "stride": 1, "padding": None, "groups": None} | change
    channels, kernel = asked["channels"] or 0, asked["kernel"] or 0
    groups, padding = asked["groups"] or channels, kernel // 2 if asked["padding"] is None else asked["padding"]
    x = picture(channels)
    weight = torch.randn(channels, channels // groups, kernel, kernel).requires_grad_()
    out = conv2d(x, weight, None, asked["stride"] or 1, padding, groups)
    assert "Depthwise" not in type(out.grad_fn).__name__
    assert torch.equal(out, F.conv2d(x, weight, None, asked["stride"] or 1, padding, groups=groups))


def test_without_the_library_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise, "library", lambda: None)
    x, weight = picture(), torch.randn(32, 1, 3, 3).requires_grad_()
    assert "Depthwise" not in type(conv2d(x, weight, padding=1, groups=32).grad_fn).__name__


@compiled
def test_a_layer_uses_it_in_channels_last_memory_alone() -> None:
    layer, x = Conv2d(32, 32, 3, padding=1, groups=32), picture()
    assert "Depthwise" in type(layer(x).grad_fn).__name__
    assert "Depthwise" not in type(layer(x.contiguous()).grad_fn).__name__
    with torch.no_grad():
        assert torch.equal(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1, groups=32))


@compiled
def test_only_what_is_asked_for_is_differentiated() -> None:
    x, weight = picture().detach(), torch.randn(32, 1, 3, 3).requires_grad_()
    (found,) = torch.autograd.grad(conv2d(x, weight, padding=1, groups=32).sum(), weight)
    assert found.shape == weight.shape
    x = picture()
    (of_input,) = torch.autograd.grad(conv2d(x, weight.detach(), padding=1, groups=32).sum(), x)
    assert of_input.shape == x.shape


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_loop_is_clean_under_sanitizers(tmp_path: Path) -> None:
    source = Path(depthwise.__file__).parent / "csrc" / "depthwise.cpp"
    (tmp_path / "main.cpp").write_text(DRIVER, "utf-8")
    program = tmp_path / "driver"
    flags = ["-std=c++17", "-O1", "-g", "-w", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["g++", *flags, tmp_path / "main.cpp", source, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


DRIVER = """
#include <cstddef>
#include <cstdint>
#include <vector>
extern "C" int32_t ld_gradient(const void *, const void *, int32_t, int32_t, int64_t, int64_t, int64_t, int64_t,
                               float *);
int main() {
  for (int half = 0; half < 2; ++half)
    for (int kernel = 3; kernel <= 7; kernel += 2)
      for (int side = 1; side < 12; side += 3) {
        const std::size_t count = std::size_t(2) * side * (side + 2) * 32;
        std::vector<uint16_t> x(count * (half ? 1 : 2)), g(x.size());  // zeros: not one byte more than there is
        std::vector<float> out((kernel * kernel + 1) * 32, 1.0f);
        if (ld_gradient(x.data(), g.data(), half, kernel, 2, side, side + 2, 32, out.data())) return 1;
        for (float sum : out)
          if (sum != 0) return 2;
      }
  std::vector<float> out(1000);
  if (ld_gradient(nullptr, nullptr, 0, 4, 1, 1, 1, 16, out.data()) != 2) return 3;
  return ld_gradient(nullptr, nullptr, 0, 3, 1, 1, 1, 20, out.data()) == 2 ? 0 : 4;
}
"""
