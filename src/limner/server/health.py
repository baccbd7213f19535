"""For machines that look after the server: /livez, /readyz and /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from limner.server.service import Service

router = APIRouter(tags=["health"])
metrics_router = APIRouter(tags=["health"])


class Health(BaseModel):
    """`models`: whether each is loaded. `warm`: whether batches of every size are compiled; until then they are cut
    into smaller ones, and streams hold no partial pictures.
    """

    status: str
    models: dict[str, bool] = {}
    warm: bool = False


@router.get("/livez", response_model=Health)
async def livez() -> JSONResponse:
    """The process runs and its event loop turns. Restart it when this fails."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz", response_model=Health, responses={503: {"model": Health, "description": "Loading, or draining"}})
async def readyz(request: Request) -> JSONResponse:
    """Models are loaded and warm, and the server is not about to end. Send no requests while this fails."""
    service: Service = request.app.state.service
    loaded = {name: name in service.painters or name in service.upscalers for name in service.bundles}
    body = {"status": service.state, "models": loaded, "warm": service.warm}
    return JSONResponse(body, 200 if service.ready else 503)


@metrics_router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Metrics for Prometheus."""
    service: Service = request.app.state.service
    return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)
