"""``make large``: networks of the size that teams bring, packed, verified, served and measured on this machine.

``docs/gpu.md`` keeps what it printed.
"""

from __future__ import annotations

import base64
import inspect
import io
import os
import shutil
import statistics
import string
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import httpx
import msgspec
import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image as Picture
from sklearn.datasets import load_sample_images

from loadtests import networks
from loadtests.bodies import Request
from loadtests.networks import LABELS, trained
from loadtests.ours import BIN
from loadtests.servers import ROOT, running
from loadtests.usage import cpu_seconds, memory_mib
from rollout import Classification, Image, Labelled, Text, pack
from rollout.bundle.effort import Packing
from rollout.bundle.fields import Field
from rollout.bundle.machine import cpu_name, gpu_name
from rollout.bundle.manifest import Manifest
from rollout.bundle.schema import InputSchema
from rollout.bundle.store import open_bundle
from rollout.bundle.verify import verify_bundle
from rollout.cli.build import bar
from rollout.cores import usable_cores

ROWS, TRAINED = 48, 320  # of the calibration and of the evaluation part each; that a network is trained on
SIDE = 224
BYTES = 128
SECONDS = 5.0
MANY = 32  # rows of a large request
SIZES = (1, 2, 3, 5, 8, 16, MANY)
DEADLINE = 1.0  # of the service, where a request names none
SAID_EVERY_S = 10.0
# Light of red, green and blue that is left; below nothing, the picture is its negative.
LIGHTS = np.array([(1, 1, 1), (1.5, 0.3, 0.3), (0.3, 1.5, 0.3), (0.3, 0.3, 1.5), (-1, -1, -1)], np.float32)


class Network(NamedTuple):
    """A network and the rows that it takes.

    Attributes:
        make: Makes it, with random weights.
        field: Its input.
        draw: Draws rows as a caller has them; the labels of them are 0, 1 and so on, over and over.
        write: Writes a row as it is sent.
    """

    make: Callable[[], torch.nn.Module]
    field: Field
    draw: Callable[[int, int], list[Any]]
    write: Callable[[Any], str]


