"""What can be packed: a module, a file, or an object that was fitted or exported elsewhere, by its kind."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from rollout.bundle.estimators import Estimator, Lightgbm, Sklearn, Xgboost, make_source
from rollout.bundle.fields import Field
from rollout.bundle.module import first_line
from rollout.bundle.onnx_source import OnnxSource
from rollout.bundle.parity import take
from rollout.bundle.quiet import quiet
from rollout.bundle.schema import Labelled
from rollout.bundle.script_source import ExportedSource, ScriptSource
from rollout.bundle.source import ModuleSource, Source
from rollout.errors import BundleError
from rollout.heads import Head

PICKLES = (".pkl", ".pickle", ".joblib")


class Kind(ABC):
    """A kind of artefact.

    Attributes:
        name: What it is called.
        suffixes: What names of its files end in.
        package: The package whose objects are of this kind.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    package: str
    # Whether it takes the columns of a table one by one, each as a field of its own.
    has_columns: bool = False

    def has(self, thing: Any) -> bool:
        """Whether an object is of this kind."""
        return any(base.__module__.partition(".")[0] == self.package for base in type(thing).__mro__)

    def load(self, path: Path) -> Any:
        """Reads a file of this kind, if there are any.

        Raises:
            Exception: Whatever the package raises on what is no such file.
        """
        raise NotImplementedError

    def inputs(self, thing: Any) -> list[str]:
        """Returns the names of its inputs in their order, as far as it knows them."""
        return []

    def known_texts(self, thing: Any) -> Mapping[str, Sequence[str]] | None:
        """Returns the texts that columns of it may be, as far as it knows them; ``None`` if it takes no texts."""
        return None

    @abstractmethod
    def source(
        self, thing: Any, task: Head, fields: Mapping[str, Field], parts: Mapping[str, Labelled], flip_rate: float
    ) -> Source:
        """Makes a source of an object of this kind; see ``open_source``."""


class OnnxFile(Kind):
    """An ONNX graph; its weights may lie beside it in its own folder, and nowhere else."""

    name = "ONNX"
    suffixes = (".onnx",)
    package = "onnx"
    has_columns = True

    def load(self, path: Path) -> onnx.ModelProto:
        """Reads the graph and its weights."""
        model = onnx.load(path)
        onnx.checker.check_model(model)
        return model

    def source(
        self, thing: Any, task: Head, fields: Mapping[str, Field], parts: Mapping[str, Labelled], flip_rate: float
    ) -> Source:
        """Makes the fields its inputs."""
        rows = {name: np.concatenate([part.inputs[name] for part in parts.values()]) for name in fields}
        return OnnxSource(thing, task, fields, rows)


class TorchScriptFile(Kind):
    """A module in TorchScript. Reading one runs its code."""

    name = "TorchScript"
    suffixes = (".pt", ".ts", ".torchscript")
    package = "torch"

    def has(self, thing: Any) -> bool:
        """Whether it is one."""
        return isinstance(thing, torch.jit.ScriptModule)

    def load(self, path: Path) -> Any:
        """Reads it onto the processor."""
        return torch.jit.load(str(path), map_location="cpu")

    def inputs(self, thing: Any) -> list[str]:
        """Returns the arguments of ``forward``."""
        return [argument.name for argument in thing.forward.schema.arguments[1:]]

    def source(
        self, thing: Any, task: Head, fields: Mapping[str, Field], parts: Mapping[str, Labelled], flip_rate: float
    ) -> Source:
        """Takes it as the module that it is."""
        return ScriptSource(thing, task, take(parts["evaluation"].inputs, slice(0, 2)), fields)


class ExportFile(Kind):
    """A package of ``torch.export``. Reading one can unpickle."""

    name = "torch.export"
    suffixes = (".pt2",)
    package = "torch"

    def has(self, thing: Any) -> bool:
        """Whether it is one."""
        return isinstance(thing, torch.export.ExportedProgram)

    def load(self, path: Path) -> Any:
        """Reads it."""
        return torch.export.load(path)

    def inputs(self, thing: Any) -> list[str]:
        """Returns the names of its placeholders."""
        return list(thing.graph_signature.user_inputs)

    def source(
        self, thing: Any, task: Head, fields: Mapping[str, Field], parts: Mapping[str, Labelled], flip_rate: float
    ) -> Source:
        """Takes the module of the program."""
        return ExportedSource(thing, task, take(parts["evaluation"].inputs, slice(0, 2)), fields)


class ModuleObject(Kind):
    """A module of PyTorch; no file holds one, since its code is elsewhere."""

    name = "PyTorch module"
    package = "torch"

    def has(self, thing: Any) -> bool:
        """Whether it is one."""
        return isinstance(thing, torch.nn.Module)

    def source(
        self, thing: Any, task: Head, fields: Mapping[str, Field], parts: Mapping[str, Labelled], flip_rate: float
    ) -> Source:
        """Takes it."""
        return ModuleSource(thing, task, take(parts["evaluation"].inputs, slice(0, 2)), fields)


