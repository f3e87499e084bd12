"""The application that uvicorn runs: our routes first, and BentoML's lifespan and own routes behind them."""

from __future__ import annotations

from rollout.http.dispatcher import Dispatcher
from service.service import Predictor, all_routes, api

app = Dispatcher(Predictor.to_asgi(), api, all_routes)  # type: ignore[attr-defined]  # the decorator made it a Service