def _crops(rows: int, seed: int) -> list[NDArray[np.uint8]]:
    """Draws parts of two photographs in five lights, lighter or darker, mirrored or not."""
    generator, photographs = np.random.default_rng(seed), load_sample_images().images
    crops = []
    for row in range(rows):
        photograph = photographs[row % len(photographs)]
        top, left = (generator.integers(0, size - SIDE) for size in photograph.shape[:2])
        crop = photograph[top : top + SIDE, left : left + SIDE] * generator.uniform(0.5, 1.5)
        light = LIGHTS[row % LABELS // len(photographs)]
        lit = np.where(light < 0, 255 - crop, crop * light)
        noisy = np.clip(lit + generator.normal(0, 20), 0, 255).astype(np.uint8)
        crops.append(np.ascontiguousarray(noisy[:, ::-1] if generator.random() < 0.5 else noisy))
    return crops


def _jpeg(image: NDArray[np.uint8]) -> str:
    with io.BytesIO() as file:
        Picture.fromarray(image).save(file, "JPEG", quality=90)
        return base64.b64encode(file.getvalue()).decode()


def _sentences(rows: int, seed: int) -> list[str]:
    """Draws sentences of PyTorch's documentation, their letters moved on by twice the label."""
    texts = [inspect.getdoc(getattr(torch, name)) or "" for name in dir(torch)]
    sentences = sorted({line.strip()[:BYTES] for text in texts for line in text.splitlines() if len(line) > 40})
    ascii_only = [sentence for sentence in sentences if sentence.isascii()]
    picked = np.random.default_rng(seed).choice(len(ascii_only), rows, replace=False)
    return [_moved(ascii_only[index], 2 * (row % LABELS)) for row, index in enumerate(picked)]


def _moved(text: str, by: int) -> str:
    """Enciphers a text as Caesar did."""
    alphabets = string.ascii_lowercase, string.ascii_uppercase
    moved = "".join(letters[by:] + letters[:by] for letters in alphabets)
    return text.translate(str.maketrans("".join(alphabets), moved))


NETWORKS = {
    "mobilenet": Network(networks.mobilenet, Image(height=SIDE, width=SIDE, channels=3), _crops, _jpeg),
    "resnet50": Network(networks.resnet50, Image(height=SIDE, width=SIDE, channels=3), _crops, _jpeg),
    "encoder": Network(networks.Encoder, Text(max_bytes=BYTES), _sentences, str),
}


class Measured(msgspec.Struct):
    """What was measured of a network; times in seconds, memory in MiB.

    Attributes:
        weights: Millions of them.
        variants: Those that are kept, with their sizes in MiB.
        left_out: Why others are not.
        packed: Time to pack it, and CPU time of that; so too the next two.
        verified: Time to verify it, all variants.
        ready: Time from the start of the service, with one worker, until it answers.
        first: The slowest of the first requests, of ``SIZES`` rows, and the slowest when these come again.
        late: Of the requests of one row, one after the other, those that missed the deadline of the service.
        variant: What serves.
        one: Median time of a request of one row, one after the other.
        single: Rows a second of such requests.
        many: Rows a second of requests of ``MANY`` rows, one after the other.
        cpu: CPU time of the service for a row of these.
        memory: Memory of the service, all its processes.
    """

    weights: float
    variants: dict[str, float]
    left_out: dict[str, str]
    packed: tuple[float, float]
    verified: tuple[float, float]
    ready: tuple[float, float]
    first: tuple[float, float]
    late: int
    variant: str
    one: float
    single: float
    many: float
    cpu: float
    memory: float


@click.command()
@click.option("--only", default=",".join(NETWORKS), show_default=True, help="Networks, separated by commas.")
@click.option("--device", default="cpu", show_default=True, help="Device that serves: cpu or cuda.")
@click.option("--folder", default=ROOT / "loadtests" / "results" / "large", type=click.Path(path_type=Path))
def main(only: str, device: str, folder: Path) -> None:
    """Packs, verifies, serves and measures large networks, and prints a table."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ.setdefault("BENTOML_HOME", str(folder / "bentoml"))
    lines = [
        f"{date.today()}, {cpu_name()}, {usable_cores()} cores, {gpu_name() or 'no GPU'}; served on {device}\n",
        "| network | weights | variants | packed (CPU) | verified (CPU) | ready (CPU) "
        "| slowest of the first (again) | late | p50 of one row | rows/s, one a request "
        f"| rows/s, {MANY} a request | CPU a row | memory |",
        "| --- " * 13 + "|",
    ]
    for name in only.split(","):
        found = measure(name, NETWORKS[name], device, folder)
        lines += [_line(name, found)]
        (folder / "large.md").write_text("\n".join(lines) + "\n", "utf-8")
        (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    print("\n".join(lines))


def measure(name: str, network: Network, device: str, folder: Path) -> Measured:
    """Packs a network as ``name:v1``, serves it with one worker, and measures on the way."""
    torch.manual_seed(0)
    schema = InputSchema({"input": network.field})

    def rows_of(count: int, seed: int) -> NDArray[Any]:
        sent = [msgspec.Raw(msgspec.json.encode(network.write(row))) for row in network.draw(count, seed)]
        return np.stack([schema.decode({"input": row})["input"] for row in sent])

    torch.set_num_threads(1)  # where others use the cores as well, several wait for each other
    module = network.make()
    trained(module, torch.tensor(rows_of(TRAINED, 9)), torch.arange(TRAINED) % LABELS)
    parts = [Labelled({"input": rows_of(ROWS, seed)}, np.arange(ROWS) % LABELS) for seed in (1, 2)]
    started, cpu = time.monotonic(), time.process_time()
    manifest = pack(
        module,
        name=name,
        version="v1",
        inputs={"input": network.field},
        task=Classification(labels=[f"label-{index}" for index in range(LABELS)], risk=0.5),
        calibration=parts[0],
        evaluation=parts[1],
        on_step=lambda step: print(f"{time.monotonic() - started:6.0f} s  {name}: {step}", flush=True),
        on_progress=_said(started),
    )
    packed = time.monotonic() - started, time.process_time() - cpu
    bundle, manifest = open_bundle(f"{name}:v1")
    started, cpu = time.monotonic(), time.process_time()
    verify_bundle(bundle, manifest)
    verified = time.monotonic() - started, time.process_time() - cpu
    found = _served(name, network, device, folder)
    return Measured(
        weights=sum(weight.numel() for weight in module.parameters()) / 1e6,
        variants=_sizes(bundle, manifest),
        left_out={variant: left.why for variant, left in manifest.left_out.items()},
        packed=packed,
        verified=verified,
        **found,
    )


def _served(name: str, network: Network, device: str, folder: Path) -> dict[str, Any]:
    environment = {"ROLLOUT_HOME": str(folder / name), "ROLLOUT_WORKERS": "1", "ROLLOUT_DEVICE": device}
    split = psutil.Popen(
        [BIN / "rollout", "split", "set", name, "--champion", "v1", "--yes"],
        env=os.environ | environment,
    )
    if split.wait():
        raise click.ClickException(f"the split of {name} was not set")
    instances = [
        {"client_id": f"c-{index}", "inputs": {"input": network.write(row)}}
        for index, row in enumerate(network.draw(MANY, 3))
    ]
    path = f"/v1/models/{name}/predict"
    headers = {"Content-Type": "application/json"}
    patient = {"X-Request-Timeout": "60000"}
    first = Request(path, headers | patient, msgspec.json.encode(instances[0]))
    command = (str(BIN / "rollout"), "serve", "--port", "{port}")
    started = time.monotonic()
    with running(command, environment, first, folder / f"{name}.log") as server:
        ready = time.monotonic() - started, cpu_seconds(server.process)
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
            variant = client.post(path, json=instances[0]).json()["variant"]
            ask = partial(client.post, path, headers=patient)
            slowest, again = (
                max(next(_timed(partial(ask, json={"instances": instances[:size]}))) for size in SIZES)
                for _ in range(2)
            )
            statuses: list[int] = []
            taken = list(_timed(lambda: statuses.append(client.post(path, json=instances[0]).status_code)))
            late = [status != 200 or wait > DEADLINE for status, wait in zip(statuses, taken, strict=True)]
            cpu = cpu_seconds(server.process)
            many = list(_timed(lambda: ask(json={"instances": instances}).raise_for_status()))
            cpu = (cpu_seconds(server.process) - cpu) / (MANY * len(many))
        return {
            "ready": ready,
            "first": (slowest, again),
            "late": sum(late),
            "variant": variant,
            "one": statistics.median(taken),
            "single": len(taken) / sum(taken),
            "many": MANY * len(many) / sum(many),
            "cpu": cpu,
            "memory": memory_mib(server.process),
        }


def _said(started: float) -> Callable[[Packing], None]:
    """Returns what says now and then how far packing is."""
    last = started

    def say(now: Packing) -> None:
        nonlocal last
        if time.monotonic() - last > SAID_EVERY_S:
            last = time.monotonic()
            print(f"{last - started:6.0f} s  {bar(now.share)} about {now.seconds_left:.0f} s left", flush=True)

    return say


def _timed(send: Callable[[], object]) -> Iterator[float]:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        start = time.perf_counter()
        send()
        yield time.perf_counter() - start


def _sizes(bundle: Path, manifest: Manifest) -> dict[str, float]:
    return {name: (bundle / one.file).stat().st_size / 1024**2 for name, one in manifest.variants.items()}


def _both(taken: tuple[float, float]) -> str:
    return f"{taken[0]:.0f} s ({taken[1]:.0f} s)"


def _line(name: str, found: Measured) -> str:
    kept = ", ".join(
        f"**{variant}** {size:.1f} MiB" if variant == found.variant else f"{variant} {size:.1f} MiB"
        for variant, size in found.variants.items()
    )
    left_out = "".join(f"; no {variant}" for variant in found.left_out)
    return (
        f"| {name} | {found.weights:.1f} M | {kept}{left_out} | {_both(found.packed)} | {_both(found.verified)} "
        f"| {_both(found.ready)} | {found.first[0] * 1000:.0f} ms ({found.first[1] * 1000:.0f} ms) "
        f"| {found.late} | {found.one * 1000:.1f} ms "
        f"| {found.single:.1f} | {found.many:.1f} | {found.cpu * 1000:.1f} ms | {found.memory:.0f} MiB |"
    )


if __name__ == "__main__":
    main()
