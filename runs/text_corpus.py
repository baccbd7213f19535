"""Writes what runs/text-minilm.sh learns and measures from: captions.txt, held.txt and texts.txt, one text per line.

    python runs/text_corpus.py ICONS WORDNET OUT

ICONS: folder of the captioned icons. Captions of the training split are learned from; held out are those of the other
splits whose name no training icon has. WORDNET: folder with WordNet 3.0's data.* files (Debian: wordnet-base), whose
definitions and examples are the general English.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

WORDS = range(2, 25)


def rows(icons: Path) -> Iterator[dict[str, Any]]:
    """Every line of every metadata.jsonl, with its split."""
    for path in sorted(icons.glob("*/*.zip")):
        with zipfile.ZipFile(path) as archive:
            lines = archive.read("metadata.jsonl").decode("utf-8").splitlines()
        yield from (json.loads(line) | {"split": path.stem} for line in lines)


def glosses(wordnet: Path) -> Iterator[str]:
    for kind in ("noun", "verb", "adj", "adv"):
        for line in (wordnet / f"data.{kind}").read_text("latin-1").split("\n"):
            if line and not line.startswith(" "):
                yield from (part.strip().strip('"') for part in line.rstrip().split(" | ", 1)[1].split("; "))


def write(path: Path, texts: Iterable[str]) -> None:
    wanted = sorted({text for text in texts if any(character.isalnum() for character in text)})
    path.write_text("".join(f"{text}\n" for text in wanted), "utf-8")


def main(icons: Path, wordnet: Path, out: Path) -> None:
    found = list(rows(icons))
    train = [row for row in found if row["split"] == "train"]
    known = {row["name"] for row in train}
    out.mkdir(parents=True, exist_ok=True)
    write(out / "captions.txt", (row[key] for row in train for key in ("text", "name")))
    write(out / "held.txt", (row["text"] for row in found if row["split"] != "train" and row["name"] not in known))
    write(out / "texts.txt", (gloss for gloss in glosses(wordnet) if len(gloss.split()) in WORDS))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
