"""Writes what `limner evaluate` and `limner bench` measured (JSON in a folder) between the markers of the READMEs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from limner import bundle

START, END = "<!-- figures -->", "<!-- /figures -->"
SETS = ("Set5", "Set14", "BSD100")
ENGINES = ("openvino", "onnxruntime", "fused")
THREADS = (1, 2)
HEADS = {
    "README.md": (
        ["bundle", "KB", "parameters", *SETS, "cost of int8, dB", "ms", "of the yardstick"],
        [
            "ms, int8",
            *(f"{engine}, {threads} thread{'s' * (threads > 1)}" for threads in THREADS for engine in ENGINES),
        ],
        "int8 on the fused engine, one thread, 160x90 input, {cpu}. Bicubic at x4: {x4}; at x2: {x2}.",
    ),
    "README.zh-CN.md": (
        ["包", "KB", "参数", *SETS, "int8 的代价，dB", "毫秒", "相对基准"],
        ["毫秒，int8", *(f"{engine}，{threads} 线程" for threads in THREADS for engine in ENGINES)],
        "int8，fused 引擎，单线程，输入 160x90，{cpu}。双三次插值 4 倍：{x4}；2 倍：{x2}。",
    ),
}


def scores(entry: dict[str, Any], kind: str = "scores") -> list[float]:
    """Y-PSNR in dB of every set, in the order of SETS."""
    found = {row["set"]: row[kind]["psnr_y"] for row in entry["rows"]}
    return [found[name] for name in SETS]


def line(exact: dict[str, Any], integer: dict[str, Any], speed: list[dict[str, Any]]) -> list[str]:
    opened = bundle.read(integer["name"])
    drop = max(a - b for a, b in zip(scores(exact), scores(integer), strict=True))
    fast = timing(speed, integer["name"], "fused", 1)
    return [
        f"`{integer['name']}`",
        f"{opened.bytes / 1000:.0f}",
        f"{opened.manifest.parameters / 1000:.0f} k",
        *(f"{value:.2f}" for value in scores(integer)),
        f"{drop:.2f}",
        f"{fast['p50_ms']:.1f}",
        f"{fast['ratio']:.2f}",
    ]


def timing(speed: list[dict[str, Any]], name: str, engine: str, threads: int) -> dict[str, Any]:
    """The row of an int8 graph; fails when another engine ran it."""
    wanted = {"bundle": name, "engine": engine, "threads": threads, "precision": "int8", "ran": engine}
    return next(row for row in speed if all(row[key] == value for key, value in wanted.items()))


def engines(name: str, speed: list[dict[str, Any]]) -> list[str]:
    times = (timing(speed, name, engine, threads) for threads in THREADS for engine in ENGINES)
    return [f"`{name}`", *(f"{row['p50_ms']:.1f}" for row in times)]


def table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def main(folder: Path, readmes: list[Path]) -> None:
    exact, integer = (json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("float", "int8"))
    speed = json.loads((folder / "speed.json").read_text("utf-8"))
    lines = [line(a, b, speed["rows"]) for a, b in zip(exact, integer, strict=True)]
    bicubic = {f"x{e['rows'][0]['scale']}": " / ".join(f"{v:.2f}" for v in scores(e, "bicubic")) for e in integer}
    times = [engines(each["name"], speed["rows"]) for each in integer]
    for readme in readmes:
        head, names, note = HEADS[readme.name]
        note = note.format(cpu=speed["machine"]["cpu"], **bicubic)
        block = f"{table(head, lines)}\n\n{note}\n\n{table(names, times)}"
        before, _, rest = readme.read_text("utf-8").partition(START)
        readme.write_text(f"{before}{START}\n{block}\n{END}{rest.partition(END)[2]}", "utf-8")
    print(table(HEADS["README.md"][0], lines), table(HEADS["README.md"][1], times), sep="\n\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
