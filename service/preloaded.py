"""What workers of ``rollout serve`` have in common; imported once, by the process that they are forked from."""

from __future__ import annotations

import gc
import os
import signal

import service.front  # noqa: F401  with all that it imports
from rollout.bounded import end_with_parent


def _begin() -> None:
    """Has a worker stop by SIGTERM again, also when the process that it was forked from has ended."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent(signal.SIGTERM)


# A signal to all processes of a group ends the workers, and this one has to say how they ended. It ends with its
# parent.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
end_with_parent()
os.register_at_fork(after_in_child=_begin)
# The garbage collector would write to all that the workers share.
gc.collect()
gc.freeze()
