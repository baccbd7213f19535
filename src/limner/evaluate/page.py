"""One self-contained HTML page about a bundle or a search: no files beside it, nothing is fetched."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from limner.errors import LimnerError

Bytes = NDArray[np.uint8]
SHOWN = 640  # longest side of a picture on the page, pixels; larger ones are cut to their middle


class Pair(NamedTuple):
    """Two pictures of one size, (H, W, 3 or 4) uint8, to slide between, and what they are."""

    caption: str
    before: Bytes
    after: Bytes
    labels: tuple[str, str] = ("before", "after")


class Dot(NamedTuple):
    """A point of the plot. `area` is relative; `best`: on the front, or the page's own subject."""

    label: str
    x: float
    y: float
    area: float = 1.0
    best: bool = True


class Grid(NamedTuple):
    """A table: `rows` of cells as text; cells that are figures stand to the right."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Content:
    """Everything on the page, in its order. `figures`: a few large numbers on top, label -> text."""

    title: str
    lead: str
    figures: Mapping[str, str] = field(default_factory=dict)
    pairs: Sequence[Pair] = ()
    dots: Sequence[Dot] = ()
    axes: tuple[str, str] = ("", "")
    grids: Sequence[Grid] = ()
    footer: str = ""


def html(content: Content) -> str:
    """The page. All text is escaped, all pictures are inside."""
    parts = [f"<h1>{escape(content.title)}</h1><p class='lead'>{escape(content.lead)}</p>", _figures(content.figures)]
    parts += [_slider(pair) for pair in content.pairs]
    if content.dots:
        parts.append(f"<h2>Quality and cost</h2>{scatter(content.dots, *content.axes)}")
    parts += [_table(grid) for grid in content.grids]
    footer = f"<footer>{escape(content.footer)}</footer>"
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{escape(content.title)}"
    body = "\n".join(parts)
    return (
        f"<!doctype html><html lang='en'><head>{head}</title><style>{STYLE}</style></head><body><main>\n"
        f"{body}\n{footer}</main></body></html>\n"
    )


def write(path: Path, page: str) -> None:
    """Write the page whole or not at all. Raises LimnerError where that is impossible."""
    draft = path.with_name(f".{path.name}")
    try:
        draft.write_text(page, "utf-8")
        draft.replace(path)
    except OSError as error:
        raise LimnerError(f"{path}: cannot be written ({error.strerror}); choose another place.") from None


def _figures(figures: Mapping[str, str]) -> str:
    cells = "".join(f"<div><b>{escape(text)}</b><span>{escape(label)}</span></div>" for label, text in figures.items())
    return f"<section class='figures'>{cells}</section>" if cells else ""


def _slider(pair: Pair) -> str:
    """The picture before lies over the one after, cut at the handle: a range input, so that keys move it too."""
    before, after = (f"<img src='{_inline(_middle(each))}' alt='{{}}'>" for each in (pair.before, pair.after))
    left, right = map(escape, pair.labels)
    height, width = _middle(pair.after).shape[:2]
    return (
        f"<figure><div class='slider' style='--at:50%;width:{width}px;aspect-ratio:{width}/{height}'>"
        f"{after.format(right)}<div class='over'>{before.format(left)}</div><i></i>"
        f"<em>{left}</em><em class='right'>{right}</em>"
        "<input type='range' min='0' max='100' step='0.1' value='50' aria-label='share of the picture before' "
        "oninput=\"this.parentNode.style.setProperty('--at',this.value+'%')\"></div>"
        f"<figcaption>{escape(pair.caption)}</figcaption></figure>"
    )


def _middle(picture: Bytes) -> Bytes:
    height, width = (min(side, SHOWN) for side in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def _inline(picture: Bytes) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "WEBP", lossless=True)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _table(grid: Grid) -> str:
    figures = [bool(column) and all(map(_is_figure, column)) for column in zip(*grid.rows, strict=True)]
    right = [*figures, *[False] * len(grid.heads)]
    heads = "".join(f"<th{' class=n' * right[at]}>{escape(head)}</th>" for at, head in enumerate(grid.heads))
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in grid.rows)
    note = f"<p>{escape(grid.note)}</p>" if grid.note else ""
    return (
        f"<h2>{escape(grid.title)}</h2><div class='wide'><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _cell(text: str) -> str:
    return f"<td{' class=n' * _is_figure(text)}>{escape(text)}</td>"


def _is_figure(text: str) -> bool:
    return text.lstrip("+-").replace(".", "", 1).rstrip("%").isdigit()


WIDTH, HEIGHT, LEFT, BOTTOM = 860, 420, 64, 48
FEW = 8  # so many dots are all named


def scatter(dots: Sequence[Dot], across: str, up: str) -> str:
    """An SVG of dots over a logarithmic and a linear axis; the best coloured, joined and named; of a few, all named."""
    x, y = _scale([math.log10(dot.x) for dot in dots]), _scale([dot.y for dot in dots])
    place = [_place(dot, x, y) for dot in dots]
    most = max(dot.area for dot in dots)
    marks = [
        f"<circle cx='{left:.1f}' cy='{top:.1f}' r='{4 + 8 * math.sqrt(dot.area / most):.1f}' "
        f"class='{'best' if dot.best else 'other'}'><title>{escape(f'{dot.label}: {dot.x:.4g}, {dot.y:.4g}')}</title>"
        f"</circle>"
        for dot, (left, top) in zip(dots, place, strict=True)
    ]
    front = sorted(each for dot, each in zip(dots, place, strict=True) if dot.best)
    line = "<polyline points='" + " ".join(f"{left:.1f},{top:.1f}" for left, top in front) + "'/>"
    names = [
        f"<text x='{left + 12:.1f}' y='{top - 8:.1f}'>{escape(dot.label)}</text>"
        for dot, (left, top) in zip(dots, place, strict=True)
        if dot.best or len(dots) <= FEW
    ]
    middle = "class='axis' text-anchor='middle'"
    axes = _ticks(x, y) + (
        f"<text {middle} x='{(WIDTH + LEFT) / 2}' y='{HEIGHT - 6}'>{escape(across)}</text>"
        f"<text {middle} transform='translate(14 {HEIGHT / 2}) rotate(-90)'>{escape(up)}</text>"
    )
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(up)} over {escape(across)}'>"
        f"{axes}{line}{''.join(marks)}{''.join(names)}</svg>"
    )


class _Range(NamedTuple):
    low: float
    high: float


def _scale(values: Sequence[float]) -> _Range:
    low, high = min(values), max(values)
    margin = 0.12 * (high - low) or 0.1
    return _Range(low - margin, high + margin)


def _place(dot: Dot, x: _Range, y: _Range) -> tuple[float, float]:
    return _across(math.log10(dot.x), x), _down(dot.y, y)


def _across(value: float, x: _Range) -> float:
    return LEFT + (WIDTH - LEFT - 40) * (value - x.low) / (x.high - x.low)


def _down(value: float, y: _Range) -> float:
    return (HEIGHT - BOTTOM) - (HEIGHT - BOTTOM - 16) * (value - y.low) / (y.high - y.low)


def _ticks(x: _Range, y: _Range) -> str:
    marks = []
    for value in _round_logarithms(x):
        left = _across(math.log10(value), x)
        marks.append(f"<line x1='{left:.1f}' x2='{left:.1f}' y1='16' y2='{HEIGHT - BOTTOM}'/>")
        where = f"x='{left:.1f}' y='{HEIGHT - BOTTOM + 18}' text-anchor='middle'"
        marks.append(f"<text class='tick' {where}>{value:.4g}</text>")
    for value in _round_values(y):
        top = _down(value, y)
        marks.append(f"<line x1='{LEFT}' x2='{WIDTH - 40}' y1='{top:.1f}' y2='{top:.1f}'/>")
        marks.append(f"<text class='tick' x='{LEFT - 8}' y='{top + 4:.1f}' text-anchor='end'>{value:.4g}</text>")
    return f"<g class='grid'>{''.join(marks)}</g>"


def _round_values(within: _Range) -> list[float]:
    """About five multiples of 1, 2 or 5 times a power of ten."""
    rough = (within.high - within.low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough)
    first, last = math.ceil(within.low / step), math.floor(within.high / step)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _round_logarithms(within: _Range) -> list[float]:
    """Values for an axis of their logarithms: evenly spaced within a decade, else 1, 2, 5, 10, 20 and so on."""
    if within.high - within.low < 1:
        return _round_values(_Range(10**within.low, 10**within.high))
    powers = range(math.floor(within.low), math.ceil(within.high) + 1)
    values = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return [value for value in values if within.low <= math.log10(value) <= within.high]


def of_search(name: str, points: Sequence[Mapping[str, Any]], pairs: Sequence[Pair] = ()) -> str:
    """The page of a search. `points`: entries as `limner search --json` writes them."""
    front = [point for point in points if point["front"]]
    keys = [key for key in points[0] if "." in key] if points else []
    dots = [
        Dot(f"{p['trial']}", p["ratio"], p["quality"], p["bytes"], bool(p["front"])) for p in points if p["ratio"] > 0
    ]
    heads = ["trial", "front", "dB", "p50 ms", "of the yardstick", "KB", "parameters", *(k.split(".")[1] for k in keys)]
    rows = [
        [
            str(p["trial"]),
            "yes" if p["front"] else "",
            f"{p['quality']:.3f}",
            f"{p['ms']:.2f}",
            f"{p['ratio']:.3f}",
            f"{p['bytes'] / 1000:.1f}",
            str(p["parameters"]),
            *(str(p[key]) for key in keys),
        ]
        for p in points
    ]
    best, fast = max(front, key=lambda p: p["quality"]), min(front, key=lambda p: p["ratio"])
    figures = {
        "trials finished": str(len(points)),
        "on the front": str(len(front)),
        f"dB, the best (trial {best['trial']})": f"{best['quality']:.2f}",
        f"yardsticks, the fastest (trial {fast['trial']})": f"{fast['ratio']:.2f}",
    }
    axes = "latency in yardsticks, logarithmic; area of a dot: bytes", "PSNR of the int8 bundle, dB"
    lead = "Quality, latency and size of networks that limner search trained; no point of the front is beaten in all."
    return html(Content(f"Search: {name}", lead, figures, pairs, dots, axes, [Grid("Trials", heads, rows)], FOOTER))


FOOTER = "Made by limner report. Latency is the median of pictures timed in turns with a plain network, the yardstick."

STYLE = """
:root{--ink:#1c2330;--soft:#667085;--line:#e4e7ec;--paper:#fff;--best:#c2410c;--other:#98a2b3}
@media(prefers-color-scheme:dark){:root{--ink:#eceff4;--soft:#98a2b3;--line:#344054;--paper:#12161f;--best:#fb923c}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:960px;margin:0 auto;padding:32px 20px}h1{margin:0;font-size:30px}h2{margin:36px 0 8px;font-size:19px}
.lead,footer,figcaption,p{color:var(--soft)}footer{margin-top:40px;border-top:1px solid var(--line);padding-top:12px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0}
.figures div{border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.figures b{display:block;font-size:22px}.figures span{color:var(--soft);font-size:13px}
figure{margin:20px 0}.slider{position:relative;overflow:hidden;max-width:100%;border-radius:8px;background:#8883}
.slider img{position:absolute;inset:0;width:100%;height:100%;display:block}
.over{position:absolute;inset:0;clip-path:inset(0 calc(100% - var(--at)) 0 0)}
.slider i{position:absolute;top:0;bottom:0;left:var(--at);width:2px;margin-left:-1px;background:#fff;
box-shadow:0 0 4px #000}
.slider i::after{content:"";position:absolute;top:50%;left:-13px;width:28px;height:28px;margin-top:-14px;
border-radius:50%;background:#fff;box-shadow:0 0 6px #0008}
.slider em{position:absolute;left:8px;bottom:8px;padding:2px 8px;border-radius:4px;background:#000a;color:#fff;
font:13px system-ui}.slider em.right{left:auto;right:8px}
.slider input{position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;cursor:ew-resize}
.slider:focus-within{outline:2px solid var(--best)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
th{color:var(--soft);font-weight:500;font-size:13px}.n{text-align:right}
svg{width:100%;height:auto}svg text{fill:var(--ink);font:13px system-ui}svg .tick,svg .axis{fill:var(--soft)}
svg line{stroke:var(--line)}polyline{fill:none;stroke:var(--best);stroke-dasharray:4 4}
.best{fill:var(--best)}.other{fill:var(--other);opacity:.6}
"""
