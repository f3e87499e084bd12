"""What a comparison with the author's own pipeline found is shown: by the report, and where it refuses a bundle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import PIL.Image
import pytest
import torch
from click.testing import CliRunner, Result

from rollout import Answered, Dataset, Recipe, Reference, Version
from rollout.bundle.evidence import WorstRow
from rollout.bundle.manifest import Manifest
from rollout.bundle.report import describe_reference
from rollout.bundle.store import bundle_exists, open_bundle
from rollout.cli import cli
from rollout.training import recipe as recipes
from rollout.training.reproduction import reproduce_version
from tests.bundle.seen import FIELD, TASK, Answer, Texture, answer, files, pack_seen, part, pixels
from tests.cli.test_report import HOSTILE, page, shown

TITLE = "Compared with the author's own pipeline"


def nearly(raw: Mapping[str, Any]) -> Answered:
    """A pipeline with another filter, which is said to do."""
    return Answered(answer(raw).outputs, {"image": pixels(raw, PIL.Image.Resampling.NEAREST)})


@pytest.fixture
def apart() -> tuple[Path, Manifest]:
    if not bundle_exists("seen:apart"):
        pack_seen("apart", reference=Reference(files(), nearly))
    return open_bundle("seen:apart")


def test_the_report_has_the_stages_and_the_worst_rows_as_pictures(
    apart: tuple[Path, Manifest], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = shown(*apart, capsys)
    at = lines.index(TITLE)
    assert "12 raw rows went through tests.cli.test_reference.nearly" in " ".join(lines[at + 1 : at + 4]).replace(
        "`", ""
    )
    stages = [
        line.split()[:4] for line in lines[at:] if re.match(r" (decoded|what the module gives|scores) ", line)
    ]
    assert stages[0] == ["decoded", "image", "12", "12"]
    found = page(*apart)
    pictures = [image["src"] or "" for image in found.all("img")]
    assert [picture[:15] for picture in pictures] == ["data:image/svg+", *["data:image/png;"] * 4]
    assert found.text.count("the author's, the bundle's, and their difference") == 4


def test_what_others_wrote_into_it_is_only_text_and_names_no_file(apart: tuple[Path, Manifest]) -> None:
    folder, manifest = apart
    assert manifest.reference is not None
    worst = [WorstRow(row=1, text=HOSTILE, pictures=["../../secret.png", "manifest.json", "/etc/passwd"])]
    stages = [msgspec.structs.replace(manifest.reference.stages[0], name=HOSTILE, note=HOSTILE)]
    hostile = msgspec.structs.replace(manifest.reference, by=HOSTILE, worst=worst, stages=stages)
    found = page(folder, msgspec.structs.replace(manifest, reference=hostile))
    assert not found.all("script")
    assert found.text.count(HOSTILE) == 4
    assert len(found.all("img")) == 1


def test_that_nobody_has_compared_is_said() -> None:
    (said,) = describe_reference(None, []).text
    assert said.startswith(
        "Nobody has compared: whether a raw input is decided as in training was not looked at."
    )


def recipe(answer: Answer | None) -> Recipe:
    """A recipe of two versions of one model."""
    make = None if answer is None else lambda *_: Reference(files(), answer)
    version = Version(lambda *_: Texture().eval(), TASK, {}, reference=make)
    return Recipe(
        name="seen",
        inputs={"image": FIELD},
        load=lambda: Dataset(part(50, 0), part(400, 1), part(100, 2), "drawn", "by seed"),
        versions={f"{'with' if answer else 'without'}-{number}": version for number in (1, 2)},
    )


def build(home: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer | None) -> Result:
    monkeypatch.setattr(recipes, "load_recipe", lambda _: recipe(answer))
    return CliRunner(env={"ROLLOUT_HOME": str(home), "COLUMNS": "100"}).invoke(cli, ["build", "models/seen"])


def test_without_a_reference_it_is_said_once_that_nobody_has_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = build(tmp_path, monkeypatch, None).output
    assert output.count("nobody has compared") == 1
    assert "seen:without-1, seen:without-2: nobody has compared whether a raw input is decided as in" in output


def test_a_refused_bundle_leaves_a_page_with_its_worst_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nearest(raw: Mapping[str, Any]) -> Answered:
        image = pixels(raw, PIL.Image.Resampling.NEAREST)
        return Answered(Texture()(torch.from_numpy(image)[None]), {"image": image})

    done = build(tmp_path / "home", monkeypatch, nearest)
    file = tmp_path / "home" / "refused" / "seen-with-1.html"
    assert done.exit_code == 1
    assert str(done.exception).endswith(f". {file} shows the stages and the worst rows")
    assert not bundle_exists("seen:with-1")
    html = file.read_text()
    assert html.count("data:image/png;base64,") == 4
    assert TITLE.replace("'", "&#39;") in html
    assert "image differs already when it is decoded, by up to" in html
    assert file.parent.parent.stat().st_mode & 0o077 == 0


def test_a_version_that_is_reproduced_is_compared_again() -> None:
    if not bundle_exists("seen:with-1"):
        pack_seen("with-1")
    folder, manifest = open_bundle("seen:with-1")
    lineage = {**manifest.lineage, "seeds": {"torch": 0}}
    manifest = msgspec.structs.replace(manifest, lineage=lineage)
    assert reproduce_version(recipe(answer), folder, manifest, seeds=2).reference == ""
    otherwise = reproduce_version(recipe(lambda _: [9.0, -9.0]), folder, manifest, seeds=2)
    assert otherwise.outcome == "identical"
    assert "raw rows are decided otherwise than by the author's own pipeline" in otherwise.reference


@pytest.mark.parametrize(
    "tag", [f"{model}:{version}" for model in ("digits", "languages", "departures") for version in ("v1", "v2")]
)
def test_the_demos_decide_from_the_raw_input_as_their_authors(more_bundles: str, tag: str) -> None:
    found = open_bundle(tag)[1].reference
    assert found is not None
    assert found.by.startswith(f"models.{tag.partition(':')[0]}.reference.")
    assert (found.rows, found.kept, found.flipped) == (48, 32, 0)
    assert found.largest_difference < 1e-5
    assert all(stage.differ == 0 for stage in found.stages)
