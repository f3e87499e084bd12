"""``kubectl`` where there is no cluster: the real one judges a line, and what the cluster would do is done here.

The real kubectl gets every line first, with the address of a server that nobody runs. A flag, a command or a folder that
it does not take is its own error; a line that it would have sent fails for want of the server, and only such a line goes
on. The cluster has what the overlay renders, and one pod, which is this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
LOG, OVERLAY, REAL = "KUBECTL_LOG", "KUBECTL_OVERLAY", "KUBECTL_REAL"
NO_SERVER = "connection refused"
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: nowhere
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
clusters: [{name: nowhere, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: nobody, user: {}}]
"""
KINDS = {"svc": "service", "deploy": "deployment"}


def install(folder: Path, real: str, overlay: str) -> dict[str, str]:
    """Puts the stand-ins into a folder.

    Args:
        folder: Where to.
        real: The real kubectl.
        overlay: What the cluster runs.

    Returns:
        The environment in which they are found first.
    """
    for name, role in (
        ("kubectl", "kubectl"),
        ("kubectl-argo-rollouts", "argo"),
        ("docker", "tool"),
        ("kind", "tool"),
    ):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.k8s.kubectl_here {role} {name} "$@"\n')
        script.chmod(0o755)
    (folder / "kubeconfig").write_text(KUBECONFIG)
    return {
        "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "KUBECONFIG": str(folder / "kubeconfig"),
        LOG: str(folder / "log"),
        OVERLAY: overlay,
        REAL: real,
    }


def lines(environment: dict[str, str]) -> list[list[str]]:
    """Returns the lines that were run, each as its words."""
    log = Path(environment[LOG])
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def main(role: str, *line: str) -> int:
    """Does what one line asks for, and returns its exit code."""
    if role == "argo":
        return _plugin(line[1:])
    with Path(os.environ[LOG]).open("a") as log:
        log.write(json.dumps(line) + "\n")
    if role == "tool":
        return 0
    judged = subprocess.run([os.environ[REAL], *line[1:]], capture_output=True, text=True, check=False)
    if judged.returncode == 0 or NO_SERVER not in judged.stderr:
        sys.stdout.write(judged.stdout)
        sys.stderr.write(judged.stderr)
        return judged.returncode
    return _do(line[1:])


def _do(words: tuple[str, ...]) -> int:
    """Does what the real kubectl would have asked the server for."""
    if words[0] == "apply":
        return 0
    split = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", dest="namespace", required=True, choices=["rollout"])
    parser.add_argument("-c", dest="container", choices=["rollout"])
    parser.add_argument("--ignore-not-found", action="store_true")
    parser.add_argument("words", nargs="+")
    asked = parser.parse_args(words[:split])
    target = next(word for word in asked.words if "/" in word)
    kind, name = target.split("/")
    _require(KINDS.get(kind, kind), name)
    return subprocess.run(words[split + 1 :], check=False).returncode if asked.words[0] == "exec" else 0


def _plugin(words: tuple[str, ...]) -> int:
    """Takes what the plugin of Argo Rollouts takes, as its documentation has it."""
    parser = argparse.ArgumentParser("kubectl argo rollouts")
    parser.add_argument("-n", dest="namespace", required=True, choices=["rollout"])
    commands = parser.add_subparsers(required=True)
    for command in ("promote", "abort"):
        commands.add_parser(command).add_argument("name")
    image = commands.add_parser("set").add_subparsers(required=True).add_parser("image")
    image.add_argument("name")
    image.add_argument("image", type=lambda text: dict([text.split("=")]))
    _require("rollout", parser.parse_args(words).name)
    return 0


def _require(kind: str, name: str) -> None:
    """Ends this with an error where the cluster has no such thing."""
    rendered = subprocess.run(
        [os.environ[REAL], "kustomize", ROOT / "k8s" / "overlays" / os.environ[OVERLAY]],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {(thing["kind"].lower(), thing["metadata"]["name"]) for thing in yaml.safe_load_all(rendered.stdout)}
    if ("canary", "rollout") in found:
        found.add(("service", "rollout"))  # Flagger makes it
    if (kind, name) not in found:
        sys.exit(f"Error from server (NotFound): {kind} {name} not found")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
