"""FastAPI under uvicorn: one request, one call of the model. It has no batching of its own."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

from loadtests.peers.model import Model

app = FastAPI()
model = Model()


class Body(BaseModel):
    """One image."""

    image: list[list[int]]


class Answer(BaseModel):
    """Its scores."""

    scores: list[float]


@app.post("/predict")
async def predict(body: Body) -> Answer:
    """Scores one image on the event loop: handing it to a thread costs more than the small model."""
    return Answer(scores=model.score([body.image])[0].tolist())
