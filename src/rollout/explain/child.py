"""One explanation in a process of its own, which ends: ``processes.py`` starts it and bounds it.

The request comes on standard input and the answer goes to standard output, both as MessagePack.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import msgspec

from rollout.bounded import bound
from rollout.bundle.manifest import read_manifest
from rollout.errors import PredictionFailedError, RolloutError
from rollout.explain.processes import Answer, Failure, Task, arrays_of
from rollout.heads import read_head

LONGEST = 10_000  # characters of what is logged
NICER = 10  # than the worker that answers predictions


def _main(parent: str, seconds: str, memory_share: str) -> None:
    bound(int(seconds), int(parent), float(memory_share))
    os.nice(NICER)
    answer = sys.stdout.buffer
    # What libraries print must not get in between.
    sys.stdout = sys.stderr
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Task)
    try:
        said: Answer | Failure = _explain(task)
    except RolloutError as error:
        said = Failure(type=error.type, detail=error.detail, errors=error.errors)
    except Exception as error:  # whatever a model or a library makes of it
        is_memory = isinstance(error, MemoryError)
        why = "it needs more memory than it may have" if is_memory else "the log of the service says why"
        said = Failure(
            type=PredictionFailedError.type,
            detail=f"the prediction cannot be explained: {why}",
            trace=traceback.format_exc()[-LONGEST:],
        )
    answer.write(msgspec.msgpack.encode(said))
    answer.flush()


def _explain(task: Task) -> Answer:
    manifest = read_manifest(Path(task.folder))

    from rollout.explain.explainer import explain  # noqa: PLC0415  it takes seconds to import

    row = arrays_of(task.row)
    explanation = explain(
        Path(task.folder),
        manifest,
        task.variant,
        row,
        task.question,
        public=read_head(msgspec.json.decode(task.head)),
        meanings=task.meanings,
        is_trusted=True,  # it serves, so it was found to be
    )
    picture = b""
    if task.wants_picture:
        from rollout.explain.picture import draw  # noqa: PLC0415

        picture = draw(explanation, manifest.inputs, row)
    return Answer(explanation=explanation, picture=picture)


if __name__ == "__main__":
    _main(*sys.argv[1:])
