"""`/v1/images/feedback`: rate a picture, think again, take it back. Mounted where the operator names a database."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, FastAPI, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from limner.errors import LimnerError
from limner.runtime.generate import MAX_SEED
from limner.runtime.generate import Request as Asked
from limner.server.access import allowed
from limner.server.errors import ApiError, refused
from limner.server.ratings import RATINGS, Rating, Store, graph_hash
from limner.server.schema import Whole, square

MOST_WORDS = 2000  # characters of a comment
A_DAY = 24 * 3600 * 1000

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="What an earlier rating was answered with.")]


class FeedbackRequest(BaseModel):
    """A rating names the picture by what painted it."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, max_length=10_000)
    seed: Whole = Field(ge=0, le=MAX_SEED)
    rating: Whole = Field(ge=RATINGS[0], le=RATINGS[-1], description="1 (bad) to 5 (good).")
    model: str | None = Field(default=None, max_length=200, description="None: the first painter.")
    style: str | None = Field(default=None, max_length=200)
    negative_prompt: str | None = Field(default=None, max_length=10_000)
    size: str | None = Field(default=None, pattern=r"^(auto|\d{1,5}x\d{1,5})$", description="As it was painted.")
    milliseconds: float | None = Field(default=None, ge=0, le=A_DAY, description="From the request to the picture.")
    comment: str | None = Field(default=None, max_length=MOST_WORDS)
    id: Id | None = Field(default=None, description="Of an earlier rating, which this one replaces.")


class FeedbackAnswer(BaseModel):
    """`id` revises or removes the rating; nobody else learns it."""

    object: Literal["image.feedback"] = "image.feedback"
    id: str
    rating: int


class FeedbackRemoved(BaseModel):
    object: Literal["image.feedback.deleted"] = "image.feedback.deleted"
    id: str
    deleted: bool = True


router = APIRouter(prefix="/v1/images/feedback", tags=["feedback"], dependencies=[Depends(allowed)])


def mount(app: FastAPI) -> None:
    """Open the store and add the routes. Raises as `Store` does, so that a server with a wrong URL does not start."""
    app.state.feedback = Store(app.state.config.feedback.url)
    app.include_router(router)


# Plain functions: FastAPI runs them in threads, since databases block.


@router.post("")
def rate(body: FeedbackRequest, request: Request) -> FeedbackAnswer:
    """Keep a rating of one picture, or with `id` change one's mind."""
    rating, store = _rating(body, request), _store(request)
    if body.id is None:
        return FeedbackAnswer(id=store.add(rating), rating=rating.rating)
    if not store.replace(body.id, rating):
        raise _unknown(body.id)
    return FeedbackAnswer(id=body.id, rating=rating.rating)


@router.delete("/{id}")
def withdraw(id: Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")], request: Request) -> FeedbackRemoved:
    """Forget a rating."""
    if not _store(request).remove(id):
        raise _unknown(id)
    return FeedbackRemoved(id=id)


def _store(request: Request) -> Store:
    return request.app.state.feedback


def _unknown(id: str) -> ApiError:
    return ApiError(404, f"There is no rating {id}: it was taken back, or never given.", param="id", code="not_found")


def _rating(body: FeedbackRequest, request: Request) -> Rating:
    """What the body says, once the painter agrees that it could have painted that."""
    painter = request.app.state.service.painting(body.model).painter
    asked = Asked(body.prompt, body.seed, body.negative_prompt, body.style, square(body.size) or painter.size)
    try:
        painter.check(asked)
        painter.refuse_unsafe(body.prompt)
    except LimnerError as error:
        raise refused(_at_fault(str(error)), str(error)) from None
    picture = {**asdict(asked), "model": painter.manifest.name, "bundle": graph_hash(painter.manifest)}
    return Rating(rating=body.rating, milliseconds=body.milliseconds, comment=body.comment, **picture)


def _at_fault(sentence: str) -> str:
    """The parameter that a sentence of the painter begins with."""
    words = sentence.split(maxsplit=2)[:2]
    named = {"style": "style", "size": "size", "seed": "seed", "negative": "negative_prompt"}
    return next((param for word, param in named.items() if word in words), "prompt")
