"""Writes what `limner evaluate` and `limner bench` measured (JSON in a folder) between the markers of the READMEs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from limner import bundle
from limner.cli import reporting

START, END = "<!-- figures -->", "<!-- /figures -->"
SETS = ("Set5", "Set14", "BSD100")
ENGINES = ("openvino", "onnxruntime", "fused")
THREADS = (1, 2)
PAINTERS = "<!-- painters -->", "<!-- /painters -->"
PAINTING = "<!-- painting -->", "<!-- /painting -->"
SERVER = "<!-- server -->", "<!-- /server -->"
PAINTED = ("r_precision", "style", "colour", "own_kid", "sharpness", "diversity", "copies")
PAINTER_HEADS = {
    "README.md": (
        ["prompts", "", "R-precision of 100", "style", "colour", "own-KID x100", "sharpness", "diversity", "copies"],
        ["icons, int8", "batch", "threads", "ms", "ms, cold", "pictures/s"],
        "Painting, validation split: concepts seen in training in new wording, concepts never seen, and combinations "
        "that no picture of the data shows (recoloured ones, `data.recolour`, may). Real pictures are the ceiling, "
        "`retrieval` paints nothing and shows the training picture with the nearest caption. `style` has fewer than "
        "100 prompts: its R-precision takes rivals from the other tables.",
    ),
    "README.zh-CN.md": (
        ["提示词", "", "R-precision（100 选 1）", "风格", "颜色", "own-KID x100", "锐度", "多样性", "复制"],
        ["icons，int8", "批量", "线程", "毫秒", "毫秒，冷缓存", "张/秒"],
        "绘画，验证集：训练中见过的概念换一种说法、从未见过的概念，以及数据图片中没有的组合"
        "（改色图片 `data.recolour` 中可能有）。"
        "真实图片是上限；`retrieval` 不作画，只给出说明文字最接近的训练图片。`style` 的提示词不足 100 条，"
        "它的 R-precision 从其他表中借用干扰项。",
    ),
}
SERVER_HEADS = {
    "README.md": [
        "",
        "ms added when idle",
        "share of the bare batches, 64 clients",
        "twice the capacity: answers, lost, wrong",
        "SIGTERM under load: answered, lost",
        "cold start, s",
    ],
    "README.zh-CN.md": [
        "",
        "空闲时增加的毫秒",
        "64 个客户端时占裸批量吞吐的比例",
        "两倍负载：应答、丢失、出错",
        "负载下 SIGTERM：已答、丢失",
        "冷启动，秒",
    ],
}
LADDER = "<!-- ladder -->", "<!-- /ladder -->"
LADDER_HEADS = {"README.md": [*reporting.HEADS, *reporting.GAINS]}
LADDER_HEADS["README.zh-CN.md"] = ["包", "步骤", "参数", "KB", *(f"毫秒 {engine}" for engine in reporting.ENGINES)]
LADDER_HEADS["README.zh-CN.md"] += ["相对基准", "质量", "加速", "缩小", "变化"]
HEADS = {
    "README.md": (
        ["bundle", "KB", "parameters", *SETS, "cost of int8, dB", "ms", "of the yardstick", "ms, cold"],
        [
            "ms, int8",
            *(f"{engine}, {threads} thread{'s' * (threads > 1)}" for threads in THREADS for engine in ENGINES),
        ],
        "int8 on the fused engine, one thread, 160x90 input, {cpu}. Times are those of calls one after another; cold: "
        "of the first call after other networks have run. Bicubic at x4: {x4}; at x2: {x2}. "
        "Y-PSNR on Set5 of fused against the other engines: within {difference:.3f} dB.",
        "160x90 input; `icons`: its network alone, one picture of 64x64. In brackets: what ran instead.",
    ),
    "README.zh-CN.md": (
        ["包", "KB", "参数", *SETS, "int8 的代价，dB", "毫秒", "相对基准", "毫秒，冷缓存"],
        ["毫秒，int8", *(f"{engine}，{threads} 线程" for threads in THREADS for engine in ENGINES)],
        "int8，fused 引擎，单线程，输入 160x90，{cpu}。时间为连续调用的中位数；"
        "冷缓存：其他网络运行之后的第一次调用。双三次插值 4 倍：{x4}；2 倍：{x2}。"
        "fused 与其他引擎在 Set5 上的 Y-PSNR 相差不超过 {difference:.3f} dB。",
        "输入 160x90；`icons`：仅其网络，一张 64x64 的图片。括号内是实际运行的引擎。",
    ),
}
KIND_HEADS = {
    "README.md": (
        ["kind of convolution, x4, int8", "parameters", *SETS],
        "Separable convolutions against others at about equal PSNR, 104,000 crops by one recipe, ms as above:",
    ),
    "README.zh-CN.md": (
        ["卷积种类，4 倍，int8", "参数", *SETS],
        "PSNR 大致相同时，可分离卷积与其他卷积相比（同一训练方案，各学 104,000 个图块），毫秒，条件同上：",
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
        f"{fast['cold_ms']:.1f}",
    ]


def timing(speed: list[dict[str, Any]], name: str, engine: str, threads: int) -> dict[str, Any]:
    """The row of an int8 graph; fails when another engine ran it."""
    wanted = {"bundle": name, "engine": engine, "threads": threads, "precision": "int8", "ran": engine}
    return next(row for row in speed if all(row[key] == value for key, value in wanted.items()))


def engines(name: str, speed: list[dict[str, Any]]) -> list[str]:
    """Times on every engine; one that left the graph to another names that."""
    cells = []
    for threads, engine in product(THREADS, ENGINES):
        wanted = {"bundle": name, "engine": engine, "threads": threads, "precision": "int8"}
        row = next(row for row in speed if all(row[key] == value for key, value in wanted.items()))
        cells.append(f"{row['p50_ms']:.1f}" + (f" ({row['ran']})" if row["ran"] != engine else ""))
    return [f"`{name}`", *cells]


def engine_lines(folder: Path, speed: list[dict[str, Any]]) -> list[list[str]]:
    """Every shipped upscaler, then the painter's network."""
    painter = json.loads((folder / "painter-engines.json").read_text("utf-8"))["rows"]
    lines = [engines(name, speed) for name in dict.fromkeys(row["bundle"] for row in speed)]
    return [*lines, engines("icons", [row for row in painter if row["stage"] == "network"])]


