"""The reliability diagram shows what the bins hold, and lies in every bundle."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from torch import nn

from rollout import Labelled, Regression
from rollout.bundle.store import open_bundle
from rollout.heads.calibration import half_widths
from rollout.heads.reliability import FILE_NAME, LEVELS, bin_by_confidence, draw_confidence, draw_coverage
from tests.bundle.two import Linear, pack_two


def words(svg: str) -> list[str]:
    root = ET.fromstring(svg)  # noqa: S314  our own
    return ["".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_bins_by_hand() -> None:
    # Fifteenths: 0.5 lies in bin 7, 0.65 and 0.66 in bin 9, 1 in the last one.
    confidence = np.array([0.5, 0.65, 0.66, 0.66, 1.0])
    bins = bin_by_confidence(confidence, np.array([True, True, False, False, True]))
    assert np.flatnonzero(bins.rows).tolist() == [7, 9, 14]
    assert bins.rows[[7, 9, 14]].tolist() == [1, 3, 1]
    assert bins.confidence[[7, 9, 14]] == pytest.approx([0.5, 1.97 / 3, 1])
    assert bins.accuracy[[7, 9, 14]] == pytest.approx([1, 1 / 3, 1])
    assert bins.calibration_error == pytest.approx((0.5 + 0.97 + 0) / 5)


def test_the_calibration_error_is_what_it_should_be() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1, 100_000)
    assert bin_by_confidence(confidence, generator.random(100_000) < confidence).calibration_error < 0.006
    assert bin_by_confidence(np.full(10, 0.9), np.arange(10) < 6).calibration_error == pytest.approx(0.3)
    assert bin_by_confidence(np.ones(4), np.zeros(4, bool)).calibration_error == 1
    # Too sure in one bin and too unsure in another do not cancel out.
    confidence, correct = np.array([0.7, 0.7, 0.9, 0.9]), np.array([True, True, True, False])
    assert bin_by_confidence(confidence, correct).calibration_error == pytest.approx((0.3 + 0.4) / 2)


def test_the_diagram_names_its_axes_and_both_errors() -> None:
    before = bin_by_confidence(np.full(10, 0.9), np.arange(10) < 6)
    after = bin_by_confidence(np.full(10, 0.7), np.arange(10) < 6)
    found = words(draw_confidence(before, after))
    assert {"accuracy", "confidence", "rows"} <= set(found)
    assert "before scaling: calibration error 0.3000" in found
    assert "after scaling: calibration error 0.1000" in found
    assert {"coverage asked for", "coverage observed"} <= set(words(draw_coverage(LEVELS, 0.8)))


def test_the_diagram_is_one_self_contained_element() -> None:
    svg = draw_coverage(LEVELS, 0.9)
    assert svg.startswith("<svg ")
    assert 'href="http' not in svg
    assert "prefers-color-scheme: dark" in svg


def test_two_packs_draw_the_same_bytes_and_hash_them() -> None:
    drawn = []
    for version in ("drawn-1", "drawn-2"):
        manifest = pack_two(version, Linear().eval())
        folder, _ = open_bundle(f"two:{version}")
        assert FILE_NAME in manifest.hashes
        drawn.append((folder / FILE_NAME).read_bytes())
        assert f"after scaling: calibration error {manifest.metrics['calibration_error']:.4f}" in words(
            drawn[-1].decode()
        )
    assert drawn[0] == drawn[1]


def test_observed_coverage_is_that_of_the_intervals() -> None:
    """A regression that is off by standard normal noise: nine in ten intervals for 90 % hold their target."""
    generator = np.random.default_rng(0)

    def noisy(rows: int) -> Labelled:
        x = generator.normal(size=(rows, 2)).astype(np.float32)
        return Labelled({"x": x}, x.sum(1) + generator.normal(size=rows))

    class Sum(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 1)
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    manifest = pack_two(
        "regression", Sum().eval(), task=Regression(coverage=0.9), calibration=noisy(2000), evaluation=noisy(2000)
    )
    folder, _ = open_bundle("two:regression")
    assert "this model asks for 90%" in words((folder / FILE_NAME).read_text())
    assert manifest.metrics["coverage"] == pytest.approx(0.9, abs=0.02)
    residuals = np.abs(generator.normal(size=(2, 20_000)))
    observed = (residuals[0][:, None] <= half_widths(residuals[1], LEVELS)).mean(0)
    assert observed == pytest.approx(LEVELS, abs=0.02)
    assert np.isinf(half_widths(residuals[1][:8], 0.9))
