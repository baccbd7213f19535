"""Memory that training frees and asks for again, thousands of times a second."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed instead of giving it back to the system; False without glibc.

    A network's activations are megabytes that live for a part of a step. Where malloc maps them anew, the system fills
    every page with zeros at its first touch. Often it soon stops doing so by itself (docs/log.md, 2026-11-27). The
    process stays as large as its largest step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
