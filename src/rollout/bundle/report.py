"""The report: what a manifest says, as sections that the terminal and the page both show."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Collection
from typing import Any

import msgspec

from rollout.bundle.differences import in_figures
from rollout.bundle.evidence import Distillation, Figure, Finding, GateResult, ReferenceResult, Stage
from rollout.bundle.lineage import by_head, part_of
from rollout.bundle.manifest import LeftOut, Manifest
from rollout.bundle.parity import TOLERANCE
from rollout.errors import BundleError
from rollout.heads.reliability import FILE_NAME as DIAGRAM
from rollout.judge.baseline import Baseline

LONGEST = 300
OF_CALIBRATION = {"calibration_error_before", "calibration_error", "coverage", "mean_interval_width"}
STAGES = {
    "decoded": "decoded",
    "layer": "in the graph",
    "outputs": "what the module gives",
    "scores": "scores",
}
DIGEST_LENGTHS = (40, 64)  # a commit, a SHA-256


class Table(msgspec.Struct, frozen=True):
    """A table whose first column groups its rows.

    Attributes:
        caption: What it shows.
        columns: The names of the columns.
        rows: For each name in the first column, the further cells of its rows.
        texts: So many columns from the left hold texts; the others hold figures.
    """

    caption: str
    columns: list[str]
    rows: dict[str, list[list[str]]]
    texts: int = 1


class Picture(msgspec.Struct, frozen=True):
    """An image of the bundle.

    Attributes:
        file: Its name, of an SVG or a PNG.
        caption: What it shows.
    """

    file: str
    caption: str


class Example(msgspec.Struct, frozen=True):
    """A row, to be looked at.

    Attributes:
        caption: What it is an example of.
        facts: What is to be read of its inputs, by field.
        pictures: What is to be seen, by field: PNG.
        sounds: What is to be heard, by field: WAV.
    """

    caption: str
    facts: dict[str, str] = {}
    pictures: dict[str, bytes] = {}
    sounds: dict[str, bytes] = {}


class Section(msgspec.Struct, frozen=True):
    """A part of a report. What is empty is not shown; commands in sentences stand between backticks.

    Attributes:
        title: Its heading.
        text: Sentences, a paragraph each.
        facts: What is to be known, by name.
        table: A table.
        items: A list.
        pictures: Images, after the list.
        examples: Rows, after all else.
    """

    title: str
    text: list[str] = []
    facts: dict[str, str] = {}
    table: Table | None = None
    items: list[str] = []
    pictures: list[Picture] = []
    examples: list[Example] = []


class Report(list[Section]):
    """All sections; in a notebook it shows their texts, facts and tables."""

    def _repr_html_(self) -> str:
        from rollout.bundle.report_page import fragment  # noqa: PLC0415  which imports this

        return fragment(self)


def describe(manifest: Manifest, *, is_signed: bool, baseline: Baseline | None = None) -> Report:
    """Says everything about a bundle that a person may ask for: the headline, then the sections.

    Args:
        manifest: Its manifest.
        is_signed: Whether it has a signature.
        baseline: What its evaluation part was like.
    """
    return Report(
        [
            _headline(manifest, is_signed=is_signed),
            _figures(manifest),
            _calibration(manifest),
            _variants(manifest),
            *(_left_out(name, left) for name, left in manifest.left_out.items()),
            describe_reference(manifest.reference, manifest.hashes),
            *_distillation(manifest),
            describe_gate(manifest.tag, manifest.gate),
            _inputs(manifest),
            *([] if baseline is None else [describe_baseline(baseline)]),
            _findings(manifest.findings),
            *_lineage(manifest),
        ]
    )


def describe_gate(tag: str, gate: GateResult | None) -> Section:
    """Says how a bundle compared with the champion over several seeds."""
    if gate is None:
        command = f"`rollout gate {tag} --against VERSION`"
        return Section("No gate", [f"{command} compares it with a champion over several seeds."])
    seeds = "1 seed" if gate.seeds == 1 else f"{gate.seeds} seeds"
    if gate.most_seeds not in (None, gate.seeds):
        seeds += f" of at most {gate.most_seeds}"
    spreads = {tag: gate.candidate, f"{tag.partition(':')[0]}:{gate.against}": gate.champion}
    table = Table(
        f"{gate.metric.capitalize()} on the evaluation part, {seeds}",
        ["", "mean", "standard deviation"],
        {name: [[f"{spread.mean:.4f}", f"{spread.deviation:.4f}"]] for name, spread in spreads.items()}
        | {name: [[f"{loss:.4f}", ""]] for name, loss in gate.baselines.items()},
    )
    decided = {"decided": f"{_time(gate.at)} by {gate.by}"}
    return Section(f"Gate: {gate.decision}", [gate.why], facts=decided, table=table)


def _distillation(manifest: Manifest) -> list[Section]:
    """Says how a student compares with its teacher, where the bundle is one of a student."""
    if "distillation" not in manifest.lineage:
        return []
    try:
        found = msgspec.convert(manifest.lineage["distillation"], Distillation)
    except msgspec.ValidationError as error:
        raise BundleError(f"{manifest.tag} has a lineage that says nothing of a teacher: {error}") from None
    teacher, student = found.teacher, found.student
    cost = teacher.rows_per_second / student.rows_per_second
    text = [
        f"It learnt from {manifest.name}:{teacher.version} besides the targets. On {found.rows:,} evaluation "
        f"rows they agree on {_percent(found.agreement)}. A prediction of the student costs {cost:.2g} times "
        f"what one of the teacher does, and its file has {student.size / teacher.size:.2g} times the size. Both "
        f"were timed on one core of {found.machine}, without HTTP; intervals hold with 95 %."
    ]
    rows = {
        f"{manifest.name}:{side.version}": [
            [
                side.variant,
                f"{side.size / 1024:,.1f} KiB",
                f"{side.row_seconds * 1e3:.3g} ms",
                f"{side.rows_per_second:,.0f}",
                f"{side.loss.mean:.4f} ({side.loss.low:.4f} to {side.loss.high:.4f})",
            ]
        ]
        for side in (teacher, student)
    }
    columns = ["", "variant", "size", "one row", "rows per second", found.metric]
    items = [
        f"{parted.rows:,} of the rows on which they part: {parted.teacher or 'nothing'} for the teacher, "
        f"{parted.student or 'nothing'} for the student."
        for parted in found.parted
    ]
    table = Table("Teacher and student", columns, rows, texts=2)
    return [Section("Compared with its teacher", text, table=table, items=items)]


def _percent(figure: Figure) -> str:
    return f"{figure.mean:.1%} ({figure.low:.1%} to {figure.high:.1%})"


def describe_reference(result: ReferenceResult | None, files: Collection[str]) -> Section:
    """Says how a bundle compared with the author's own pipeline; ``files`` are those that may be shown."""
    title = "Compared with the author's own pipeline"
    if result is None:
        return Section(
            title,
            [
                "Nobody has compared: whether a raw input is decided as in training was not looked at. "
                "`Version(reference=…)` or `pack(reference=…)` does."
            ],
        )
    text = [
        f"The same {result.rows:,} raw rows went through `{result.by}` and, as a caller sends them, through the "
        f"bundle: {result.flipped:,} are decided otherwise, and {result.most_flipped:.2%} may be; the largest "
        f"difference of a score is {result.largest_difference:.2g}, and {result.tolerance:g} may be."
    ]
    if result.refused:
        text.append(f"The service would refuse {result.refused:,} of them.")
    if result.kept:
        text.append(f"{result.kept:,} of them travel with the bundle, and are run again wherever it is served.")
    rows: dict[str, list[list[str]]] = {}
    for stage in result.stages:
        rows.setdefault(STAGES[stage.where], []).append(_stage_cells(stage))
    columns = ["stage", "of", "rows", "differ", "largest difference", "mean"]
    items = [f"Row {worst.row}: {worst.text}." for worst in result.worst]
    pictures = [
        Picture(name, f"Row {worst.row}: the author's, the bundle's, and their difference, stretched to white.")
        for worst in result.worst
        for name in worst.pictures
        if name in files
    ]
    table = Table("From the raw input to the answer, in this order", columns, rows, texts=2) if rows else None
    return Section(title, text, table=table, items=items, pictures=pictures)


