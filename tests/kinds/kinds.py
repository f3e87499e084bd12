"""The table of kinds: what each module takes, and what it answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from msgspec import UNSET
from numpy.typing import NDArray
from torch import nn

from rollout import Audio, Category, Image, Number, Table, Tensor, Text, Time
from rollout.bundle.columns import arguments
from rollout.bundle.fields import Field
from rollout.bundle.parity import count, take
from rollout.bundle.schema import Arrays
from tests.kinds import fitted, images, pretrained, sequences, tables
from tests.sounds import in_base64, sound, tone

SPREAD = 6.0
PICTURE = {"image": Image(height=images.SIDE, width=images.SIDE, channels=3)}
TWO_PICTURES = dict.fromkeys(("one", "other"), PICTURE["image"])
SERIES = {"series": Tensor(shape=(sequences.STEPS, sequences.CHANNELS), minimum=-10, maximum=10)}
ANY_LENGTH = {"series": Tensor(shape=("steps", sequences.CHANNELS), longest=40, minimum=-10, maximum=10)}
SPEECH = {"sound": Audio(sample_rate=sequences.RATE, longest_s=0.5)}
SOUND = {"sound": Tensor(shape=(sequences.SAMPLES,), minimum=-1, maximum=1, sample_rate=8000)}
TEXT = {"text": Text(max_bytes=sequences.BYTES)}
FEATURES = {"x": Tensor(shape=(tables.FEATURES,), minimum=-10, maximum=10)}
COLUMNS: dict[str, Field] = {
    "distance": Number(minimum=0, maximum=5000),
    "weight": Number(minimum=0, maximum=300),
    "airport": Category(values=tables.AIRPORTS),
    "at": Time(),
}
VOICES = {
    "sound": Tensor(shape=(pretrained.SAMPLES,), minimum=-1, maximum=1, sample_rate=pretrained.RATE),
}
GAPS: dict[str, Field] = {
    "distance": Number(minimum=0, maximum=5000, optional=True),
    "weight": Number(minimum=0, maximum=300, optional=True),
}
GAPS_AND_TEXTS: dict[str, Field] = GAPS | {"airport": Category(values=tables.AIRPORTS, optional=True)}
GAPS_OF_ALL_SORTS: dict[str, Field] = {
    "flight": Table(columns={name: GAPS[name] for name in GAPS}),  # type: ignore[misc]
    "age": Number(minimum=0, maximum=80, optional=True),
    "airport": Category(values=(*tables.AIRPORTS, "elsewhere"), other="elsewhere", optional=True),
}
MISSING = 0.2


def answer(module: nn.Module, rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns what a module gives in Python, where PyTorch says that its quick way for padded texts is new."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
        given: torch.Tensor = module(*rows)
        return given


class Centred(nn.Module):
    """A module whose weights were drawn, and whose outputs are spread as if they had been trained."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, module: nn.Module, rows: Sequence[torch.Tensor], spread: float) -> None:
        super().__init__()
        self.module = module.eval()
        given = answer(module, rows)
        self.register_buffer("mean", given.mean(0))
        self.register_buffer("scale", spread / given.std(0).clamp(min=1e-3))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        logits: torch.Tensor = (self.module(*inputs) - self.mean) * self.scale
        return logits


class Kind(NamedTuple):
    """A model of a kind that teams have.

    Attributes:
        make: Makes the module; ``None`` if it is none.
        inputs: What it takes.
        labels: How many classes it tells apart; 0 for a regression.
        fit: Fits an estimator to rows, in the place of a module.
    """

    make: Callable[[], nn.Module] | None
    inputs: Mapping[str, Field]
    labels: int = 0
    fit: Callable[[fitted.Rows], Any] | None = None

    def module(self) -> nn.Module:
        """Returns the module, with the same weights each time."""
        assert self.make is not None
        torch.manual_seed(0)
        module = self.make().eval()
        if not self.labels:
            return module
        rows = encode(self.inputs, raw_rows(self.inputs, 64, seed=9))
        return Centred(module, [torch.tensor(array) for array in arguments(rows).values()], SPREAD).eval()

    def model(self) -> Callable[[fitted.Rows], NDArray[np.float32]]:
        """Returns what answers raw rows in Python: with logits, or with values."""
        if self.fit is None:
            module = self.module()
            return lambda rows: run_eagerly(module, encode(self.inputs, rows))
        return partial(ask_fitted, self.estimator())

    def estimator(self) -> Any:
        """Returns the estimator, fitted to the same rows each time."""
        assert self.fit is not None
        return self.fit(raw_rows(self.inputs, 300, seed=9))


def run_eagerly(module: nn.Module, inputs: Arrays) -> NDArray[np.float32]:
    """Returns what the module gives in Python, each row by itself."""
    rows = [arguments(take(inputs, slice(row, row + 1))) for row in range(count(inputs))]
    alone = [answer(module, [torch.tensor(array) for array in row.values()]) for row in rows]
    given: NDArray[np.float32] = torch.cat(alone).numpy()
    return given


