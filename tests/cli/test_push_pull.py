"""``rollout push`` and ``rollout pull`` with a real S3 over HTTP."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import obstore
import psutil
import pytest
from obstore.store import S3Store

from rollout.bundle import storage
from rollout.bundle.exchange import push_bundle
from rollout.bundle.storage import Objects
from rollout.errors import BundleError, StorageError
from tests.bundle.test_exchange import loop_for_ever, repack
from tests.bundle.test_signing import make_keys
from tests.bundle.two import Linear, pack_two
from tests.cli.test_cli import run
from tests.conftest import BIN, ROOT, STORE, wait_for_text
from tests.s3 import KEYS, Way, run_s3

HERE = "onnx, onnx-int8 agree with its golden examples; not run here: torchscript, export"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3."""
    with run_s3(tmp_path_factory.mktemp("s3") / "log") as url:
        yield url


@pytest.fixture(scope="module")
def packed() -> str:
    pack_two("shipped", Linear().eval())
    pack_two("next", Linear(1.2, 1.2).eval())
    return "two:shipped"


class Place:
    """A bucket, and the machine of somebody who fetches from it."""

    def __init__(self, s3: str, folder: Path) -> None:
        self.s3 = s3
        self.home = folder / "home"
        self.store = folder / "store"
        self.store.mkdir()
        self.bucket = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")[:60]
        self.url = f"s3://{self.bucket}/prod"
        assert httpx.put(f"{s3}/{self.bucket}").status_code == 200

    def environment(self, **more: str) -> dict[str, str]:
        return KEYS | {"AWS_ENDPOINT_URL": self.s3, "BENTOML_HOME": str(self.store)} | more

    def push(self, tag: str, code: int = 0, **more: str) -> str:
        """Pushes from the store of the tests."""
        return run(self.home, "push", tag, self.url, code=code, **self.environment(BENTOML_HOME=STORE, **more))

    def pull(self, *options: str, code: int = 0, **more: str) -> str:
        return run(self.home, "pull", self.url, *options, code=code, **self.environment(**more))

    def objects(self) -> S3Store:
        """What looks into the bucket and changes what is there."""
        return S3Store(
            self.bucket,
            prefix="prod",
            endpoint=self.s3,
            access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            client_options={"allow_http": True},
        )

    def read(self, name: str) -> bytes:
        return bytes(obstore.get(self.objects(), name).bytes())

    @property
    def bundles(self) -> set[str]:
        """What the store of the other machine has, whole or not."""
        return {":".join(path.parts[-2:]) for path in self.store.glob("models/*/*") if path.is_dir()}

    @contextlib.contextmanager
    def following(self, log: Path, every: str = "0.2", **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """Runs ``rollout pull --every``."""
        with log.open("w") as file:
            process = subprocess.Popen(
                [BIN / "rollout", "pull", self.url, "--every", every],
                cwd=ROOT,
                env=os.environ | {"ROLLOUT_HOME": str(self.home)} | self.environment(**more),
                stdout=file,
                stderr=file,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def place(s3: str, packed: str, tmp_path: Path) -> Place:
    return Place(s3, tmp_path)


def test_only_onnx_of_an_unsigned_bundle_is_run_unless_trusted(s3: str, packed: str, tmp_path: Path) -> None:
    place = Place(s3, tmp_path)
    place.push(packed)
    assert HERE in place.pull()
    not_run = "Not run: torchscript, export. Loading these can run code, and two:shipped was neither packed here"
    elsewhere = place.environment()

    def ask(*arguments: str, code: int = 0, **more: str) -> str:
        return " ".join(run(place.home, *arguments, code=code, **(elsewhere | more)).split())

    assert not_run in ask("verify", packed)
    assert "torchscript on cpu" in ask("cost", packed, "--json")
    assert "Not run" not in ask("verify", packed, "--trust")
    assert "Not run" not in ask("verify", packed, ROLLOUT_TRUST="1")
    key = str(make_keys(tmp_path, "k")[1])
    for command in ("verify", "cost"):
        assert "it has no signature" in ask(command, packed, code=1, ROLLOUT_PUBLIC_KEY=key)


def test_names_from_elsewhere_forge_no_lines(tmp_path: Path) -> None:
    there = tmp_path / "there"
    (there / "two").mkdir(parents=True)
    (there / "two" / "\x1b[2K\rtwo:v9 is here\n.bentomodel").write_bytes(b"x")
    command = [str(BIN / "rollout"), "pull", str(there)]
    home = {"ROLLOUT_HOME": str(tmp_path / "home"), "BENTOML_HOME": str(tmp_path / "store")}
    printed = subprocess.run(command, env=os.environ | home, capture_output=True, check=False).stdout.decode()
    assert "\x1b" not in printed
    assert "\r" not in printed
    assert not any(line.startswith("two:v9 is here") for line in printed.splitlines())
    assert r"\x1b[2K\rtwo:v9 is here\n" in printed


def test_a_bundle_goes_to_s3_and_comes_to_another_machine(place: Place) -> None:
    nothing = f"there is no bundle under {place.url}: `rollout push NAME:VERSION {place.url}` puts one there\n"
    assert place.pull(code=1) == f"rollout: {nothing}"
    stored = f"{place.url}/two/shipped.bentomodel\n"
    assert place.push("two:shipped") == f"two:shipped is there: {stored}"
    assert place.push("two:shipped") == f"two:shipped is there already: {stored}"
    summary = f"1 of 1 bundles under {place.url} are here\n"
    assert place.pull() == f"two:shipped is here: {HERE}\n{summary}"
    assert place.pull() == summary
    assert "7 files match" in run(place.home, "verify", "two:shipped", code=0, **place.environment())


def test_a_changed_object_is_refused_on_both_ways(place: Place) -> None:
    place.push("two:next")
    other = place.read("two/next.bentomodel")
    obstore.put(place.objects(), "two/shipped.bentomodel", other)
    line = place.push("two:shipped", code=1)
    assert (
        "two/shipped.bentomodel is there already, and broken: two:shipped is refused: its manifest says" in line
    )
    assert place.read("two/shipped.bentomodel") == other
    output = subprocess.run(
        [BIN / "rollout", "pull", place.url], env=os.environ | place.environment(), capture_output=True, text=True, check=False
    )  # fmt: skip
    assert output.returncode == 3
    assert output.stdout.splitlines() == [
        f"two:next is here: {HERE}",
        "two/shipped.bentomodel is left out: two:shipped is refused: its manifest says two:next",
        f"1 of 2 bundles under {place.url} are here, 1 left out",
    ]
    assert place.bundles == {"two:next"}


def test_s3_itself_keeps_the_second_from_replacing_the_first(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    place.push("two:shipped")
    before = place.read("two/shipped.bentomodel")
    objects = Objects(place.url)
    seen = objects.fetch("two/shipped.bentomodel", tmp_path / "got")
    first = f"{place.url}/two/shipped.bentomodel was written concurrently: push again"
    # As large as what obstore would send in parts, which replace whatever is there.
    (tmp_path / "other").write_bytes(bytes(12_000_000))
    with pytest.raises(BundleError, match=first):
        objects.put("two/shipped.bentomodel", tmp_path / "other")
    assert place.read("two/shipped.bentomodel") == before
    (tmp_path / "signed").write_bytes(b"signed")
    objects.put("two/shipped.bentomodel", tmp_path / "signed", seen)
    with pytest.raises(BundleError, match=first):
        objects.put("two/shipped.bentomodel", tmp_path / "other", seen)
    assert place.read("two/shipped.bentomodel") == b"signed"
    obstore.delete(place.objects(), "two/shipped.bentomodel")
    with pytest.raises(BundleError, match=first):
        objects.put("two/shipped.bentomodel", tmp_path / "other", seen)


def test_a_large_object_comes_in_pieces(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    content = os.urandom(2500)
    (tmp_path / "sent").write_bytes(content)
    objects = Objects(place.url)
    objects.put("large", tmp_path / "sent")
    monkeypatch.setattr(storage, "PIECE_BYTES", 1000)
    assert objects.fetch("large", tmp_path / "got") is not None
    assert (tmp_path / "got").read_bytes() == content
    assert objects.fetch("nothing", tmp_path / "none") is None
    piece = Objects._piece

    def gone(self: Objects, name: str, meta: obstore.ObjectMeta, start: int) -> obstore.Bytes:
        if start:
            obstore.delete(place.objects(), name)
        return piece(self, name, meta, start)

    def replaced(self: Objects, name: str, meta: obstore.ObjectMeta, start: int) -> obstore.Bytes:
        if start:
            obstore.put(place.objects(), name, b"another")
        return piece(self, name, meta, start)

    monkeypatch.setattr(Objects, "_piece", replaced)
    with pytest.raises(StorageError, match=f"{place.url}/large was replaced while it was read: try again"):
        objects.fetch("large", tmp_path / "got")
    obstore.put(place.objects(), "large", content)
    monkeypatch.setattr(Objects, "_piece", gone)
    assert objects.fetch("large", tmp_path / "got") is None


def test_only_what_is_signed_comes_to_who_asks_for_it(place: Place, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path, "ours")
    key = str(public)
    assert "it has no signature" in place.push("two:shipped", code=1, ROLLOUT_PUBLIC_KEY=key)
    place.push("two:shipped")
    place.pull(code=3, ROLLOUT_PUBLIC_KEY=key)
    assert place.bundles == set()
    run(place.home, "sign", "two:shipped", "--key", str(private))
    try:
        assert "now with this signature" in place.push("two:shipped", ROLLOUT_PUBLIC_KEY=key)
    finally:
        (Path(STORE) / "models" / "two" / "shipped" / "manifest.sig").unlink()
    assert "two:shipped is here" in place.pull(ROLLOUT_PUBLIC_KEY=key)
    verify = ("verify", "two:shipped", "--key", key)
    assert "7 files match" in run(place.home, *verify, code=0, **place.environment())


def test_what_cannot_be_reached_is_said_in_a_line(place: Place) -> None:
    place.url = "s3://there-is-no-such-bucket/prod"
    line = f"rollout: {place.url} cannot be used: NoSuchBucket: The specified bucket does not exist\n"
    assert place.pull(code=1) == line
    assert place.push("two:shipped", code=1) == line
    assert place.pull(code=1, AWS_ENDPOINT_URL="http://127.0.0.1:1") == (
        f"rollout: {place.url} cannot be used: HTTP error: error sending request: Connection refused\n"
    )


def test_a_download_that_breaks_is_resumed_or_leaves_nothing(place: Place, tmp_path: Path) -> None:
    place.push("two:shipped")
    size = len(place.read("two/shipped.bentomodel"))
    way = Way(place.s3)
    log = tmp_path / "log"
    way.passes = 1500  # enough for the list
    assert size > 6 * way.passes
    with place.following(log, AWS_ENDPOINT_URL=way.url):
        wait_for_text(log, "two/shipped.bentomodel is left out: ")
        time.sleep(1)
        assert place.bundles == set()
        way.passes = size // 2 + 1500
        wait_for_text(log, "two:shipped is here")
    assert log.read_text().count("two/shipped.bentomodel is left out: ") == 1
    assert place.bundles == {"two:shipped"}


def test_what_may_come_the_next_time_is_not_left_out_for_good(place: Place) -> None:
    """The init container takes 3 for the last word, and starts the service without the bundle."""
    obstore.put(place.objects(), "two/broken.bentomodel", b"no archive")
    place.push("two:shipped")
    way = Way(place.s3)
    way.passes = 1800  # enough for the list
    assert len(place.read("two/shipped.bentomodel")) > 6 * way.passes
    summary = f"0 of 2 bundles under {place.url} are here, 2 left out, not all of them for good: try again"
    assert place.pull(code=1, AWS_ENDPOINT_URL=way.url) == f"rollout: {summary}\n"
    place.pull(code=3)
    assert place.bundles == {"two:shipped"}


def test_who_follows_gets_what_is_pushed_and_says_each_change_once(place: Place, tmp_path: Path) -> None:
    way = Way(place.s3)
    log = tmp_path / "log"
    with place.following(log, AWS_ENDPOINT_URL=way.url) as process:
        wait_for_text(log, "there is no bundle under")
        place.push("two:shipped")
        wait_for_text(log, f"1 of 1 bundles under {place.url} are here")
        way.passes = 0
        wait_for_text(log, "trying again every 0.2 s")
        time.sleep(2)
        way.passes = None
        wait_for_text(log, "answers again")
        place.push("two:next")
        wait_for_text(log, f"2 of 2 bundles under {place.url} are here")
        time.sleep(1)
        process.terminate()
        assert process.wait(5) == 0
    lines = [re.sub(r"cannot be used: .*?;", "cannot be used;", line) for line in log.read_text().splitlines()]
    assert lines == [
        f"there is no bundle under {place.url}: `rollout push NAME:VERSION {place.url}` puts one there; "
        "looking every 0.2 s",
        f"two:shipped is here: {HERE}",
        f"1 of 1 bundles under {place.url} are here; looking every 0.2 s",
        f"{place.url} cannot be used; trying again every 0.2 s",
        f"{place.url} answers again",
        f"two:next is here: {HERE}",
        f"2 of 2 bundles under {place.url} are here; looking every 0.2 s",
    ]


def test_sigterm_ends_it_at_once_though_the_storage_hangs(place: Place, tmp_path: Path) -> None:
    way = Way(place.s3)
    log = tmp_path / "log"
    with place.following(log, AWS_ENDPOINT_URL=way.url) as process:
        wait_for_text(log, "there is no bundle under")
        way.is_silent = True
        time.sleep(1)
        since = time.monotonic()
        process.terminate()
        assert process.wait(20) == 0
        assert time.monotonic() - since < 10, "one request alone may take half a minute"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_at_once_though_a_model_does_not(packed: str, tmp_path: Path, end: signal.Signals) -> None:
    push_bundle(packed, str(tmp_path / "there"))
    repack(tmp_path / "there", loop_for_ever, "two/shipped.bentomodel")
    environment = {"ROLLOUT_HOME": str(tmp_path / "home"), "BENTOML_HOME": str(tmp_path / "store")}
    with subprocess.Popen(
        [BIN / "rollout", "pull", str(tmp_path / "there")], cwd=ROOT, env=os.environ | environment
    ) as process:
        child = busy_child(process.pid)
        since = time.monotonic()
        process.send_signal(end)
        assert process.wait(20) == (128 + end if end == signal.SIGTERM else -end)
        with contextlib.suppress(psutil.NoSuchProcess):
            child.wait(5)
        assert time.monotonic() - since < 5
        assert not child.is_running()


def busy_child(process: int) -> psutil.Process:
    """Waits until a process has a child that has computed for a while."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        for child in psutil.Process(process).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.cpu_times().user > 5:
                    return child
        time.sleep(0.1)
    raise AssertionError("it runs no model")


def test_a_killed_pull_leaves_nothing_that_counts(place: Place, tmp_path: Path) -> None:
    place.push("two:shipped")
    folder = place.store / "staging"
    with place.following(tmp_path / "log") as process:
        give_up = time.monotonic() + 60
        while not folder.exists():
            assert time.monotonic() < give_up, (tmp_path / "log").read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert folder.exists()
    assert place.bundles == set()
    place.pull()
    assert place.bundles == {"two:shipped"}
    assert not folder.exists()