def _stage_cells(stage: Stage) -> list[str]:
    named = "; ".join(filter(None, (stage.name, stage.note)))
    figures = in_figures(stage.largest), in_figures(stage.mean)
    return [named, f"{stage.rows:,}", f"{stage.differ:,}", *figures]


def _headline(manifest: Manifest, *, is_signed: bool) -> Section:
    tag, lineage = manifest.tag, manifest.lineage
    facts = {"packed": f"{_time(manifest.created_at)} by {lineage.get('by', 'unknown')}"}
    if command := lineage.get("command"):
        facts["command"] = shlex.join(map(str, command)) if isinstance(command, list) else str(command)
    for place in part_of(lineage, "tracking"):
        run = part_of(lineage, "tracking", place)
        facts[f"run in {place}"] = str(run.get("url", run.get("run")))
    facts["files"] = f"{len(manifest.hashes)}, and each matches its hash"
    facts["signature"] = (
        f"there; `rollout verify {tag} --key FILE` checks whose it is"
        if is_signed
        else f"none; `rollout sign {tag} --key FILE` makes one"
    )
    return Section(tag, [_short(manifest.task.summary), _sentence(manifest.task.policy)], facts=facts)


def _figures(manifest: Manifest) -> Section:
    text = "Measured on the evaluation part, which neither training nor calibration saw."
    figures = {
        name.replace("_", " "): _number(figure)
        for name, figure in manifest.metrics.items()
        if name not in OF_CALIBRATION
    }
    return Section("Figures", [text], facts=figures)


