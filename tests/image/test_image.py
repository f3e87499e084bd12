"""The image's root file system: built by the Dockerfile's steps, looked through, and served from as a pod does it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from rollout.__about__ import __version__
from rollout.valkey_server import server_program
from tests.conftest import BIN, ROOT, free_port, need
from tests.image.dockerfile import read_stages
from tests.image.root import Builder, Tree, files_of
from tests.image.serving import VOLUMES, Pod, Running, serving
from tests.images import row

STAGES = read_stages(ROOT / "Dockerfile")
BASE = ROOT / "k8s" / "base"
DEPLOYMENT = yaml.safe_load((BASE / "deployment.yaml").read_text())["spec"]["template"]["spec"]
SECRETS = {"ROLLOUT_TOKENS": "app:app-token-0123456789,admin:admin-token-0123456789"}
APP = {"Authorization": "Bearer app-token-0123456789"}
MODELS = "/opt/rollout/models"
# What every Debian has; this machine's, which stands for the base image, may have more.
LIBRARIES = {
    "libc",
    "libdl",
    "libgcc_s",
    "libm",
    "libmvec",
    "libpthread",
    "librt",
    "libstdc++",
    "libutil",
    "libz",
}


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """The root file system of the stage ``serve``."""
    need("bwrap", "bubblewrap")
    tree = Builder(STAGES, tmp_path_factory.mktemp("image")).build("serve")
    tree.at(MODELS).mkdir()  # where the stage `demo` has its bundles
    return tree


@pytest.fixture(scope="session")
def pod(tree: Tree, bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A pod with the variables of the manifests, the demo's bundles and a split, beside a Valkey with a password."""
    folder = tmp_path_factory.mktemp("pod")
    models = folder / "models"
    for tag in ("digits:v1", "digits:v2"):
        subprocess.run([BIN / "rollout", "push", tag, models], check=True)
    volumes = {path: folder / path.replace("/", "-") for path in VOLUMES}
    for path in volumes.values():
        path.mkdir()
        path.chmod(0o777)  # as the kubelet makes an emptyDir
    port = free_port()
    (folder / "valkey.conf").write_text(f'port {port}\nrequirepass of-the-store\nsave ""\n')
    store = subprocess.Popen([server_program(), folder / "valkey.conf"], stdout=subprocess.DEVNULL)
    settings = dict(
        line.split("=", 1)
        for line in (BASE / "settings.env").read_text().splitlines()
        if line[:1] not in ("", "#")
    )
    secrets = SECRETS | {"ROLLOUT_REDIS_URL": f"redis://:of-the-store@127.0.0.1:{port}/0"}
    pod = Pod(STAGES["serve"], tree, settings | secrets, volumes)
    try:
        pod.run("pull", MODELS, options=("--ro-bind", str(models), MODELS))
        pod.run("split", "set", "digits", "--champion", "v1", "--challenger", "v2", "--share", "0.1", "--yes")
        yield pod
    finally:
        store.terminate()
        store.wait()


@pytest.fixture(scope="session")
def running(pod: Pod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(pod, tmp_path_factory.mktemp("log") / "serve.log") as one:
        yield one


def test_its_list_of_parts_has_all_that_is_installed(tree: Tree) -> None:
    (packages,) = tree.at("/opt/rollout/venv/lib").glob("python*/site-packages")
    installed = {
        (one.metadata["Name"], one.version) for one in importlib.metadata.distributions(path=[str(packages)])
    }
    parts = json.loads(tree.at("/opt/rollout/sbom.cdx.json").read_text())["components"]
    assert {(part["name"], part["version"]) for part in parts} == installed
    assert ("rollout", __version__) in installed


def test_the_tree_has_no_torch_no_installer_and_no_compiler(tree: Tree, pod: Pod) -> None:
    paths = set(files_of(tree))
    assert "/opt/rollout/venv/bin/rollout" in paths
    unwanted = re.compile(r".*/(torch|pip3?|setuptools|wheel|gcc|g\+\+|cc|clang|make)")
    assert not [path for path in paths if unwanted.fullmatch(path)]
    with pytest.raises(AssertionError, match="No module named 'torch'"):
        pod.run("-c", "import torch", entrypoint=["python"])


def test_it_reads_object_storage_and_speaks_grpc(pod: Pod) -> None:
    pod.run("-c", "import obstore.store, rollout.http.oip_grpc", entrypoint=["python"])


def test_every_module_is_compiled(tree: Tree) -> None:
    modules = list(tree.at("/opt/rollout/venv/lib").rglob("*.py"))
    assert modules
    for module in modules:
        (compiled,) = (module.parent / "__pycache__").glob(f"{module.stem}.cpython-*.pyc")
        # The second word of its header: taken as it is, whatever the time of the source.
        assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01


def test_libraries_come_with_the_tree_or_with_every_debian(tree: Tree, pod: Pod) -> None:
    shared = [path for path in files_of(tree) if ".so" in path and path.startswith("/opt/")]
    needed = pod.run(*shared, entrypoint=["ldd"])
    found = dict(re.findall(r"^\t(\S+?)\.so\S* => (\S+)", needed, re.MULTILINE))
    assert "not" not in found.values()  # found, it would go on
    assert {name for name, path in found.items() if not path.startswith("/opt/")} <= LIBRARIES


def test_it_answers(running: Running) -> None:
    with httpx.Client(base_url=running.base, headers=APP) as client:
        answer = client.post("/v1/models/digits/predict", json=row())
        assert answer.json()["version"] in ("v1", "v2")
        assert client.get("/openapi.json").status_code == 200
        assert "rollout_predictions_total" in client.get("/metrics").text
    assert httpx.post(f"{running.base}/v1/models/digits/predict", json=row()).status_code == 401


def test_no_process_has_a_name_or_a_power(running: Running) -> None:
    user = DEPLOYMENT["securityContext"]["runAsUser"] if os.getuid() == 0 else os.getuid()
    processes = [running.pid, *(one.pid for one in psutil.Process(running.pid).children(recursive=True))]
    assert len(processes) > 1
    for process in processes:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        assert set(status["Uid"].split()) == {str(user)}
        assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert str(Path(f"/proc/{running.pid}/cwd").readlink()) == "/opt/rollout"


def test_the_two_volumes_are_all_that_can_be_written_to_and_nothing_else_was_tried(
    pod: Pod, running: Running
) -> None:
    assert {mount["mountPath"] for mount in DEPLOYMENT["containers"][0]["volumeMounts"]} == set(VOLUMES)
    places = ["/", "/etc", "/opt/rollout", "/opt/rollout/venv/bin", "/usr/local/bin", "/var", *VOLUMES]
    script = "for place; do touch $place/new 2>/dev/null && echo $place; done; true"
    assert pod.run("-c", script, "sh", *places, entrypoint=["sh"]).split() == list(VOLUMES)
    log = running.log.read_text()
    assert "serving digits" in log
    assert not re.search("WARN|ERROR|read-only|denied|telemetry", log, re.IGNORECASE)


def test_sigterm_ends_it_well_within_the_grace_period(pod: Pod, tmp_path: Path) -> None:
    with serving(pod, tmp_path / "serve.log") as running:
        os.kill(running.pid, signal.SIGTERM)
        assert running.process.wait(DEPLOYMENT["terminationGracePeriodSeconds"]) == 0
