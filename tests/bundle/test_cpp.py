"""A C++ application gets the scores from a bundle that Python got when it was packed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.cpp_extension import include_paths, library_paths

from rollout.bundle.golden import Golden, read_golden
from rollout.bundle.store import open_bundle
from tests.conftest import need

SOURCE = Path(__file__).parent / "cpp" / "golden.cpp"
TOLERANCE = 1e-5  # of the largest score


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``golden.cpp``, compiled against the libtorch of the torch wheel."""
    need("g++")
    program = tmp_path_factory.mktemp("cpp") / "golden"
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    includes = [f"-I{path}" for path in include_paths()]
    libraries = [flag for path in library_paths() for flag in (f"-L{path}", f"-Wl,-rpath,{path}")]
    options = ["-std=c++20", abi, *includes]
    subprocess.run(["g++", *options, SOURCE, "-o", program, *libraries, "-ltorch_cpu", "-lc10"], check=True)
    return program


def compare(program: Path, model: Path, golden: Golden, folder: Path) -> tuple[float, int]:
    """Returns what the program prints: the largest difference, and how many rows get another argmax."""
    rows = folder / "rows.pt"
    torch.save([torch.tensor(array) for array in (golden.scores, *golden.inputs.values())], rows)
    printed = subprocess.run([program, model, rows], check=True, stdout=subprocess.PIPE, text=True).stdout
    difference, flipped = printed.split()
    return float(difference), int(flipped)


@pytest.mark.parametrize("tag", ["digits:v2", "languages:v1", "departures:v1"])
@pytest.mark.usefixtures("bundles", "more_bundles")
def test_cpp_gets_the_golden_scores(tag: str, program: Path, tmp_path: Path) -> None:
    folder, _ = open_bundle(tag)
    golden = read_golden(folder)
    difference, flipped = compare(program, folder / "torchscript" / "model.pt", golden, tmp_path)
    assert difference <= TOLERANCE * float(np.abs(golden.scores).max())
    assert flipped == 0


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_cpp_takes_inputs_of_every_type_and_sees_what_differs(program: Path, tmp_path: Path) -> None:
    class Sum(torch.nn.Module):
        def forward(self, image: torch.Tensor, number: torch.Tensor, word: torch.Tensor) -> torch.Tensor:
            return image.float().mean((1, 2))[:, None] + number + word[:, :3].float()

    generator = np.random.default_rng(0)
    inputs: dict[str, NDArray[Any]] = {
        "image": generator.integers(256, size=(4, 8, 8), dtype=np.uint8),
        "number": generator.normal(size=(4, 1)).astype(np.float32),
        "word": generator.integers(1000, size=(4, 5), dtype=np.int64),
    }
    tensors = tuple(torch.tensor(array) for array in inputs.values())
    module = Sum()
    with torch.no_grad():
        torch.jit.trace(module, tensors).save(str(tmp_path / "model.pt"))  # type: ignore[no-untyped-call]
        scores = module(*tensors).numpy()

    assert compare(program, tmp_path / "model.pt", Golden(inputs, scores), tmp_path) == (0, 0)
    altered = np.concatenate([scores[:2], -scores[2:]])
    difference, flipped = compare(program, tmp_path / "model.pt", Golden(inputs, altered), tmp_path)
    assert difference == pytest.approx(2 * scores[2:].max())
    assert flipped == 2
