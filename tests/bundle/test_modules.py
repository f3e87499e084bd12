"""Modules as teams bring them: each is packed, or refused in a sentence that says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from rollout import Classification, Labelled, Regression, RolloutError, Tensor, Text, pack
from rollout.bundle.attention import plain_attention
from rollout.bundle.faults import layer_outputs
from rollout.bundle.fields import Field
from rollout.bundle.manifest import Manifest
from rollout.bundle.report import describe
from rollout.bundle.source import ModuleSource
from rollout.bundle.store import open_bundle
from rollout.bundle.verify import load_variant
from rollout.heads import Head

RNG = np.random.default_rng(0)
LABELS = ["a", "b", "c"]
FOUR: dict[str, Field] = {"x": Tensor(shape=(4,), minimum=-10, maximum=10)}
EXAMPLE = {"x": np.array([[1, 2, 3, 4], [4, -3, 2, -1]], np.float32)}


class PaddedTransformer(nn.Module):
    """Classifies a text; in eval mode PyTorch would make nested tensors of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.embed, self.encode, self.head = (
            nn.Embedding(257, 16),
            nn.TransformerEncoder(layer, 2),
            nn.Linear(16, 3),
        )

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Takes the mean over all steps."""
        padding = text == 0
        padding = padding & ~padding.all(1, keepdim=True)
        encoded = self.encode(self.embed(text.long()), src_key_padding_mask=padding)
        return torch.as_tensor(self.head(encoded.mean(1)) * 8)


class LastStep(nn.Module):
    """Picks the last step of a GRU, with ``len`` of the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.gru, self.head = nn.Embedding(50, 8), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        steps, _ = self.gru(self.embed(ids))
        last = ((ids > 0).sum(1) - 1).clamp(min=0)
        return torch.as_tensor(self.head(steps[torch.arange(len(ids)), last]) * 8)


class Gives(nn.Module):
    """A linear layer, and what a function makes of it."""

    def __init__(self, then: Callable[[torch.Tensor], Any] = lambda out: out, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(4, outputs)
        self.then = then

    def forward(self, x: torch.Tensor) -> Any:
        """Returns something."""
        return self.then(self.head(x) * 8)


class ChangesItsInput(Gives):
    """Adds to its input in place."""

    def forward(self, x: torch.Tensor) -> Any:
        """Adds."""
        x[:, 0] += 1
        return self.head(x)


class Branches(Gives):
    """Goes another way for one row in very many."""

    def forward(self, x: torch.Tensor) -> Any:
        """Branches."""
        out = self.head(x)
        if (x[:, 0] > 9.9999).any():
            out = out * 2
        return out * 8


class TakesOut(Gives):
    """Takes a value out of a tensor, although it is the same for all rows."""

    def forward(self, x: torch.Tensor) -> Any:
        """Takes it."""
        return self.head(x) * (8 + (x[0, 0] * 0).item())


class TwoArguments(nn.Module):
    """Takes one more than it is given."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        """Masks."""
        return x * mask


class Company(nn.Module):
    """A recurrent layer over the batch instead of over time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.head = nn.GRU(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Any:
        """Forgets ``batch_first``."""
        out, _ = self.gru(x.unsqueeze(1))
        return self.head(out.squeeze(1)) * 8


@dataclass
class Output:
    """What libraries of models return."""

    logits: torch.Tensor
    loss: torch.Tensor | None = None


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3)).eval()


def compiled_inside(module: nn.Module) -> nn.Module:
    compiled: nn.Module = torch.compile(module)  # type: ignore[assignment]
    return nn.Sequential(compiled)


