"""What is asked of models that rewrite captions or describe pictures, and the judgement of what they answer.

`endpoint.Endpoint` and `language_model.LanguageModel` are such models. Nothing they say is trusted: `usable_lines`
keeps what could be a caption. No torch.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from PIL import Image

from limner.data.grammar import COLOUR_WORDS
from limner.errors import LimnerError

MOST_CHARACTERS = 200
_PICTURE_SIDES = (256, 768)

_REWRITE = (
    "You write captions that teach a picture generator. Rewrite the facts below into {wanted} different short English "
    "captions, as people would type them: some only name the subject, some add the style. Keep every colour and the "
    "subject as given, add no colour and no detail that the facts do not hold. One caption on each line, no numbers, "
    "nothing else."
)
_DESCRIBE = (
    "You write captions that teach a picture generator. Look at the picture and write {wanted} different short English "
    "captions of it: what it shows, its main colours, its style. One caption on each line, no numbers, nothing else."
)
_REFUSALS = re.compile(
    r"(?:sure|certainly|of course|okay|sorry)[,!:]|(?:here (?:are|is)|here's|i'm sorry|i am sorry|i cannot|i can't|"
    r"as an ai|let me|the facts)\b|(?:note|captions?|facts|subject|style|kind):",
    re.IGNORECASE,
)


class Request(NamedTuple):
    """What is asked of a model for one picture.

    `facts`: lines about it, "" when only the picture can tell. `grounds`: words of which an answer must hold one.
    `colours`: colour words that it may use; None allows all. `picture`: a PNG for models that see, else None.
    """

    wanted: int
    facts: str
    grounds: frozenset[str] = frozenset()
    colours: frozenset[str] | None = None
    picture: bytes | None = None

    @property
    def instruction(self) -> str:
        """What the model is told to do."""
        return (_REWRITE if self.picture is None else _DESCRIBE).format(wanted=self.wanted)

    def digest(self, origin: str) -> str:
        """The same for the same question to the same model."""
        parts = (origin, self.instruction, self.facts, hashlib.sha256(self.picture or b"").hexdigest())
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class Rewriter(Protocol):
    """A model. `origin` marks its captions; it takes `batch` requests at a time, from `workers` threads."""

    @property
    def origin(self) -> str: ...
    @property
    def batch(self) -> int: ...
    @property
    def workers(self) -> int: ...

    def answers(self, requests: Sequence[Request]) -> list[str]:
        """One text for each request. Raises LimnerError when the model cannot answer at all."""
        ...

    def close(self) -> None:
        """Give up: calls that wait for another try end now, with LimnerError."""
        ...


def usable_lines(answer: str, request: Request) -> list[str]:
    """The captions in a model's answer, at most as many as wanted; [] when it is rubbish.

    Lines lose numbers, bullets and quotation marks. A line is dropped that is empty, longer than `MOST_CHARACTERS`,
    mostly not letters, babble (one word over and over), a refusal or preamble, a piece of the instruction, without any
    word of the facts, or that names a colour the facts do not.
    """
    lines = dict.fromkeys(map(_bare, _lines(answer)))
    return [line for line in lines if _is_caption(line) and _fits(line, request)][: request.wanted]


def _lines(answer: str) -> Iterable[str]:
    text = re.sub(r"<think>.*?(?:</think>|\Z)|```\w*", "", answer, flags=re.DOTALL).strip()
    try:
        parsed = json.loads(text)
    except ValueError:
        return text.splitlines()
    return [each for each in parsed if isinstance(each, str)] if isinstance(parsed, list) else []


def _bare(line: str) -> str:
    line = re.sub(r"^\s*(?:[-*•]+|\(?\d{1,2}[.):]|caption\s*\d*\s*:)\s*", "", line, flags=re.IGNORECASE)
    return re.sub(r"\s+", " ", line).strip(" \t\"'“”*`").rstrip(".")


def _is_caption(line: str) -> bool:
    if not 2 <= len(line) <= MOST_CHARACTERS or not line.isprintable() or line.endswith(":"):
        return False
    letters = sum(character.isalpha() or character == " " for character in line)
    words = line.lower().split()
    babble = len(words) > 5 and len(set(words)) * 2 < len(words)
    return letters >= 0.75 * len(line) and not babble and not _REFUSALS.match(line)


def _fits(line: str, request: Request) -> bool:
    words = re.findall(r"[\w'-]+", line.lower())
    told = " ".join(re.findall(r"[\w'-]+", request.instruction.lower()))
    if any(" ".join(words[i : i + 5]) in told for i in range(max(1, len(words) - 4)) if len(words) >= 5):
        return False
    stems = {word[:4] for word in words}
    if request.grounds and not any(word[:4] in stems for word in request.grounds):
        return False
    return request.colours is None or not (set(words) & COLOUR_WORDS) - request.colours


def picture_for_model(data: bytes, name: str) -> bytes:
    """A picture file as a PNG that models see well: on white, 256 to 768 px on its longer side.

    Raises LimnerError for a file that is no picture.
    """
    picture = decoded(data, name)
    shown = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    longer = max(shown.size)
    side = min(max(longer, _PICTURE_SIDES[0]), _PICTURE_SIDES[1])
    size = (max(1, round(shown.width * side / longer)), max(1, round(shown.height * side / longer)))
    file = io.BytesIO()
    shown.resize(size, Image.Resampling.LANCZOS).save(file, "PNG")
    return file.getvalue()


def decoded(data: bytes, name: str) -> Image.Image:
    """A picture as RGBA. Raises LimnerError with its `name`."""
    try:
        return Image.open(io.BytesIO(data)).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise LimnerError(f"{name}: not a readable picture ({error}); repair or remove it.") from None
