"""What the components start does what they say: it is started here, with the words of the manifest."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec
import pytest
from redis import AuthenticationError, Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from rollout.store import Redis as Connection
from rollout.valkey_server import server_program
from tests.conftest import BIN, ROOT, free_port
from tests.k8s.rendering import containers, of_kind, render


def test_the_store_has_an_item_on_its_disk_before_it_says_so_and_drops_none(tmp_path: Path) -> None:
    (valkey,) = of_kind(render("base+redis"), "StatefulSet")
    (container,) = containers(valkey)
    assert container["command"] == ["valkey-server"]
    (data,) = container["volumeMounts"]
    here = {"$(VALKEYCLI_AUTH)": "secret", data["mountPath"]: str(tmp_path)}
    assert set(here) <= set(container["args"])
    port = free_port()
    server = subprocess.Popen(
        [server_program(), *(here.get(one, one) for one in container["args"]), "--port", str(port)],
        stdout=subprocess.DEVNULL,
    )
    try:
        client = Redis(port=port, retry=Retry(ConstantBackoff(0.05), 200))
        with pytest.raises(AuthenticationError):
            client.ping()
        client = Redis(port=port, password="secret", decode_responses=True)
        found = client.config_get("*")
        assert found["appendonly"] == "yes"
        assert found["appendfsync"] == "always"
        assert found["save"] == ""
        assert found["maxmemory-policy"] == "noeviction"
        limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30
        assert 0 < int(found["maxmemory"] or 0) < 0.75 * limit
    finally:
        server.terminate()
        server.wait()


async def test_the_first_split_is_made_and_no_other_is_ever_replaced(
    bundles: str, redis: Connection, valkey_url: str, tmp_path: Path
) -> None:
    (job,) = of_kind(render("local"), "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "BENTOML_HOME": bundles,
        "ROLLOUT_HOME": str(tmp_path),
        "ROLLOUT_REDIS_URL": valkey_url,
        **{variable["name"]: variable["value"] for variable in container["env"]},
    }

    def tried(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def run(*command: str) -> str:
        done = tried(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    *shell, script = container["command"]
    assert tried(*shell, script.replace("--champion", "--champoin")).returncode
    for _ in range(2):
        run(*container["command"])
        first = msgspec.json.decode(run("rollout", "split", "show", "digits", "--json"))
        assert (first["revision"], first["champion"], first["by"]) == (1, "v1", "first-split")
    run("rollout", "split", "set", "digits", "--champion", "v1", "--challenger", "v2", "--share", "5%", "--yes")
    run(*container["command"])
    kept = msgspec.json.decode(run("rollout", "split", "show", "digits", "--json"))
    assert (kept["revision"], kept["challenger"], kept["share"]) == (2, "v2", 0.05)
