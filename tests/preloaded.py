"""What the commands import, for the process that they are forked from.

BentoML is not among it: when it is imported, it reads where its store is, and that is another one for each command.
"""

from __future__ import annotations

import aiohttp  # noqa: F401
import cryptography.hazmat.primitives.serialization  # noqa: F401
import httpx  # noqa: F401
import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import onnxscript  # noqa: F401
import pydantic  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.linear_model  # noqa: F401
import starlette.applications  # noqa: F401
import torch
import torch.export  # noqa: F401
import uvicorn  # noqa: F401

import rollout.cli.predict
import rollout.cli.review
import rollout.cli.split  # noqa: F401
