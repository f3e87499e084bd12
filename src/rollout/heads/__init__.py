"""What a model answers: a class a kind."""

from rollout.heads.box_truth import box_targets
from rollout.heads.boxes import Boxes
from rollout.heads.classification import Classification
from rollout.heads.embedding import Embedding
from rollout.heads.head import Flags, Head, Scores
from rollout.heads.multi_label import MultiLabel
from rollout.heads.quantiles import Quantiles
from rollout.heads.reading import decode_head, read_head
from rollout.heads.regression import Regression
from rollout.heads.score import Score
from rollout.heads.several import Heads
from rollout.heads.structured import targets_of
from rollout.heads.targets import Targets
from rollout.heads.tensors import Output, Tensors
from rollout.heads.token_labels import TokenLabels
from rollout.heads.truth import Span, Truth

__all__ = [
    "Boxes",
    "Classification",
    "Embedding",
    "Flags",
    "Head",
    "Heads",
    "MultiLabel",
    "Output",
    "Quantiles",
    "Regression",
    "Score",
    "Scores",
    "Span",
    "Targets",
    "Tensors",
    "TokenLabels",
    "Truth",
    "box_targets",
    "decode_head",
    "read_head",
    "targets_of",
]
