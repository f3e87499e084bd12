"""Silence: what exporters and loaders say about themselves is hidden."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

LOGGERS = ("torch", "torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "torch._guards", "root", "")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides deprecations, absent torchvision and advice, and the graphs that torch prints when it fails."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