def _calibration(manifest: Manifest) -> Section:
    text, facts = manifest.task.report(manifest.metrics, manifest.review)
    diagram = Picture(DIAGRAM, "Reliability diagram. Its figures stand in the list above.")
    return Section("Calibration", [text], facts, pictures=[diagram] if DIAGRAM in manifest.hashes else [])


def _variants(manifest: Manifest) -> Section:
    exact = [name for name, variant in manifest.variants.items() if variant.is_exact]
    reduced = [name for name in manifest.variants if name not in exact]
    text = [
        "Each variant is compared with its source module: rows that it answers differently, rows that only one "
        f"of the two sends to review, and the largest difference of {manifest.task.unit_of_scores}."
    ]
    if exact:
        own = max(parity.tolerance for name in exact for parity in manifest.variants[name].parity.values())
        rounded = "" if own == TOLERANCE else ", as far as the module's own rounding moves it"
        text.append(f"Held to every decision, and every score within {own:.2g}{rounded}: {', '.join(exact)}.")
    if reduced:
        text.append(f"Held to the decisions, in lower precision: {', '.join(reduced)}.")
    if manifest.reference is not None:
        text.append("On the raw rows of the reference, each is compared with the author's own pipeline instead.")
    if manifest.fast_path:
        text.append(f"{manifest.fast_path}.")
    rows = {
        name: [
            [
                probe,
                f"{parity.rows:,}",
                f"{parity.answers_flipped:,}",
                f"{parity.reviews_flipped:,}",
                f"{parity.largest_difference:.1e}" if parity.largest_difference else "0",
            ]
            for probe, parity in variant.parity.items()
        ]
        for name, variant in manifest.variants.items()
    }
    columns = ["variant", "inputs", "rows", "answers flipped", "reviews flipped", "largest difference"]
    return Section("Variants", text, table=Table("Parity with the source module", columns, rows, texts=2))


def _left_out(name: str, left: LeftOut) -> Section:
    text = [_sentence(left.why), *(["Its worst rows:"] if left.worst else [])]
    return Section(f"Left out: {name}", text, items=left.worst)


def _inputs(manifest: Manifest) -> Section:
    facts = {}
    for name, field in manifest.inputs.items():
        facts[name] = _short(field.expected)
        facts |= {f"{name}.{part}": _short(within.expected) for part, within in field.parts.items()}
    return Section("Inputs", ["What a caller sends, in this order."], facts=facts)


def describe_baseline(baseline: Baseline) -> Section:
    """Says what live rows are compared with to see whether they drift."""
    text = [f"What {baseline.rows:,} rows of the evaluation part were like; live rows are compared with that."]
    if baseline.left_out:
        text.append(f"{baseline.left_out:,} further features are not looked at.")
    facts = {name: bins.in_words for name, bins in baseline.features.items()}
    return Section("Baseline of drift", text, facts=facts)


def _findings(findings: list[Finding]) -> Section:
    if not findings:
        return Section("Checks of the data and the training", ["They found nothing."])
    items = [
        f"{_sentence(finding.check)[:-1]} ({finding.where}): {finding.detail}"
        + (f" Rows: {', '.join(map(str, finding.rows))}." if finding.rows else "")
        for finding in findings
    ]
    return Section(
        "Checks of the data and the training", ["What they found, for a person to look at:"], items=items
    )


def _lineage(manifest: Manifest) -> list[Section]:
    return [
        Section(
            f"Lineage: {head}",
            facts={name.removeprefix(f"{head}."): _value(value) for name, value in entries.items()},
        )
        for head, entries in by_head(manifest.lineage).items()
    ]


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, str) and len(value) in DIGEST_LENGTHS and " " not in value:
        return f"{value[:12]}…"
    return str(value)


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure.is_integer() else f"{figure:.4g}"


def _time(at: str) -> str:
    return at.replace("T", " ").replace("Z", " UTC")


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."


def _short(words: str) -> str:
    return textwrap.shorten(words, LONGEST, placeholder=" …")
