"""What decides where a model is served takes nothing that only packing needs."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import rollout.heads


def test_heads_are_imported_without_what_only_packing_has() -> None:
    names = [name for _, name, _ in pkgutil.walk_packages(rollout.heads.__path__, "rollout.heads.")]
    assert "rollout.heads.conformal" in names
    code = (
        f"import sys, {', '.join(names)}; print({{'scipy', 'sklearn', 'torch', 'matplotlib'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
