"""A model of sounds: packed with its pipeline of training as the reference, and asked in every way that there is."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import onnx
import pytest
import torch
import tritonclient.grpc as triton

from rollout import Classification, RolloutError
from rollout.bundle.manifest import Manifest
from rollout.bundle.parity import take
from rollout.bundle.quantizing import QUANTIZED
from rollout.bundle.source import ModuleSource
from rollout.bundle.variants import Onnx, OnnxInt8
from service.console.inputs import show_inputs
from tests.cli.test_cli import run
from tests.conftest import Service, free_port, run_service, set_split
from tests.http.conftest import HOST
from tests.review.items import make_item
from tests.sounds import in_base64, sound, tone
from tests.tones import FIELD, RATE, Pitch, as_librosa, files, pack_tones, part, picked, reference, trained

PREDICT = "/v1/models/tones/predict"
WAV = {"Content-Type": "audio/wav"}
SENT = files(6, 7)


class Served(NamedTuple):
    """A service with the model of tones.

    Attributes:
        service: The service.
        grpc: Where it answers gRPC.
        module: What was packed.
        manifest: The bundle's.
    """

    service: Service
    grpc: str
    module: Pitch
    manifest: Manifest

    def expect(self, sounds: Sequence[bytes]) -> list[float]:
        """Returns what the pipeline of training says to each file: how surely it is high."""
        task = self.manifest.task
        assert isinstance(task, Classification)
        scores = []
        for data in sounds:
            samples = torch.tensor(as_librosa(data))
            with torch.no_grad():
                logits = self.module(samples[None], torch.tensor([len(samples)]))
            scores.append(float(torch.softmax(logits / task.temperature, 1)[0, 1]))
        return scores


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    module = trained()
    manifest = pack_tones("v1", module, reference=reference(module, files(12, 5)))
    home = tmp_path_factory.mktemp("tones")
    set_split(home, "--champion", "v1", model="tones")
    port = free_port()
    with run_service(home, ROLLOUT_WORKERS="1", ROLLOUT_GRPC_PORT=str(port)) as service:
        yield Served(service, f"{HOST}:{port}", module, manifest)


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with served.service.client() as client:
        yield client


def as_json(data: bytes, client_id: str = "c") -> dict[str, Any]:
    return {"client_id": client_id, "inputs": {"sound": in_base64(data)}}


def high(answer: httpx.Response) -> list[float]:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return [one["scores"]["high"] for one in body.get("predictions", [body])]


def test_from_the_raw_file_the_bundle_decides_as_the_pipeline_of_training(served: Served) -> None:
    found = served.manifest.reference
    assert found is not None
    assert (found.rows, found.kept, found.refused, found.flipped) == (12, 12, 0, 0)
    assert found.largest_difference < 1e-5
    assert {(stage.where, stage.differ) for stage in found.stages} == {
        ("decoded", 0),
        ("layer", 0),
        ("outputs", 0),
        ("scores", 0),
    }


def test_in_8_bits_the_spectrum_keeps_its_precision(served: Served, tmp_path: Path) -> None:
    rows, inputs = part(60, 8).inputs, {"sound": FIELD}
    source = ModuleSource(served.module, served.manifest.task, take(rows, slice(0, 2)), inputs)
    for kind in (Onnx, OnnxInt8):
        (tmp_path / kind.file).parent.mkdir()
        kind.export(source, rows, tmp_path)
    graph = onnx.load(tmp_path / OnnxInt8.file).graph
    taken = {name for node in graph.node if node.op_type in QUANTIZED for name in node.input}
    constants = {name for name in source.constants if name.startswith("module.")}
    assert constants, "its filters"
    assert constants <= taken, "as they are, from no DequantizeLinear"
    assert "module.mix.weight" not in taken


def test_the_raw_files_travel_along_and_are_run_again(served: Served) -> None:
    printed = run(served.service.home, "verify", "tones:v1")
    rows = [line.split()[1:5] for line in printed.splitlines() if line.startswith((" onnx ", " torchscript "))]
    assert [row for row in rows if row[0] == "reference"] == [["reference", "12", "0", "0"]] * 2


def test_another_way_to_resample_is_told_by_its_stage(served: Served) -> None:
    folded = sound(tone(0.5, 44_100, 7_500), 44_100)  # at 8,000 Hz and without a filter, it is a tone of 500
    words = r"1 of 7 raw rows are decided otherwise .*: sound differs already when it is decoded, by up to [\d.]+ in 5 "
    with pytest.raises(RolloutError, match=words):
        pack_tones("picked", served.module, reference=reference(served.module, [*SENT, folded], picked))


def test_another_length_is_told_with_both(served: Served) -> None:
    def at_half_the_rate(data: bytes) -> Any:
        return as_librosa(data)[::2]

    with pytest.raises(RolloutError, match=r"the author's array has shape \(\d+,\), the bundle's \(\d+,\)"):
        pack_tones("half", served.module, reference=reference(served.module, SENT, at_half_the_rate))


def test_the_same_answer_however_a_sound_comes(served: Served, client: httpx.Client) -> None:
    ids = {"client_id": "c"}
    expected = served.expect(SENT)
    together = client.post(PREDICT, json={"instances": list(map(as_json, SENT))})
    assert np.allclose(high(together), expected, atol=1e-4)
    lines = "\n".join(json.dumps(as_json(data)) for data in SENT)
    streamed = client.post(PREDICT, content=lines, headers={"Content-Type": "application/x-ndjson"})
    assert np.allclose(
        [json.loads(line)["scores"]["high"] for line in streamed.iter_lines()], expected, atol=1e-4
    )
    tensor = {"name": "sound", "datatype": "BYTES", "shape": [len(SENT)], "data": list(map(in_base64, SENT))}
    inferred = client.post("/v2/models/tones/infer", json={"inputs": [tensor], "outputs": [{"name": "scores"}]})
    assert inferred.status_code == 200, inferred.text
    assert np.allclose(inferred.json()["outputs"][0]["data"][1::2], expected, atol=1e-4)
    as_they_are = triton.InferInput("sound", [len(SENT)], "BYTES").set_data_from_numpy(np.array(SENT, object))
    with triton.InferenceServerClient(served.grpc) as caller:
        assert np.allclose(caller.infer("tones", [as_they_are]).as_numpy("scores")[:, 1], expected, atol=1e-4)
    for data, score in zip(SENT, expected, strict=True):
        for answer in (
            client.post(PREDICT, json=as_json(data)),
            client.post(PREDICT, content=data, params=ids, headers=WAV),
            client.post(PREDICT, files={"sound": ("a.wav", data, "audio/wav")}, data=ids),
            client.post(PREDICT, files={"sound": data}, data=ids),
        ):
            assert np.allclose(high(answer), score, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "media_type"), [("FLAC", "audio/flac"), ("OGG", "audio/ogg"), ("MP3", "audio/mpeg")]
)
def test_other_files_are_bodies_as_well(client: httpx.Client, kind: str, media_type: str) -> None:
    data = sound(tone(0.5, RATE, 200), RATE, kind)
    answer = client.post(PREDICT, content=data, params={"client_id": "c"}, headers={"Content-Type": media_type})
    assert high(answer)[0] < 0.5


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello", "the bytes are neither a WAV"),
        (SENT[0][:30], "the sound file is damaged, or of a kind that is not taken: "),
        (sound(tone(1.5, RATE), RATE), "the sound lasts 1.5 s; at most 1 s are taken"),
    ],
)
def test_what_is_no_sound_is_refused(client: httpx.Client, data: bytes, words: str) -> None:
    for answer in (
        client.post(PREDICT, content=data, params={"client_id": "c"}, headers=WAV),
        client.post(PREDICT, json=as_json(data)),
    ):
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "#/inputs/sound"
        assert words in error["detail"]
        assert " object at " not in error["detail"], "of Python's own"


def test_what_is_taken_is_described(client: httpx.Client) -> None:
    refused = client.post(PREDICT, content=b"x", params={"client_id": "c"}, headers={"Content-Type": "image/png"})
    assert refused.status_code == 415
    assert "audio/wav" in refused.headers["accept"]
    body = client.get("/openapi.json").json()["paths"][PREDICT]["post"]["requestBody"]["content"]
    assert {"audio/wav", "audio/flac", "audio/mpeg"} < set(body)
    metadata = client.get("/v2/models/tones").json()["inputs"]
    assert metadata == [{"name": "sound", "datatype": "BYTES", "shape": [-1]}]


def test_a_reviewer_hears_what_was_sent(served: Served) -> None:
    data = next(data for data in unsure() if 0.2 < served.expect([data])[0] < 0.8)
    with served.service.admin() as client:
        for key, answer in {
            "body": client.post(PREDICT, content=data, params={"client_id": "heard", "key": "body"}, headers=WAV),
            "json": client.post(PREDICT, json={**as_json(data, "heard"), "key": "json"}),
        }.items():
            assert answer.json()["review"] == "queued", key
        (item,) = client.get("/v1/models/tones/reviews", params={"client_id": "heard"}).json()["reviews"]
    assert item["inputs"] == {"sound": in_base64(data)}
    kept = make_item(1, inputs=json.dumps(item["inputs"]).encode())
    (shown,) = show_inputs({"sound": FIELD}, kept)
    assert (shown.kind, shown.source.partition(";")[0], bool(shown.path)) == ("sound", "data:audio/wav", True)


def unsure() -> Iterator[bytes]:
    """Yields tones around the border between low and high."""
    for hertz in np.linspace(500, 1000, 200):
        yield sound(tone(0.4, RATE, float(hertz)), RATE)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_folder_of_sounds_is_predicted_file_by_file(served: Served, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    for at, data in enumerate(SENT):
        (folder / f"{at}.wav").write_bytes(data)
    given = folder
    if kind == "tar":
        given = tmp_path / "sounds.tar"
        with tarfile.open(given, "w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
    out = tmp_path / "out.jsonl"
    run(
        served.service.home,
        *("predict", str(given), "--out", str(out), "--url", served.service.base, "--client", "c"),
    )
    answers = {one["key"]: one["scores"]["high"] for one in map(json.loads, out.read_text().splitlines())}
    assert np.allclose([answers[f"{at}.wav"] for at in range(len(SENT))], served.expect(SENT), atol=1e-4)