class Fitted(Kind):
    """A fitted estimator, which is converted to ONNX.

    Args:
        name: What the kind is called.
        suffixes: What names of its files end in.
        package: The package whose objects are of this kind.
        estimator: What converts one.
        read: Reads a file.
    """

    has_columns = True

    def __init__(
        self,
        name: str,
        suffixes: tuple[str, ...],
        package: str,
        estimator: type[Estimator],
        read: Callable[[Path], Any],
    ) -> None:
        self.name, self.suffixes, self.package = name, suffixes, package
        self._estimator, self._read = estimator, read

    def load(self, path: Path) -> Any:
        """Reads a file of this kind."""
        return self._read(path)

    def known_texts(self, thing: Any) -> Mapping[str, Sequence[str]] | None:
        """Returns what its encoders were fitted on."""
        return self._estimator(thing).known_texts() if self._estimator.takes_texts else None

    def source(
        self, thing: Any, task: Head, fields: Mapping[str, Field], parts: Mapping[str, Labelled], flip_rate: float
    ) -> Source:
        """Converts it and compares."""
        return make_source(self._estimator(thing), task, fields, parts, flip_rate)


def _booster_of(package: str) -> Callable[[Path], Any]:
    return lambda path: import_module(package).Booster(model_file=str(path))


def _unpickle(path: Path) -> Any:
    return import_module("joblib").load(path)


FITTED = (
    Fitted("XGBoost", (".json", ".ubj"), "xgboost", Xgboost, _booster_of("xgboost")),
    Fitted("LightGBM", (".txt", ".lgb"), "lightgbm", Lightgbm, _booster_of("lightgbm")),
    # It has no file but a pickle, which may hold the others, too.
    Fitted("scikit-learn", PICKLES, "sklearn", Sklearn, _unpickle),
)

# The first that has a thing takes it: TorchScript is a module, too, and XGBoost's and LightGBM's wrappers are
# estimators of scikit-learn.
KINDS: tuple[Kind, ...] = (OnnxFile(), TorchScriptFile(), ExportFile(), ModuleObject(), *FITTED)


def open_source(
    artefact: Any,
    task: Head,
    fields: Mapping[str, Field],
    parts: Mapping[str, Labelled],
    flip_rate: float,
    *,
    trust_pickle: bool = False,
) -> Source:
    """Makes a source of what is to be packed.

    Args:
        artefact: A path, or an object that was trained, fitted, exported or loaded.
        task: What it answers.
        fields: The input schema.
        parts: Rows by the name of their part, ``evaluation`` at least.
        flip_rate: Largest share of their rows that a converted estimator may answer otherwise than itself.
        trust_pickle: Whether a pickle may be read.

    Raises:
        BundleError: If it is of no kind that is known, cannot be read, or cannot be trusted.
    """
    origin: dict[str, Any] = {}
    if isinstance(artefact, str | Path):
        path = Path(artefact)
        artefact = load_artefact(path, trust_pickle=trust_pickle)
        origin = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    kind = kind_of(artefact)
    parts = {name: part.only(fields) for name, part in parts.items()}
    source = kind.source(artefact, task, fields, parts, flip_rate)
    source.origin = {"kind": kind.name, **origin, **source.origin}
    return source


def kind_of(thing: Any) -> Kind:
    """Returns the kind of an object.

    Raises:
        BundleError: If it is of none.
    """
    for kind in KINDS:
        if kind.has(thing):
            return kind
    names = ", ".join(kind.name for kind in KINDS)
    raise BundleError(f"{type(thing).__name__} is nothing that can be packed; that is {names}")


def load_artefact(path: Path, *, trust_pickle: bool = False) -> Any:
    """Reads a file; which kind it is, its suffix says.

    Args:
        path: Where it lies.
        trust_pickle: Whether a pickle may be read, which runs whatever code is in it.

    Raises:
        BundleError: If there is none, its suffix says nothing, it is a pickle, or it cannot be read.
    """
    if not path.is_file():
        raise BundleError(f"{path} is no file")
    if path.suffix in PICKLES and not trust_pickle:
        raise BundleError(
            f"{path} is a pickle, and reading one runs whatever code is in it: if you made it, load it yourself "
            "and give pack the object, or say --trust-pickle to `rollout import`"
        )
    kind = next((kind for kind in KINDS if path.suffix in kind.suffixes), None)
    if kind is None:
        known = "; ".join(f"{', '.join(kind.suffixes)} ({kind.name})" for kind in KINDS if kind.suffixes)
        raise BundleError(f"{path}: the name of an artefact ends in one of {known}")
    try:
        with quiet():
            return kind.load(path)
    except ImportError as error:
        raise BundleError(f"{path} needs {error.name}: pip install 'rollout[import]'") from error
    except Exception as error:
        raise BundleError(f"{path} cannot be read as {kind.name}: {first_line(error)}") from error