def difference(folder: Path, integer: list[dict[str, Any]]) -> float:
    """Largest difference on Set5 between the fused engine and another, dB."""
    others = [json.loads((folder / f"set5-{engine}.json").read_text("utf-8")) for engine in ENGINES[:2]]
    first = [[entry["rows"][0]["scores"]["psnr_y"] for entry in each] for each in (integer, *others)]
    return max(abs(ours - theirs) for other in first[1:] for ours, theirs in zip(first[0], other, strict=True))


def kind_lines(folder: Path) -> list[list[str]]:
    """A line for every kind of convolution; none where `runs/figures.sh` had no bundles to compare."""
    if not (folder / "separable.json").exists():
        return []
    speed = json.loads((folder / "separable.json").read_text("utf-8"))["rows"]
    lines = []
    for entry in json.loads((folder / "separable-scores.json").read_text("utf-8")):
        manifest = bundle.read(entry["name"]).manifest
        model = manifest.recipe["model"]
        about = [network_name(model), f"{manifest.parameters / 1000:.0f} k"]
        quality = [f"{value:.2f}" for value in scores(entry)]
        lines.append([*about, *quality, *engines(manifest.name, speed)[1:]])
    return lines


def network_name(model: dict[str, Any]) -> str:
    """Kind, width and depth, and the side of the kernels where that is not 3."""
    kernel = model["kernel"]
    return f"{model['kind']} {model['width']} x {model['depth']}" + (f", {kernel}x{kernel}" if kernel != 3 else "")


def painter_lines(folder: Path) -> list[list[str]]:
    """Quality, a line for every table of prompts and what it is held against."""
    scored = json.loads((folder / "painters.json").read_text("utf-8"))
    return [
        [f"`{row['kind']}`", row["painter"], *(_figure(row, name) for name in PAINTED)]
        for row in scored["rows"]
        if row["painter"] != "real, shuffled"
    ]


