"""A bundle as a function from a table of rows to a table of answers: what each process of a large job runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rollout.__about__ import __version__
from rollout.bundle.golden import read_golden
from rollout.bundle.manifest import Manifest
from rollout.bundle.parity import run_in_batches, take
from rollout.bundle.raw_examples import read_raw_examples
from rollout.bundle.schema import InputSchema
from rollout.bundle.verify import check_golden, check_raw_examples, load_variant
from rollout.errors import (
    BundleError,
    FieldError,
    InvalidRequestError,
    PredictionFailedError,
    RolloutError,
    invalid,
)
from rollout.inference.decisions import Decisions, decide, run_or_bisect
from rollout.inference.reviewing import pick
from rollout.inference.rows import ID_LIMIT, Rows, is_identifier
from rollout.job.arrow import answer_columns
from rollout.job.decoding import Decoded, decode_columns, records_of
from rollout.job.plan import Plan, kept, schema_of
from rollout.job.row import Columns
from rollout.job.unpacked import open_unpacked
from rollout.review.sampling import Sampler


class Scorer:
    """One variant of a bundle, verified on this machine by its golden and raw examples.

    Args:
        plan: The plan of the job.
        folder: Where its bundle lies; its files are taken as checked.
        manifest: The bundle's manifest.

    Raises:
        BundleError: If the variant does not hold here what the bundle promises.
    """

    def __init__(self, plan: Plan, folder: Path, manifest: Manifest) -> None:
        self._plan, self._head = plan, manifest.task
        self._variant = load_variant(
            folder, manifest, plan.variant, plan.threads, plan.device, is_trusted=plan.is_trusted
        )
        check_golden(read_golden(folder), manifest, plan.variant, self._variant)
        check_raw_examples(read_raw_examples(folder, manifest), manifest, plan.variant, self._variant)
        self._manifest = manifest
        self._schema = InputSchema(manifest.inputs)
        self._columns = Columns(plan.client_id, plan.key, self._schema.fields)
        self._answers = answer_columns(manifest.task)
        self._sampler = Sampler(manifest.name)
        self._sampler.policy = plan.policy

    def __call__(self, table: Any) -> Any:
        """Answers every row of an Arrow table, in their order.

        Returns:
            An Arrow table: the columns that are kept, version and variant, those of the answer, and
            ``needs_review``, ``reason``, ``pi`` and ``error``. Of a row that cannot be scored, only ``error`` is
            there.

        Raises:
            InvalidRequestError: If a row does not fit, and the plan says that the job fails then.
            PredictionFailedError: If the model fails on a row, and the plan says so.
        """
        import pyarrow  # noqa: PLC0415

        given = dict(zip(table.schema.names, table.schema.types, strict=True))
        schema = schema_of(self._plan, self._manifest, given)
        records = [record for part in self._parts(table) for record in self._score(part)]
        answers = pyarrow.Table.from_pylist(records, schema)
        for name in kept(self._plan, given):  # as they came, whatever they are
            answers = answers.set_column(schema.get_field_index(name), schema.field(name), table.column(name))
        return answers

    def _parts(self, table: Any) -> Iterator[Any]:
        for start in range(0, table.num_rows, self._plan.batch_size):
            yield table.slice(start, self._plan.batch_size)

    def _score(self, table: Any) -> list[dict[str, Any]]:
        client_ids, keys = (self._identifiers(table, name) for name in (self._plan.client_id, self._plan.key))
        decoded = decode_columns(self._schema, self._columns, table)
        faults = self._faults(client_ids, keys, decoded)
        places = [index for index in range(table.num_rows) if index not in faults]
        records: list[dict[str, Any]] = [{} for _ in range(table.num_rows)]
        if places:
            arrays = decoded.rows(places)
            rows = Rows(
                [client_ids[at] or "" for at in places], [keys[at] for at in places], arrays, (), math.inf
            )
            for at, record in zip(places, self._answer(rows), strict=True):
                records[at] = record
        for at, fault in faults.items():
            records[at] = {"error": self._fail(InvalidRequestError, fault, keys[at])}
        return records

    def _answer(self, rows: Rows) -> Iterator[dict[str, Any]]:
        decisions = run_or_bisect(self._decide, rows.arrays, _fault)
        fine = [index for index in range(len(decisions)) if index not in decisions.errors]
        needs_review = decisions.needs_review.copy()
        picked = {}
        if decisions.errors:
            rows.arrays = take(rows.arrays, np.array(fine, np.intp))
            rows = msgspec.structs.replace(
                rows, client_ids=[rows.client_ids[at] for at in fine], keys=[rows.keys[at] for at in fine]
            )
            needs_review = needs_review[fine]
        for one in pick(self._sampler, rows, needs_review):
            picked[fine[one.row]] = one
        plan, head = self._plan, self._head
        version = plan.tag.partition(":")[2]
        for index, numbers in enumerate(decisions.numbers.tolist()):
            if error := decisions.errors.get(index):
                yield {"error": self._fail(PredictionFailedError, error.detail, None)}
                continue
            found = picked.get(index)
            answer = msgspec.to_builtins(head.answer(numbers)._asdict())
            yield {
                "version": version,
                "variant": plan.variant,
                **self._answers.encode(head.table_row(answer)),
                "needs_review": found is not None,
                "reason": found and found.reason,
                "pi": found and found.pi,
            }

    def _decide(self, arrays: Any) -> Decisions:
        return decide(self._head, run_in_batches(self._variant.run, arrays, self._plan.batch_size))

    def _identifiers(self, table: Any, name: str) -> list[str | None]:
        if name not in table.column_names:
            return [None] * table.num_rows
        values = ["\0" if one is None else one[name] for one in records_of(table.select([name]))]
        return [None if value is None or value == "" else str(value) for value in values]  # \0 is refused

    def _faults(self, client_ids: list[str | None], keys: list[str | None], decoded: Decoded) -> dict[int, str]:
        found = {}
        for index, (client_id, key) in enumerate(zip(client_ids, keys, strict=True)):
            errors = [
                FieldError(f"/{name}", f"must be 1 to {ID_LIMIT} printable characters")
                for name, value in (("client_id", client_id or ""), ("key", key))
                if value is not None and not is_identifier(value)
            ]
            errors += decoded.faults.get(index, ())
            if errors:
                found[index] = invalid(errors).detail
        return found

    def _fail(self, kind: type[InvalidRequestError | PredictionFailedError], detail: str, key: str | None) -> str:
        if self._plan.on_error == "fail":
            raise kind(detail if key is None else f"the row with the key {key}: {detail}")
        return detail


_scorers: dict[Plan, Scorer] = {}


def open_scorer(plan: Plan, fetch: Callable[[], bytes]) -> Scorer:
    """Returns the scorer of a plan, which a process makes and verifies once.

    Args:
        plan: The plan.
        fetch: Returns the archive of its bundle.

    Raises:
        BundleError: If the bundle is not the one that the plan pins, does not hold here what it promises, or this
            machine has another release of Rollout.
    """
    if plan.rollout != __version__:
        raise BundleError(
            f"the job was started by Rollout {plan.rollout}, and here is {__version__}: install that"
        )
    if plan not in _scorers:
        _scorers[plan] = Scorer(plan, *open_unpacked(plan, fetch))
    return _scorers[plan]


def _fault(error: Exception) -> RolloutError:
    return PredictionFailedError(f"the model failed on this input: {error}")
