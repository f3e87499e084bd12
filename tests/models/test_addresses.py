"""The spans model: its data, where they come from, what its versions find, and what is answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.addresses import data, usaddress
from models.addresses.baselines import by_word
from models.addresses.recipe import RECIPE
from models.addresses.tagger import tags_of_bytes
from rollout import Dataset
from rollout.bundle.schema import Labelled
from rollout.bundle.store import open_bundle
from tests.conftest import Service, run_service, set_split

# Of spans, found where they are and as what they are.
LEAST_F1 = {"v1": 0.74, "v2": 0.82}
LEAST_LEAD = 0.04


def ask(module: torch.nn.Module, *texts: str) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = module(torch.from_numpy(data.TEXT.encode(texts)))["logits"]
        return logits


def spans_of(tags: NDArray[Any]) -> list[tuple[int, int, int]]:
    """Returns tag, start and end of each span that the tags of a row stand for."""
    ends = np.flatnonzero(np.diff(tags, prepend=-1, append=-1))
    runs = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    return [(int(tags[start]), start, end) for start, end in runs if tags[start]]


def found(module: torch.nn.Module, text: str) -> list[tuple[str, str]]:
    tags = ask(module, text)[0].argmax(1).numpy()
    return [(data.LABELS[tag - 1], text.encode()[start:end].decode()) for tag, start, end in spans_of(tags)]


def f1(part: Labelled, answers: NDArray[Any]) -> float:
    """Returns the F1 of all spans together; answers are tags of bytes."""
    wanted = tags_of_bytes(*map(torch.from_numpy, (part.targets, part.inputs["text"]))).numpy()
    ours, theirs = ([set(spans_of(row)) for row in rows] for rows in (answers, wanted))
    same = sum(len(one & other) for one, other in zip(ours, theirs, strict=True))
    return 2 * same / sum(map(len, [*ours, *theirs]))


def answers_of(module: torch.nn.Module, part: Labelled) -> NDArray[Any]:
    with torch.no_grad():
        tags: NDArray[Any] = module(torch.from_numpy(part.inputs["text"]))["logits"].argmax(2).numpy()
        return tags


def test_no_address_is_in_two_parts_nor_twice() -> None:
    parts_of = defaultdict(set)
    for address in data.addresses():
        parts_of[data.place_of(address)].add(data.part_of(address))
    assert {len(parts) for parts in parts_of.values()} == {1}
    texts = [address.text for address in data.addresses()]
    assert len(set(texts)) == len(texts) == 1_406


def test_the_same_house_written_otherwise_is_the_same_place() -> None:
    one, other = (
        next(usaddress.read(f"<AddressString><AddressNumber>10</AddressNumber> {street}</AddressString>"))
        for street in (
            "<StreetNamePreDirectional>S.</StreetNamePreDirectional> <StreetName>Dearborn</StreetName>",
            "<StreetName>DEARBORN</StreetName> <StreetNamePostType>St</StreetNamePostType>, Chicago",
        )
    )
    assert data.place_of(one) == data.place_of(other) == "10dearborn"


def test_the_parts_are_large_enough_and_hold_every_label(dataset: Dataset) -> None:
    for part, least in zip(dataset[:3], (800, 270, 270), strict=True):
        assert len(part.targets) > least
        assert part.targets.shape == part.inputs["text"].shape
        assert set(np.unique(part.targets)) == set(range(1 + len(data.LABELS)))
        assert not part.targets[part.inputs["text"] == 0].any(), "what is behind the text is outside"


def test_spans_are_apart_and_begin_and_end_with_what_is_of_them() -> None:
    for text, spans in data.addresses():
        ends = [0, *(span.end for span in spans)]
        assert all(end <= span.start < span.end <= len(text) for end, span in zip(ends, spans, strict=False))
        assert all(text[span.start : span.end].strip(" ,;") == text[span.start : span.end] for span in spans)


def test_targets_are_tags_of_characters_and_training_takes_those_of_bytes() -> None:
    (address,) = [address for address in data.addresses() if not address.text.isascii()]
    tags, encoded = data.tags_of(address), data.TEXT.encode([address.text])
    ((_, street),) = [(tag, slice(start, end)) for tag, start, end in spans_of(tags) if tag == 2]
    assert address.text[street] == "N 6th ½ St"
    (of_bytes,) = tags_of_bytes(torch.from_numpy(tags[None]), torch.from_numpy(encoded)).numpy()
    ((_, street),) = [(tag, slice(start, end)) for tag, start, end in spans_of(of_bytes) if tag == 2]
    assert address.text.encode()[street].decode() == "N 6th ½ St"
    assert len(spans_of(of_bytes)) == len(address.spans) == 3


def test_an_address_is_read_from_the_file_of_usaddress() -> None:
    xml = """<AddressCollection>
      <AddressString><AddressNumber>12</AddressNumber> <StreetName>Oak</StreetName>
        <StreetNamePostType>St.,</StreetNamePostType> <PlaceName>St</PlaceName> <PlaceName>Paul,</PlaceName>
        <StateName>MN</StateName> <CountryName>USA</CountryName></AddressString>
      <AddressString><Recipient>Jane</Recipient> <AddressNumber>9</AddressNumber></AddressString>
      <AddressString><StreetName>1st</StreetName> <IntersectionSeparator>&amp;</IntersectionSeparator>
        <StreetName>Elm</StreetName></AddressString>
      <AddressString><AddressNumber>12</AddressNumber> <StreetName>Oak</StreetName>
        <StreetNamePostType>St.,</StreetNamePostType> <PlaceName>St Paul,</PlaceName>
        <StateName>MN</StateName> <CountryName>USA</CountryName></AddressString>
    </AddressCollection>"""
    (one, other) = usaddress.read(xml)
    assert one.text == "12 Oak St., St Paul, MN USA"
    assert [(span.label, one.text[span.start : span.end]) for span in one.spans] == [
        ("number", "12"),
        ("street", "Oak St."),
        ("city", "St Paul"),
        ("state", "MN"),
    ]
    assert other == ("1st & Elm", [("street", 0, 3), ("street", 6, 9)])


def test_the_licence_lies_beside_the_addresses() -> None:
    assert "The MIT License" in data.FILE.with_name("LICENSE.usaddress").read_text()


@pytest.mark.parametrize("version", RECIPE.versions)
def test_a_version_finds_spans_in_addresses_that_it_never_saw(
    version: str, dataset: Dataset, modules: dict[str, torch.nn.Module]
) -> None:
    part = dataset.evaluation
    score = f1(part, answers_of(modules[version], part))
    assert score > LEAST_F1[version]
    assert f1(part, by_word(dataset.train, part.inputs)) < score - 0.15


def test_the_second_version_finds_more(dataset: Dataset, modules: dict[str, torch.nn.Module]) -> None:
    both = Labelled(
        {"text": np.concatenate([part.inputs["text"] for part in dataset[1:3]])},
        np.concatenate([part.targets for part in dataset[1:3]]),
    )
    first, second = (f1(both, answers_of(module, both)) for module in modules.values())
    assert second > first + LEAST_LEAD


def test_the_second_version_reads_capitals_small_letters_and_what_stands_apart(
    modules: dict[str, torch.nn.Module],
) -> None:
    parts = [
        ("number", "901"),
        ("street", "E. Birch Road"),
        ("city", "Portland"),
        ("state", "OR"),
        ("zip", "97201"),
    ]
    for text in ("901 E. Birch Road, Portland, OR 97201", " 901 E. Birch Road ,  Portland, OR ;97201 "):
        assert found(modules["v2"], text) == parts
        assert found(modules["v2"], text.upper()) == [(label, part.upper()) for label, part in parts]
        assert found(modules["v2"], text.lower()) == [(label, part.lower()) for label, part in parts]


@pytest.mark.parametrize("version", RECIPE.versions)
def test_a_text_is_tagged_alike_alone_among_others_and_at_any_width(
    version: str, modules: dict[str, torch.nn.Module]
) -> None:
    text = "901 E. Birch Road, Portland, OR 97201"
    alone, among = ask(modules[version], text)[0], ask(modules[version], "x " * 64, text, "")[1]
    assert torch.allclose(alone, among, atol=1e-5)
    with torch.no_grad():
        short = modules[version](torch.from_numpy(data.TEXT.encode([text]))[:, : len(text)])["logits"][0]
    assert torch.allclose(alone[: len(text)], short, atol=1e-5)
    assert float(alone[len(text) :].softmax(1)[:, 0].min()) > 0.999, "padding is outside"


def test_words_that_are_too_many_are_outside_and_nothing_is_sure_of_them(
    modules: dict[str, torch.nn.Module],
) -> None:
    logits = ask(modules["v2"], "1 " * 63 + "1")[0]
    last = logits[2 * 32 :: 2]
    assert not last.argmax(1).any()
    assert torch.allclose(last.softmax(1).amax(1)[:31], torch.tensor(1 / (1 + len(data.LABELS))))


@pytest.fixture(scope="module")
def service(packed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp(packed)
    set_split(home, "--champion", "v2", model=packed)
    with run_service(home, ROLLOUT_WORKERS="1", ROLLOUT_VARIANT="onnx") as running:
        yield running


def test_an_address_is_answered_with_its_spans_in_characters(
    service: Service, modules: dict[str, torch.nn.Module]
) -> None:
    text = "1711 N 6th ½ St # 100, Saint Louis, MO 63101"
    with service.client() as client:
        response = client.post(
            "/v1/models/addresses/predict", json={"client_id": "c-1", "inputs": {"text": text}}
        )
    assert response.status_code == 200, response.text
    spans = response.json()["spans"]
    assert [(one["label"], text[one["start"] : one["end"]]) for one in spans] == found(modules["v2"], text)
    assert {"number", "street", "city", "state", "zip"} <= {one["label"] for one in spans}
    assert all(0 < one["confidence"] <= 1 for one in spans)


@pytest.mark.parametrize("version", RECIPE.versions)
def test_a_bundle_decides_as_its_author(service: Service, version: str) -> None:
    manifest = open_bundle(f"addresses:{version}")[1]
    assert manifest.reference is not None
    assert (manifest.reference.rows, manifest.reference.flipped) == (48, 0)
    assert {"onnx", "torchscript", "export"} <= set(manifest.variants), "each was compared with the module"
    assert manifest.metrics["span_f1"] > LEAST_F1[version]
    assert not manifest.task.reviews_everything, "the surest are answered without a person"
