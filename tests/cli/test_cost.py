"""``rollout cost``, as it is typed."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner

from rollout.cli.cost import cost, parse_prices
from rollout.cost import BATCH_SIZES, cost_per_million
from rollout.errors import ConfigError
from tests.bundle.two import Linear, pack_two
from tests.cli.test_cli import run

VARIANTS = ("onnx", "onnx-int8", "torchscript", "export")


def test_json_holds_every_point_and_the_plot_names_every_variant(bundles: str, tmp_path: Path) -> None:
    plot = tmp_path / "cost.svg"
    report = json.loads(run(tmp_path, "cost", "digits:v2", "--price", "cpu=0.04", "--json", "--plot", str(plot)))
    assert (report["tag"], report["prices"], report["not_measured"]) == ("digits:v2", {"cpu": 0.04}, {})
    assert report["machine"]
    on_cpu = [point for point in report["points"] if point["device"] == "cpu"]
    assert {(point["variant"], point["batch_size"]) for point in on_cpu} == {
        (variant, size) for variant in VARIANTS for size in BATCH_SIZES
    }
    for point in on_cpu:
        assert point["rows_per_second"] > 0
        assert point["cost_per_million"] == cost_per_million(0.04, point["rows_per_second"])
    assert " is the cheapest: 0.0" in report["summary"][0]
    drawn = ET.parse(plot).getroot()  # noqa: S314  our own file
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {"".join(element.itertext()) for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert texts >= {f"{variant} on cpu" for variant in VARIANTS} | {"rows in a batch", "1", "8", "32", "64"}
    assert any(text.startswith("digits:v2 on 20") for text in texts)


def test_the_table_has_a_line_for_each_variant(bundles: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollout.cost.SECONDS", 0)
    done = CliRunner(env={"COLUMNS": "120"}).invoke(
        cost, ["digits:v1", "--price", "cpu=0.04", "--price", "gpu=2.5", "--rate", "100", "--p99", "500"]
    )
    output = done.output
    for variant in ("onnx", "torchscript", "export"):
        (line,) = [line for line in output.splitlines() if re.match(rf" {variant} +cpu ", line)]
        speeds = line.split()[2:7]
        assert len(speeds) == 5
        assert all(float(cell.replace(",", "")) > 0 for cell in speeds)
    assert re.search(
        r"At 100 rows a second with p99 under 500 ms, onnx on cpu: \d+ cores?, batches of about", output
    )
    assert "onnx-int8 was left out: it answers more than" in output
    assert re.search(r" at batches of \d+ is the cheapest: 0\.0\d+ per million predictions; ", output)
    if not re.search(r"^ \S+ +cuda ", output, re.M):
        assert re.search(r"No GPU was found .* one at 2\.5 an hour would be cheaper above [\d,]+ rows", output)


def test_threads_in_a_batch_are_shown_beside_batches_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pack_two("cost-threads", Linear().eval(), variants=["onnx"])
    for name, instead in {"SECONDS": 0, "COSTLY": 0.0, "usable_cores": lambda: 2}.items():
        monkeypatch.setattr(f"rollout.cost.{name}", instead)
    done = CliRunner().invoke(cost, ["two:cost-threads"])
    said = (
        r"onnx on 2 cores: .* with one thread, [\d,.e+]+ rows/s .*; one batch with 2 threads, .*: the \w+ serve\."
    )
    assert re.search(said, done.output), done.output
    (found,) = json.loads(CliRunner().invoke(cost, ["two:cost-threads", "--json"]).output)["threads"].values()
    assert found["in_a_batch"] in {1, 2}
    assert {"apart", "together"} <= found.keys()
    assert all(found[way]["rows_per_second"] > 0 < found[way]["one_row_ms"] for way in ("apart", "together"))


def test_an_unknown_bundle_is_named(bundles: str, tmp_path: Path) -> None:
    assert run(tmp_path, "cost", "digits:v9", code=1) == (
        "rollout: there is no bundle digits:v9; `rollout ls` shows what the store has\n"
    )
    assert run(tmp_path, "cost", "digits:v2", "--price", "tpu=1", code=1) == (
        "rollout: --price tpu=1: a price is cpu=… or gpu=…, such as cpu=0.04\n"
    )


def test_a_latency_is_of_a_rate(bundles: str, tmp_path: Path) -> None:
    said = "rollout: --p99 is of a rate: add --rate ROWS_A_SECOND\n"
    assert run(tmp_path, "cost", "digits:v2", "--p99", "5", code=1) == said


def test_prices_by_device() -> None:
    assert parse_prices([]) == {}
    assert parse_prices(["gpu=2.50", "cpu=4e-2"]) == {"cuda": 2.5, "cpu": 0.04}


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        (["0.04"], "a price is cpu=… or gpu=…"),
        (["tpu=1"], "a price is cpu=… or gpu=…"),
        (["cuda=1"], "a price is cpu=… or gpu=…"),
        (["cpu=1", "cpu=2"], "--price cpu=2: cpu has a price already"),
        (["cpu="], "nothing is not a price; it must be a number above 0"),
        (["cpu"], "nothing is not a price"),
        (["cpu=cheap"], "cheap is not a price"),
        (["cpu=-1"], "-1 is not a price"),
        (["gpu=0"], "0 is not a price"),
        (["gpu=nan"], "nan is not a price"),
        (["gpu=inf"], "inf is not a price"),
    ],
)
def test_what_is_no_price(prices: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=f"--price .*{re.escape(words.removeprefix('--price '))}"):
        parse_prices(prices)


def test_a_plot_that_cannot_be_drawn_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(plot: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            cost.main(["digits:v2", "--plot", str(plot)], standalone_mode=False)
        return caught.value.detail

    assert refused(tmp_path / "cost.bmp").endswith("draws .svg or .png")
    assert refused(tmp_path / "nowhere" / "cost.svg").endswith(f"there is no folder {tmp_path / 'nowhere'}")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert refused(tmp_path / "cost.svg") == "--plot needs matplotlib: pip install 'rollout[pack]'"