def ask_fitted(estimator: Any, rows: fitted.Rows) -> NDArray[np.float32]:
    """Returns the logarithms of its own probabilities, or its own values."""
    frame = fitted.frame_of(rows)
    if hasattr(estimator, "predict_proba"):
        return np.asarray(np.log(estimator.predict_proba(frame)), np.float32)
    return np.asarray(estimator.predict(frame), np.float32)


KINDS = {
    "plain-cnn": Kind(images.plain_cnn, PICTURE, 4),
    "depthwise": Kind(images.depthwise, PICTURE, 4),
    "residual": Kind(images.residual, PICTURE, 4),
    "squeeze-excite": Kind(images.squeeze_excite, PICTURE, 4),
    "convnext": Kind(images.convnext, PICTURE, 4),
    "vision-transformer": Kind(images.VisionTransformer, PICTURE, 4),
    "weight-norm": Kind(images.weight_norm, PICTURE, 4),
    "siamese": Kind(images.Siamese, TWO_PICTURES, 2),
    "lstm": Kind(sequences.LastOfLstm, SERIES, 3),
    "gru-both-ways": Kind(sequences.BothWays, SERIES, 3),
    "dilated": Kind(sequences.Dilated, SERIES, 3),
    "attention-pooling": Kind(sequences.AttentionPooling, SERIES, 3),
    "forecast": Kind(sequences.Forecast, SERIES),
    "autoencoder": Kind(sequences.Rebuilt, SERIES),
    "spectrum": Kind(sequences.Spectrum, SOUND, 3),
    "any-length-attention": Kind(sequences.AnyLengthAttention, ANY_LENGTH, 3),
    "any-length-both-ways": Kind(sequences.AnyLengthBothWays, ANY_LENGTH, 3),
    "speech": Kind(sequences.Speech, SPEECH, 3),
    "ngrams": Kind(sequences.Ngrams, TEXT, 3),
    "character-cnn": Kind(sequences.CharacterCnn, TEXT, 3),
    "character-gru": Kind(sequences.CharacterGru, TEXT, 3),
    "masked-transformer": Kind(sequences.MaskedTransformer, TEXT, 3),
    "mixed-columns": Kind(tables.Mixed, COLUMNS, 3),
    "standardised": Kind(tables.Standardised, FEATURES),
    "with-spread": Kind(tables.WithSpread, FEATURES),
    "feature-attention": Kind(tables.FeatureAttention, FEATURES, 3),
    "nearest": Kind(tables.Nearest, FEATURES, 3),
    "missing-values": Kind(tables.WithGaps, GAPS_OF_ALL_SORTS, 3),
    "pretrained-speech": Kind(pretrained.SpeechKinds, VOICES, 3),
    "xgboost": Kind(None, GAPS, 3, fitted.boosted),
    "lightgbm": Kind(None, GAPS, 0, fitted.boosted_value),
    "histogram-boosting": Kind(None, GAPS, 3, fitted.histograms),
    "text-pipeline": Kind(None, GAPS_AND_TEXTS, 3, fitted.pipeline),
}


def raw_rows(inputs: Mapping[str, Field], rows: int, seed: int) -> list[dict[str, Any]]:
    """Returns the inputs of rows as callers send them, as JSON has them."""
    generator = np.random.default_rng(seed)
    return [{name: _raw(field, generator) for name, field in inputs.items()} for _ in range(rows)]


def encode(inputs: Mapping[str, Field], rows: list[dict[str, Any]]) -> Arrays:
    """Returns what training code makes of raw rows."""
    return {name: field.encode([row[name] for row in rows]) for name, field in inputs.items()}


def _raw(field: Field, generator: np.random.Generator) -> Any:
    if getattr(field, "missing", None) is not None and generator.random() < MISSING:
        return None
    if isinstance(field, Table):
        return {name: _raw(column, generator) for name, column in field.columns.items()}
    if isinstance(field, Image):
        coarse = generator.integers(0, 256, (4, 4, 3)).repeat(field.height // 4, 0).repeat(field.width // 4, 1)
        return np.clip(coarse + generator.integers(-20, 20, coarse.shape), 0, 255).tolist()
    if isinstance(field, Text | Category | Time):
        return _raw_text(field, generator)
    if isinstance(field, Audio):
        samples = tone(generator.uniform(0.02, field.longest_s), field.sample_rate, generator.uniform(100, 3000))
        return in_base64(sound(samples + generator.normal(0, 0.02, len(samples)), field.sample_rate))
    assert field.limits is not None
    low, high = field.limits
    steps = () if field.free is None else (int(generator.integers(1, field.free.longest + 1)),)
    drawn = generator.uniform(low, high, (*steps, *field.step_shape))
    return (np.sin(np.cumsum(drawn / 20, 0)) * high / 2 if drawn.ndim else drawn).tolist()


def _raw_text(field: Text | Category | Time, generator: np.random.Generator) -> str:
    if isinstance(field, Text):
        size = int(generator.integers(1, field.max_bytes))
        return "".join(chr(letter) for letter in generator.integers(ord("a"), ord("z") + 1, size))
    if isinstance(field, Category):
        if field.other is not UNSET and generator.random() < MISSING:
            return "none of them"
        return field.values[generator.integers(len(field.values))]
    return (
        f"2026-{generator.integers(1, 13):02}-{generator.integers(1, 29):02}T{generator.integers(24):02}:30:00Z"
    )
