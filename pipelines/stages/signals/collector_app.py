"""The collector as a standing program: it collects again and again, and says over HTTP whether it can."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from pipelines.stages.signals.collector import Collector

log = logging.getLogger(__name__)


def make_collector_app(collector: Collector, seconds: float = 1) -> FastAPI:
    """``seconds`` lie between two looks; more after failures, up to a minute."""
    failure: list[str] = []

    async def keep_collecting() -> None:
        pause = seconds
        while True:
            try:
                done = await asyncio.to_thread(collector.collect)
                failure.clear()
                pause = seconds
                if done["kept"] or done["left"]:
                    log.info("%d kept, %d left out, %d wait on", done["kept"], done["left"], done["waits"])
            except Exception as error:
                if not failure:
                    log.exception("collecting failed; what waits stays sealed")
                failure[:] = [repr(error)]
                pause = min(2 * pause, 60)
            await asyncio.sleep(pause)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.create_task(keep_collecting())
        yield
        loop.cancel()

    async def health() -> Response:
        if failure:
            return JSONResponse({"healthy": False, "detail": failure[0]}, status_code=503)
        return JSONResponse({"healthy": True})

    app = FastAPI(title="Assay collector", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/healthz", health, methods=["GET"], response_model=None)
    return app
