"""What the loop asks of an objective."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from limner.train.step import Judge


class Made(NamedTuple):
    """What a step made of a batch. `losses`: weighted, to be added up and descended. `fake`, `real`: what an adversary
    compares; None where there is nothing to judge. `text`: pooled vectors (N, width), for an adversary that reads.
    `versions`: those of captions of other versions of the same things (PaintingBatch).
    """

    losses: dict[str, Tensor]
    fake: Tensor | None = None
    real: Tensor | None = None
    text: Tensor | None = None
    versions: Tensor | None = None


class Objective(Protocol):
    """Where batches come from, what is to be made of them, and how one sees that it works.

    `methods`: methods of the network, other than forward, that `made` calls.
    """

    methods: tuple[str, ...]

    def batch(self, step: int, rank: int, world: int) -> Any:
        """The share of a process in the batch of a step: a function of the arguments alone."""
        ...

    def made(self, network: nn.Module, batch: Any, share: float) -> Made:
        """`share`: how much of the run is done, in 0..1."""
        ...

    def trains(self, name: str) -> bool:
        """Whether the parameter of that name learns; the others keep what they began with."""
        ...

    def critic(self) -> nn.Module:
        """A new adversary."""
        ...

    def judge(self, critic: nn.Module, made: Made) -> Judge:
        """The adversary as a function of pictures alone."""
        ...

    def criticism(self, critic: nn.Module, made: Made) -> dict[str, Tensor]:
        """Further weighted losses of the adversary."""
        ...

    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """Scores of the averaged network in eval mode, and a picture of what it does in the PNG `sheet`."""
        ...


def unwatched(pictures: Sequence[Tensor]) -> list[Tensor]:
    """The same pictures, the last one as a tensor of its own.

    Fabric watches what its wrapper returns: in mixed precision and several processes nothing but its own `backward` may
    ask for the gradient there, and `step.balanced` does.
    """
    *coarse, finest = pictures
    return [*coarse, finest.view_as(finest)]