@pytest.fixture(autouse=True)
def same_rows() -> None:
    """Draws the same rows in a test, whichever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def numbers(rows: int) -> dict[str, Any]:
    return {"x": RNG.normal(size=(rows, 4)).astype(np.float32)}


def packed(
    version: str,
    module: nn.Module,
    inputs: dict[str, Field] = FOUR,
    rows: Callable[[int], dict[str, Any]] = numbers,
    **changes: Any,
) -> Manifest:
    """Packs ``case:version``; its targets are what the module says."""
    x = rows(160)
    y = np.zeros(160, int)
    if "task" not in changes:
        with torch.no_grad(), plain_attention():
            out = module.eval()(*(torch.tensor(array) for array in x.values()))
        y = (out.logits if isinstance(out, Output) else out).argmax(1).numpy()
    y = changes.pop("targets", y)
    parts = [
        Labelled({name: array[at] for name, array in x.items()}, y[at]) for at in (slice(80), slice(80, 160))
    ]
    task = changes.pop("task", Classification(labels=LABELS, risk=0.2))
    return pack(
        module,
        name="case",
        version=version,
        inputs=inputs,
        task=task,
        calibration=parts[0],
        evaluation=parts[1],
        **changes,
    )


def test_a_transformer_with_padding_packs_and_answers_a_text_of_no_bytes() -> None:
    field = Text(max_bytes=16)

    def texts(rows: int) -> dict[str, Any]:
        return {
            "text": field.encode(
                ["".join(map(chr, RNG.integers(97, 123, RNG.integers(1, 16)))) for _ in range(rows)]
            )
        }

    manifest = packed("transformer", PaddedTransformer().eval(), {"text": field}, texts)
    assert {"onnx", "torchscript", "export"} <= set(manifest.variants)
    assert torch.backends.mha.get_fastpath_enabled()
    assert re.fullmatch(
        r"With PyTorch's fast path of attention, which it takes in eval mode, the module itself answers otherwise "
        r"than in training: of \d+ rows \d+ get another answer .*; the bundle answers without the fast path, as in "
        r"training",
        manifest.fast_path,
    )
    assert f"{manifest.fast_path}." in describe(manifest, is_signed=False)[3].text
    folder, _ = open_bundle("case:transformer")
    empty = {"text": field.encode(["", "abc"])}
    scores = [load_variant(folder, manifest, name).run(empty) for name in ("onnx", "torchscript")]
    assert np.isfinite(scores[0]).all()
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.parametrize("looks", [True, False])
def test_the_fast_path_of_attention_is_mentioned_only_where_it_answers_otherwise(*, looks: bool) -> None:
    class Attends(PaddedTransformer):
        """Takes the first step alone, which is no padding, and does without zeros behind it."""

        def forward(self, text: torch.Tensor) -> torch.Tensor:
            padding = text == 0
            encoded = self.encode(self.embed(text.long()), src_key_padding_mask=padding)
            if looks and not encoded[:, -1].any():
                raise ValueError("the last step is empty")
            return torch.as_tensor(self.head(encoded[:, 0]) * 8)

    texts = np.zeros((8, 16), np.uint8)
    texts[:, :3] = RNG.integers(97, 123, (8, 3))
    source = ModuleSource(Attends().eval(), Classification(labels=LABELS), {"text": texts})
    found = source.fast_path_difference({"text": texts}, source.run({"text": texts}))
    if looks:
        assert (
            "the module itself fails on the evaluation part: the last step is empty; the bundle answers" in found
        )
    else:
        assert not found


def test_the_fast_path_of_attention_comes_back_when_the_last_is_done() -> None:
    with plain_attention():
        with plain_attention():
            assert not torch.backends.mha.get_fastpath_enabled()
        assert not torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_trace_that_fixes_the_number_of_rows_leaves_the_other_variants() -> None:
    field = Tensor(shape=(12,), dtype="int64", minimum=0, maximum=49)
    manifest = packed(
        "last", LastStep().eval(), {"ids": field}, lambda rows: {"ids": RNG.integers(1, 50, (rows, 12))}
    )
    assert {"onnx", "export"} <= set(manifest.variants)
    assert "torchscript" in manifest.left_out


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
def test_where_torch_export_fails_torchscript_packs_alone() -> None:
    scripted: nn.Module = torch.jit.script(linear())
    manifest = packed("scripted", nn.Sequential(scripted).eval())
    assert list(manifest.variants) == ["torchscript"]
    assert "which is TorchScript already" in manifest.left_out["onnx"].why


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(torch.compile, id="compiled"),
        pytest.param(compiled_inside, id="compiled-inside"),
        pytest.param(nn.DataParallel, id="parallel"),
        pytest.param(lambda module: nn.Sequential(parametrizations.weight_norm(module[0])), id="weight-norm"),
        pytest.param(lambda module: module.requires_grad_(False), id="frozen"),
        pytest.param(lambda _: Gives(lambda out: (out,)), id="a-tuple"),
        pytest.param(lambda _: Gives(lambda out: {"logits": out, "loss": None}), id="a-dict"),
        pytest.param(lambda _: Gives(Output), id="an-output"),
    ],
)
def test_no_variant_is_lost_to_a_wrapper(wrap: Callable[[nn.Module], nn.Module]) -> None:
    module = wrap(linear()).eval()
    source = ModuleSource(module, Classification(labels=LABELS), EXAMPLE)
    assert not any("_orig_mod" in name or "parametrizations" in name for name, _ in source.named_modules())
    program = source.program().module()
    tensors = torch.tensor(EXAMPLE["x"])
    torch.testing.assert_close(source.traced()(tensors), program(tensors))


def test_one_logit_speaks_for_the_second_label() -> None:
    task = Classification(labels=["no", "yes"], risk=0.2)
    for then in (lambda out: out, lambda out: out[:, 0]):
        source = ModuleSource(Gives(then, 1).eval(), task, EXAMPLE)
        assert source.run(EXAMPLE).sum(1) == pytest.approx([1, 1])
        logits = source.module(torch.tensor(EXAMPLE["x"])).reshape(-1)
        assert source.run(EXAMPLE)[:, 1] == pytest.approx(torch.sigmoid(logits).detach().numpy(), abs=1e-6)
    x = numbers(160)
    with torch.no_grad():
        targets = (Gives(outputs=1)(torch.tensor(x["x"]))[:, 0] > 0).long().numpy()
    manifest = packed("logit", Gives(outputs=1).eval(), rows=lambda _: x, task=task, targets=targets)
    assert {"onnx", "torchscript", "export"} <= set(manifest.variants)
    assert manifest.metrics["accuracy"] == 1
    assert isinstance(manifest.task, Classification)
    assert manifest.task.temperature != 1


THREE = Classification(labels=LABELS)


@pytest.mark.parametrize(
    ("module", "task", "words"),
    [
        (
            Gives(lambda out: (out, out[:, :1])),
            THREE,
            r"a tuple with 0: float32 \(2, 3\), 1: float32 \(2, 1\); 3 labels",
        ),
        (
            Gives(lambda out: {"kind": out, "price": out}),
            THREE,
            r"a dict with kind: .*, price: .* give each answer a head",
        ),
        (Gives(lambda out: Output(out, out)), THREE, r"a Output with logits: .*, loss: float32"),
        (Gives(lambda _: None), THREE, "the module returns None; 3 labels need logits"),
        (Gives(lambda out: out.numpy()), THREE, "the module returns a numpy.ndarray; 3 labels need"),
        (Gives(lambda out: out > 0), THREE, "the module returns truth values; .* before a comparison"),
        (Gives(lambda out: out.long()), THREE, "the module returns numbers of type int64"),
        (Gives(lambda out: out.to(torch.complex64)), THREE, "the module returns numbers of type complex64"),
        (Gives(lambda out: out.sum()), THREE, r"outputs of shape \(\) for 2 rows"),
        (
            Gives(lambda out: torch.nested.as_nested_tensor(list(out), layout=torch.jagged)),
            THREE,
            "a nested tensor",
        ),
        (Gives(lambda out: out.to_sparse()), THREE, "a sparse tensor"),
        (ChangesItsInput(), THREE, r"module itself \(ChangesItsInput\) changes the tensor that it is given"),
        (nn.Sequential(nn.ReLU(inplace=True), Gives()), THREE, r"layer 0 \(ReLU\) changes the tensor that it is"),
        (
            TwoArguments(),
            THREE,
            r"forward takes \(x.*, mask.*\).*one tensor for each field, in their order: x: miss",
        ),
        (nn.Sequential(nn.LazyLinear(3)), THREE, r"layer 0 \(LazyLinear\) was never called"),
        (Gives().half(), THREE, r"layer head \(Linear\) holds float16.*call module.float\(\)"),
        (nn.Linear(4, 3, device="meta"), THREE, "lies on the meta device"),
        (nn.Linear(5, 3), THREE, "the module cannot take its own fields: mat1 and mat2"),
    ],
)
def test_what_is_not_taken_is_named(module: nn.Module, task: Head, words: str) -> None:
    with pytest.raises(RolloutError, match=words):
        ModuleSource(module.eval(), task, EXAMPLE)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Branches(), r"test_modules.py, line \d+, `if .*any\(\):`\): compute both and choose with torch.where.*"),
        (Branches(), r"torchscript: .*a trace would fix a value for all rows in test_modules.py, line \d+, `if "),
        (Company(), r"layer gru \(GRU\) answers for a row according to the rest of its batch"),
    ],
)
def test_what_decides_by_values_or_company_is_refused_with_its_line(module: nn.Module, words: str) -> None:
    with pytest.raises(RolloutError, match=words):
        packed("refused", module.eval())


def test_a_trace_does_not_keep_a_value_that_was_taken_out() -> None:
    with pytest.raises(RolloutError, match=r"line \d+, `return self.head.*: leave it a tensor"):
        ModuleSource(TakesOut().eval(), THREE, EXAMPLE).traced()


def test_several_targets_are_not_taken_for_a_spread() -> None:
    with pytest.raises(RolloutError, match="several targets need their names"):
        packed("targets", Gives(outputs=2).eval(), task=Regression(), targets=np.zeros(160))


def test_arguments_in_another_order_are_refused() -> None:
    example = {"mask": EXAMPLE["x"], "x": EXAMPLE["x"]}
    with pytest.raises(RolloutError, match="the same names in another order"):
        ModuleSource(TwoArguments().eval(), THREE, example)


def test_layers_may_return_anything() -> None:
    outputs: list[Callable[[torch.Tensor], Any]] = [
        lambda _: None,
        lambda _: "text",
        lambda x: {"a": [x, (x, None)]},
        lambda x: torch.nested.as_nested_tensor(list(x), layout=torch.jagged),
        Output,
    ]

    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(map(Gives, outputs))

        def forward(self, x: torch.Tensor) -> Any:
            for layer in self.layers:
                layer(x)
            return x[:, :3]

    found = layer_outputs(Layers().eval(), (torch.tensor(EXAMPLE["x"]),))
    assert [len(found[f"layers.{at}"]) for at in range(5)] == [0, 0, 2, 2, 1]


def test_a_weak_model_packs_and_all_goes_to_review() -> None:
    targets = RNG.integers(0, 3, 160)
    task = Classification(labels=LABELS, risk=0.1)
    manifest = packed("weak", linear(), task=task, targets=targets)
    assert manifest.task.needs_review(np.eye(3, dtype=np.float32)).all()
    assert manifest.metrics["review_rate"] == 1
    _, read = open_bundle("case:weak")
    assert read == manifest
    sections = {section.title: " ".join(section.text) for section in describe(manifest, is_signed=False)}
    assert "Every prediction goes to review." in sections["case:weak"]
    assert "no threshold keeps the error at 10.0% with probability 95%" in sections["Calibration"]
    assert "29 rows without an error" in sections["Calibration"]


def test_a_threshold_of_ones_own_is_kept_and_the_report_says_its_risk() -> None:
    task = Classification(labels=LABELS, review_threshold=0.3)
    manifest = packed("own", linear(), task=task, targets=RNG.integers(0, 3, 160))
    assert manifest.task.review_limit == 0.3
    text = next(each.text[0] for each in describe(manifest, is_signed=False) if each.title == "Calibration")
    assert "The review threshold of 0.3000 is the author's own." in text
    assert "with probability 95%, at most" in text
