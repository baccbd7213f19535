"""Prints how much of the original's sense of likeness a text bundle keeps, and how long a prompt takes.

    python runs/text_figures.py BUNDLE MODEL CORPUS [ENGINE]

MODEL: the Hugging Face folder it was made from. CORPUS: the folder that runs/text_corpus.py wrote. ENGINE: by default
the one of painters in int8.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from limner.runtime.generate import TEXT_ENGINE
from limner.runtime.text import TextEncoder
from limner.text.encoder import FrozenEncoder
from limner.text.fidelity import compare, retrieval

PARAPHRASES = [
    ("a red apple", "an apple of crimson colour"),
    ("a small dog", "a tiny puppy"),
    ("a sword", "a knight's blade"),
    ("a house with a garden", "a home with flowers in front of it"),
    ("a smiling face", "a happy expression"),
    ("a sad face", "an unhappy expression, crying"),
    ("a car", "an automobile on the road"),
    ("a cup of coffee", "a mug with a hot drink"),
    ("a sailing ship", "a boat with sails on the sea"),
    ("a wizard", "an old man who casts spells"),
    ("a treasure chest", "a wooden box full of gold"),
    ("a burning fire", "flames"),
    ("a blue gem", "a sapphire"),
    ("a green gem", "an emerald"),
    ("a plane", "an aircraft in the sky"),
    ("a mobile phone", "a smartphone"),
    ("a bouquet of roses", "a bunch of red flowers"),
    ("a heart", "a symbol of love"),
    ("a skull", "a dead man's head, bones"),
    ("a full moon at night", "lunar disc in the dark sky"),
    ("a snowman", "a figure made of snow"),
    ("a slice of pizza", "italian food with cheese and tomato"),
    ("a pair of scissors", "a tool for cutting paper"),
    ("a key", "something that opens a lock"),
    ("a doctor", "a physician with a stethoscope"),
    ("a farmer", "someone who grows crops"),
    ("a bicycle", "a two-wheeled vehicle with pedals"),
    ("a rain cloud", "bad weather, drops falling"),
    ("a magic potion", "a flask with an enchanted liquid"),
    ("a shield", "protection carried on the arm in battle"),
    ("a bag of money", "a sack of cash"),
    ("a book", "something to read"),
    ("a horse", "a steed"),
    ("a snake", "a serpent"),
    ("a bee", "an insect that makes honey"),
    ("a spider", "an eight-legged creature in its web"),
    ("a train", "a locomotive on rails"),
    ("a birthday cake", "dessert with candles"),
    ("a clock", "a device that shows the time"),
    ("a light bulb", "an electric lamp"),
]
MADE_UP = [
    *(f"a {colour} {thing}, {style}"
      for colour, style in (("red", "flat style"), ("dark blue", "pixel art"), ("golden", "3d render"))
      for thing in ("axolotl", "teapot with steam", "castle on a hill", "robot holding a flower", "owl reading a book",
                    "motorcycle", "mushroom house", "cactus in a pot", "dragon breathing fire", "pair of headphones")),
    "cute fox barista pouring latte art",
    "minimal line icon of a rocket",
    "steampunk airship over the mountains",
    "tiny wizard hat, watercolour",
    "cyberpunk samurai mask",
    "logo of a coffee shop with a cat",
    "slice of watermelon with seeds",
    "a penguin on a skateboard",
    "haunted tree with glowing eyes",
    "button to download a file",
]  # fmt: skip
TYPICAL = ["a red apple", "a red apple, flat style", "small dog with a blue hat", "golden sword, pixel art game sprite"]


def show(name: str, figures: object) -> None:
    sys.stdout.write(f"{name}: {figures}\n")


def main(folder: str, model: str, corpus: Path, engine: str = TEXT_ENGINE) -> None:
    original, encoder = FrozenEncoder.load(model), TextEncoder.load(folder, engine=engine)
    held = (corpus / "held.txt").read_text("utf-8").splitlines()
    names = [line for line in (corpus / "captions.txt").read_text("utf-8").splitlines() if "," not in line]
    random = np.random.default_rng(0)
    pool = held + [names[number] for number in random.permutation(len(names))[: 5000 - len(held)]]
    true, found = original.encode(pool).pooled, np.concatenate([encoder.encode([text]).pooled for text in pool])
    show("held captions", compare(true[: len(held)], found[: len(held)]).to_json())
    show(f"{len(pool)} captions", compare(true, found).to_json())
    show("made-up prompts", compare(original.encode(MADE_UP).pooled, encoder.encode(MADE_UP).pooled).to_json())
    for name, each in (("original", original), ("bundle", encoder)):
        asked, meant = (each.encode([pair[side] for pair in PARAPHRASES]).pooled for side in (1, 0))
        show(f"paraphrases that find their own among {len(PARAPHRASES)}, {name}", retrieval(asked, meant))
        distractors = np.concatenate([meant, true if each is original else found])
        hits = (asked @ distractors.T).argsort(1)[:, -10:] == np.arange(len(asked))[:, None]
        show(f"paraphrases with their own in the first 10 of {len(distractors)}, {name}", float(hits.any(1).mean()))
    show("ms per uncached prompt, p50, and CPU ms", speed(folder, engine))


def speed(folder: str, engine: str, rounds: int = 100) -> dict[str, tuple[float, float]]:
    """p50 of wall time and of CPU time, which other processes disturb less."""
    encoder, found = TextEncoder.load(folder, engine=engine), {}
    for prompt in TYPICAL:
        spent = []
        for _ in range(rounds):
            encoder.forget()
            wall, cpu = time.perf_counter(), time.process_time()
            encoder.encode([prompt])
            spent.append((time.perf_counter() - wall, time.process_time() - cpu))
        found[prompt] = tuple(round(median(each) * 1000, 2) for each in zip(*spent, strict=True))
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