def painting_lines(folder: Path) -> list[list[str]]:
    """Speed, a line for every stage, batch and number of threads."""
    timed = json.loads((folder / "painters-speed.json").read_text("utf-8"))["rows"]
    return [
        [
            f"`{row['stage']}`",
            str(row["batch"]),
            str(row["threads"]),
            f"{row['p50_ms']:.1f}",
            f"{row['cold_ms']:.1f}",
            f"{row['pictures_per_s']:.0f}",
        ]
        for row in timed
        if row["precision"] == "int8"
    ]


def server_line(folder: Path) -> list[str]:
    """What `limner bench icons --server local` found."""
    found = json.loads((folder / "server.json").read_text("utf-8"))
    idle, load, soak, stop = (found[part] for part in ("idle", "load", "soak", "stop"))
    answers = " ".join(f"{status}: {count}" for status, count in soak["statuses"].items())
    return [
        "`limner serve`",
        f"{idle['added_ms']:.1f}",
        f"{load['share']:.2f}",
        f"{soak['seconds']:.0f} s, {answers}, {soak['lost']}, {soak['wrong']}",
        f"{stop['answered']}, {stop['lost']}",
        f"{found['cold_start_s']:.1f}",
    ]


def _figure(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return ""
    value, low, high = (row[name][key] * (100 if name == "own_kid" else 1) for key in ("value", "low", "high"))
    return f"{value:.2f} ±{(high - low) / 2:.2f}"


def table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def write_between(readme: Path, start: str, end: str, block: str) -> None:
    before, _, rest = readme.read_text("utf-8").partition(start)
    readme.write_text(f"{before}{start}\n{block}\n{end}{rest.partition(end)[2]}", "utf-8")


def upscaler_block(readme: str, folder: Path) -> str:
    """What stands between the first markers."""
    exact, integer = (json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("float", "int8"))
    speed = json.loads((folder / "speed.json").read_text("utf-8"))
    head, names, note, times = HEADS[readme]
    bicubic = {f"x{e['rows'][0]['scale']}": " / ".join(f"{v:.2f}" for v in scores(e, "bicubic")) for e in integer}
    note = note.format(cpu=speed["machine"]["cpu"], difference=difference(folder, integer), **bicubic)
    lines = [line(a, b, speed["rows"]) for a, b in zip(exact, integer, strict=True)]
    parts = [table(head, lines), note, table(names, engine_lines(folder, speed["rows"])), times]
    if kinds := kind_lines(folder):
        head, note = KIND_HEADS[readme]
        parts += [note, table([*head, *names[1:]], kinds)]
    return "\n\n".join(parts)


def painter_block(readme: str, folder: Path) -> str:
    """What stands between the second markers."""
    head, _, note = PAINTER_HEADS[readme]
    return "\n\n".join([note, table(head, painter_lines(folder))])


def painting_block(readme: str, folder: Path) -> str:
    """What stands between the third markers."""
    return table(PAINTER_HEADS[readme][1], painting_lines(folder))


def server_block(readme: str, folder: Path) -> str:
    """What stands between the fourth markers."""
    return table(SERVER_HEADS[readme], [server_line(folder)])


def write_ladder(folder: Path, readmes: list[Path]) -> None:
    """What `limner ladder` measured, a line for each step of each bundle."""
    found = [folder / name for name in ("ladder.json", "ladder-icons.json")]
    rungs = [rung for path in found if path.is_file() for rung in json.loads(path.read_text("utf-8"))]
    for readme in readmes:
        write_between(readme, *LADDER, table(LADDER_HEADS[readme.name], reporting.rows(rungs)))


# What is written, where, and the last file it needs: what was not measured stays as it is.
BLOCKS: tuple[tuple[tuple[str, str], Callable[[str, Path], str], str], ...] = (
    ((START, END), upscaler_block, "painter-engines.json"),
    (PAINTERS, painter_block, "painters.json"),
    (PAINTING, painting_block, "painters-speed.json"),
    (SERVER, server_block, "server.json"),
)


def main(folder: Path, readmes: list[Path]) -> None:
    measured = [each for each in BLOCKS if (folder / each[2]).exists()]
    for readme, (markers, block, _) in product(readmes, measured):
        write_between(readme, *markers, block(readme.name, folder))
    print("\n\n".join(block("README.md", folder) for _, block, _ in measured))


if __name__ == "__main__":
    wanted = [Path(name) for name in sys.argv[1:] if name != "--ladder"]
    (write_ladder if "--ladder" in sys.argv else main)(wanted[0], wanted[1:])
