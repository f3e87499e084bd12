"""The report: what a manifest says, as sections that the terminal and the page both show."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Collection
from typing import Any

import msgspec

from rollout.bundle.differences import in_figures
from rollout.bundle.evidence import Finding, GateResult, ReferenceResult, ReviewEvidence, Stage
from rollout.bundle.lineage import by_head
from rollout.bundle.manifest import LeftOut, Manifest
from rollout.bundle.parity import TOLERANCE
from rollout.bundle.reliability import FILE_NAME as DIAGRAM
from rollout.bundle.task import Classification, Task

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


class Section(msgspec.Struct, frozen=True):
    """A part of a report. What is empty is not shown; commands in sentences stand between backticks.

    Attributes:
        title: Its heading.
        text: Sentences, a paragraph each.
        facts: What is to be known, by name.
        table: A table.
        items: A list.
        pictures: Images, after all else.
    """

    title: str
    text: list[str] = []
    facts: dict[str, str] = {}
    table: Table | None = None
    items: list[str] = []
    pictures: list[Picture] = []


def describe(manifest: Manifest, *, is_signed: bool) -> list[Section]:
    """Says everything about a bundle that a person may ask for: the headline, then the sections."""
    return [
        _headline(manifest, is_signed=is_signed),
        _figures(manifest),
        _calibration(manifest),
        _variants(manifest),
        *(_left_out(name, left) for name, left in manifest.left_out.items()),
        describe_reference(manifest.reference, manifest.hashes),
        describe_gate(manifest.tag, manifest.gate),
        _inputs(manifest),
        _findings(manifest.findings),
        *_lineage(manifest),
    ]


def describe_gate(tag: str, gate: GateResult | None) -> Section:
    """Says how a bundle compared with the champion over several seeds."""
    if gate is None:
        command = f"`rollout gate {tag} --against VERSION`"
        return Section("No gate", [f"{command} compares it with a champion over several seeds."])
    seeds = "1 seed" if gate.seeds == 1 else f"{gate.seeds} seeds"
    spreads = {tag: gate.candidate, f"{tag.partition(':')[0]}:{gate.against}": gate.champion}
    table = Table(
        f"{gate.metric.capitalize()} on the evaluation part, {seeds}",
        ["", "mean", "standard deviation"],
        {name: [[f"{spread.mean:.4f}", f"{spread.deviation:.4f}"]] for name, spread in spreads.items()}
        | {name: [[f"{loss:.4f}", ""]] for name, loss in gate.baselines.items()},
    )
    decided = {"decided": f"{_time(gate.at)} by {gate.by}"}
    return Section(f"Gate: {gate.decision}", [gate.why], facts=decided, table=table)


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
        facts["command"] = shlex.join(command) if isinstance(command, list) else str(command)
    facts["files"] = f"{len(manifest.hashes)}, and each matches its hash"
    facts["signature"] = (
        f"there; `rollout verify {tag} --key FILE` checks whose it is"
        if is_signed
        else f"none; `rollout sign {tag} --key FILE` makes one"
    )
    return Section(tag, [_answer(manifest.task), _sentence(manifest.task.policy)], facts=facts)


def _answer(task: Task) -> str:
    if isinstance(task, Classification):
        return _short(f"Answers with one of {len(task.labels)} labels: {', '.join(task.labels)}.")
    return f"Answers with a number, and an interval that holds the true one {task.coverage:.1%} of the time."


def _figures(manifest: Manifest) -> Section:
    text = "Measured on the evaluation part, which neither training nor calibration saw."
    figures = {
        name.replace("_", " "): _number(figure)
        for name, figure in manifest.metrics.items()
        if name not in OF_CALIBRATION
    }
    return Section("Figures", [text], facts=figures)


def _calibration(manifest: Manifest) -> Section:
    task, metrics = manifest.task, manifest.metrics
    if isinstance(task, Classification):
        text = describe_review(task, manifest.review)
        facts = {"temperature": f"{task.temperature:.4f}"}
        if "calibration_error_before" in metrics:
            facts["calibration error before scaling"] = f"{metrics['calibration_error_before']:.4f}"
            facts["calibration error after scaling"] = f"{metrics['calibration_error']:.4f}"
    else:
        text = (
            f"Intervals are to hold {task.coverage:.1%} of the targets, and are as wide as the calibration part "
            "asks for that."
        )
        facts = {"coverage asked for": f"{task.coverage:.1%}"}
        if "coverage" in metrics:
            facts["coverage observed"] = f"{metrics['coverage']:.1%}"
            facts["mean width of an interval"] = _number(metrics["mean_interval_width"])
        facts["standard deviation of the targets"] = _number(task.scale)
    diagram = Picture(DIAGRAM, "Reliability diagram. Its figures stand in the list above.")
    return Section("Calibration", [text], facts, pictures=[diagram] if DIAGRAM in manifest.hashes else [])


def describe_review(task: Classification, review: ReviewEvidence | None) -> str:
    """Says what the review threshold of a task is worth, and where all goes to review, what it would take."""
    probability = f"{1 - task.delta:.0%}"
    if review is None or not (review.is_given or task.review_limit > 1):
        return (
            f"With probability {probability}, at most {task.risk:.1%} of the answers that go out without "
            f"review are wrong: those with a confidence of {task.review_limit:.4f} or more."
        )
    seen = f"{review.errors:,} of {review.rows:,} calibration rows are answered wrongly"
    if review.is_given and not review.answered:
        return (
            f"The review threshold of {task.review_limit:.4f} is the author's own. No calibration row reaches "
            f"it, so nothing is known of the answers that go out without review; over all, {seen}."
        )
    if review.is_given:
        return (
            f"The review threshold of {task.review_limit:.4f} is the author's own. Of the {review.answered:,} "
            f"calibration rows that reach it, {review.answered_errors:,} are answered wrongly: with probability "
            f"{probability}, at most {review.bound:.1%} of the answers that go out without review are wrong."
        )
    if review.needed > review.rows:
        takes = (
            f"that takes {review.needed:,} rows that are sure and right, {review.needed - review.rows:,} more "
            "than decide on it now (two thirds of the calibration part)"
        )
    else:
        takes = f"that takes {review.needed:,} rows without an error among the surest, or more with few: {seen}"
    could = (
        "no risk below 100 % could be kept"
        if review.lowest_risk is None
        else f"a risk of {review.lowest_risk:.0%} could be kept"
    )
    return (
        f"Every answer goes to review: no threshold keeps the error at {task.risk:.1%} with probability "
        f"{probability}. On this calibration part, {could}; for {task.risk:.1%}, {takes}. More rows, a better "
        "model, a larger `risk` or a `review_threshold` of your own change that."
    )


def _variants(manifest: Manifest) -> Section:
    exact = [name for name, variant in manifest.variants.items() if variant.is_exact]
    reduced = [name for name in manifest.variants if name not in exact]
    scores = (
        "a score"
        if isinstance(manifest.task, Classification)
        else "a value, in standard deviations of the targets"
    )
    text = [
        "Each variant is compared with its source module: rows that it answers differently, rows that only one "
        f"of the two sends to review, and the largest difference of {scores}."
    ]
    if exact:
        text.append(f"Held to every decision, and every score within {TOLERANCE:g}: {', '.join(exact)}.")
    if reduced:
        text.append(f"Held to the decisions, in lower precision: {', '.join(reduced)}.")
    if manifest.reference is not None:
        text.append("On the raw rows of the reference, each is compared with the author's own pipeline instead.")
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


def _findings(findings: list[Finding]) -> Section:
    if not findings:
        return Section("Checks of the data", ["They found nothing."])
    items = [
        f"{_sentence(finding.check)[:-1]} ({finding.where}): {finding.detail}"
        + (f" Rows: {', '.join(map(str, finding.rows))}." if finding.rows else "")
        for finding in findings
    ]
    return Section("Checks of the data", ["What they found, for a person to look at:"], items=items)


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
