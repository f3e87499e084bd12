"""Spans over a text: their characters, their confidence, how they are compared, and what people say of them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rollout import Span, Text, TokenLabels, Truth
from rollout.errors import BundleError
from rollout.heads import Head, decode_head, spans, token_calibration
from rollout.heads.character_tags import bounds, losses
from rollout.heads.measured import Evaluated
from rollout.review.label_studio import read_tasks, to_task
from rollout.review.labels import Label
from tests.heads.tagging import HEAD, TEXT, WIDTH, Tagger, part, sentences
from tests.review.items import make_item, written

HEADS = {"IO": HEAD, "BIO": msgspec.structs.replace(HEAD, scheme="BIO")}
SHARP = 20.0


def outputs_of(texts: list[str], module: torch.nn.Module | None = None) -> NDArray[np.float32]:
    """Returns what the tagger gives, all tensors side by side."""
    logits, text = (module or Tagger())(torch.tensor(TEXT.encode(texts)))
    return np.concatenate([logits.detach().numpy().reshape(len(texts), -1), text.numpy()], 1).astype(np.float32)


def scored(head: TokenLabels, text: str, tags: list[str], chances: dict[int, float] | None = None) -> Any:
    """Returns scores of one text whose characters have these tags, with the chance of some of them."""
    data = Text(max_bytes=head.positions).encode([text])
    targets = np.zeros((1, head.positions), np.int64)
    targets[0, : len(tags)] = [head.tags.index(tag) for tag in tags]
    of_bytes = np.maximum(head.tags_of_bytes(targets, data), 0)
    chance = np.full((1, head.positions, 1), 0.99)
    for place, value in (chances or {}).items():
        chance[0, len(text[:place].encode())] = value
    others = (1 - chance) / (len(head.tags) - 1)
    scores = np.where(np.arange(len(head.tags)) == of_bytes[..., None], chance, others)
    return np.concatenate([scores.reshape(1, -1), data], axis=1).astype(np.float32)


def found(head: TokenLabels, scores: Any) -> list[tuple[int, int, str, float]]:
    """Returns the spans of the first row."""
    answer = head.answer(head.numbers(scores)[0].tolist())
    return [tuple(span.values()) for span in answer.spans]


def test_spans_count_characters_of_the_text_as_it_was_sent() -> None:
    text = "é😀日本 ZOÉ naïve １３ Q"
    spans_found = found(HEAD, HEAD.scores(outputs_of([text])))
    assert [(text[start:end], label) for start, end, label, _ in spans_found] == [
        ("ZOÉ", "name"),
        ("１３", "number"),
        ("Q", "name"),
    ]
    assert [span[:2] for span in spans_found] == [(5, 8), (15, 17), (18, 19)]


def test_what_is_said_of_bytes_behind_the_text_does_not_count() -> None:
    scores = scored(HEAD, "é A", ["O", "O", "name"])
    scores[0, : WIDTH * 3].reshape(WIDTH, 3)[4:] = [0, 1, 0]  # behind its four bytes
    assert [span[:3] for span in found(HEAD, scores)] == [(2, 3, "name")]
    other = scores.copy()
    other[0, : WIDTH * 3].reshape(WIDTH, 3)[4:] = [1, 0, 0]
    other[0, : WIDTH * 3].reshape(WIDTH, 3)[1] = [0, 1, 0]  # the second byte of é
    assert not HEAD.flipped(scores, other)[0]
    assert HEAD.distances(scores, other)[0] == 0
    other[0, 2] += 0.25
    assert HEAD.distances(scores, other)[0] == pytest.approx(0.25)
    other[0, -WIDTH] += 1
    assert np.isinf(HEAD.distances(scores, other)[0])


@pytest.mark.parametrize("scheme", HEADS)
def test_tags_are_read_as_the_pure_functions_read_them(scheme: str) -> None:
    head, rng = HEADS[scheme], np.random.default_rng(1)
    text = "aé日😀bcdé"
    for _ in range(200):
        tags = [head.tags[index] for index in rng.integers(len(head.tags), size=len(text))]
        expected = [each.span for each in spans.decode(tags, scheme=head.scheme)]
        assert [span[:3] for span in found(head, scored(head, text, tags))] == [tuple(one) for one in expected]


def test_a_span_is_as_sure_as_its_least_sure_character_and_those_beside_it() -> None:
    tags = ["O", "name", "name", "O", "O", "number"]
    for place, expected in ((0, 0.7), (1, 0.7), (2, 0.7), (3, 0.7), (4, 0.99)):
        assert found(HEAD, scored(HEAD, "éAB  7", tags, {place: 0.7}))[0][3] == pytest.approx(expected)
    head = msgspec.structs.replace(HEAD, review_threshold=0.8)
    rows = np.concatenate([scored(head, "éAB  7", tags, {place: 0.7}) for place in range(6)])
    assert head.needs_review(rows).tolist() == [True, True, True, True, True, True]
    none = scored(head, "éab", ["O"] * 3, {1: 0.7})
    assert not head.needs_review(none)[0]
    assert head.confidences(head.numbers(np.concatenate([rows[:1], none]))) == pytest.approx([0.7, 1])
    everything = msgspec.structs.replace(HEAD, review_threshold=2.0)
    assert everything.needs_review(np.concatenate([rows[:1], none])).tolist() == [True, False]


@pytest.mark.parametrize("scheme", HEADS)
def test_targets_of_spans_are_tags_of_characters_and_of_bytes(scheme: str) -> None:
    head = HEADS[scheme]
    texts, truths = ["é ZOÉ", ""], [Truth(spans=[Span(2, 5, "name")]), Truth(spans=[])]
    targets = head.targets(truths)
    head.check_targets(targets)
    assert [head.tags[tag] for tag in targets[0, :6]] == spans.encode([spans.Span(2, 5, "name")], 6, head.scheme)
    of_bytes = head.tags_of_bytes(targets, TEXT.encode(texts))
    one, more = (1, 1) if scheme == "IO" else (1, 2)
    assert of_bytes[0, :9].tolist() == [0, -100, 0, one, more, more, -100, -100, -100]
    assert (of_bytes[1] == -100).all()
    with pytest.raises(BundleError, match="targets must be whole numbers from 0 to"):
        head.check_targets(of_bytes)


def test_losses_are_1_less_f1_of_each_row() -> None:
    rng, n = np.random.default_rng(2), 12
    one, other = (rng.integers(3, size=(300, n)) * (rng.random((300, n)) < 0.5) for _ in "ab")
    got = losses(bounds(HEAD.codes_of(one)), bounds(HEAD.codes_of(other)), 300, n)
    names = [[each.span for each in spans.decode([HEAD.tags[tag] for tag in row], scheme="IO")] for row in one]
    theirs = [[each.span for each in spans.decode([HEAD.tags[tag] for tag in row], scheme="IO")] for row in other]
    assert got == pytest.approx([spans.loss(*pair) for pair in zip(names, theirs, strict=True)])
    assert 0 < got.mean() < 1


def test_a_calibration_part_makes_the_threshold() -> None:
    texts, truths = sentences(300, 0)
    head, evidence = HEAD.calibrated(outputs_of(texts), HEAD.targets(truths))
    assert evidence is not None
    assert 0.8 < head.review_limit < 1
    assert (evidence.answered_errors, evidence.needed) == (0, 59)
    assert evidence.answered < evidence.rows < 200
    scores = head.scores(outputs_of(texts))
    assert 0.1 < head.needs_review(scores).mean() < 0.4
    outputs = outputs_of(texts)
    figures, diagram = head.measured(
        Evaluated((outputs, HEAD.targets(truths)), outputs, scores, HEAD.targets(truths))
    )
    assert figures["span_recall"] == 1
    assert figures["span_precision"] < figures["span_precision_without_review"] == 1
    assert (
        figures["span_loss"]
        == head.mean_loss(figures)
        == pytest.approx(head.losses(scores, HEAD.targets(truths)).mean())
    )
    assert "svg" in diagram
    text, facts = head.report(figures, evidence)
    assert "at most 5.0% of the answers" in text
    assert facts["span recall"] == "1.0000"


def test_what_cannot_be_calibrated_is_refused() -> None:
    texts, truths = sentences(30, 0)
    targets = HEAD.targets(truths)
    with pytest.raises(BundleError, match="return the tensor of the field"):
        HEAD.calibrated(outputs_of(texts, Tagger("text")), targets)
    with pytest.raises(BundleError, match="row 3 label characters behind its end"):
        HEAD.calibrated(outputs_of(texts), np.where(np.arange(30)[:, None] == 3, 1, targets))
    with pytest.raises(BundleError, match="next to no span"):
        HEAD.calibrated(outputs_of(["und ich"] * 30), np.zeros((30, WIDTH), int))
    with pytest.raises(BundleError, match="is no confidence"):
        msgspec.structs.replace(HEAD, review_threshold=-1.0).calibrated(outputs_of(texts), targets)


def test_the_guarantee_holds_where_the_spans_of_a_text_are_wrong_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of texts whose spans are all right or all wrong; were each counted, it would fail too often."""
    monkeypatch.setattr(token_calibration, "judge_threshold", lambda *_, **__: None)  # which takes long
    head = TokenLabels(labels=["x"], positions=20, risk=0.1, delta=0.05)
    is_span = np.arange(20) % 2 == 0
    rng = np.random.default_rng(3)

    def outputs(chance: NDArray[np.float64]) -> NDArray[np.float32]:
        logit = np.log(chance / (1 - chance))[:, None]
        logits = np.stack([np.zeros((len(chance), 20)), np.where(is_span, logit, -SHARP)], 2)
        text = np.full((len(chance), 20), float(ord("a")))
        return np.concatenate([logits.reshape(len(chance), -1), text], 1).astype(np.float32)

    all_chances = 1 - (np.arange(0.5, 500) / 500) ** 2 * 0.47
    failed, shares = 0, []
    for _ in range(100):
        chance = rng.choice(all_chances, 600)
        targets = (is_span & (rng.random(600) < chance)[:, None]).astype(np.int64)
        calibrated, _ = head.calibrated(outputs(chance), targets)
        answered = ~calibrated.needs_review(calibrated.scores(outputs(all_chances)))
        shares.append(answered.mean())
        failed += bool(answered.any() and (1 - all_chances[answered]).mean() > head.risk)
    assert failed <= head.delta * 100
    assert np.mean(shares) > 0.5


def test_what_people_say_is_checked_and_compared() -> None:
    said = Truth(spans=[Span(4, 8, "place"), Span(0, 0, "name"), Span(30, 41, "name"), Span(29, 31, "number")])
    assert list(HEAD.faults(said)) == [
        ("/spans/0", "the span from 0 to 0 has no character: the end is the first character after a span"),
        ("/spans/1", "'place' is no label: there are 'name', 'number'"),
        ("/spans/3", "the span from 30 to 41 lies outside any text, which has at most 40 characters"),
    ]
    overlapping = Truth(spans=[Span(0, 3, "name"), Span(2, 4, "number")])
    assert list(HEAD.faults(overlapping)) == [
        ("/spans/1", "the span from 2 to 4 overlaps the span from 0 to 3: no two may have a character in common")
    ]
    assert list(HEAD.faults(Truth(spans=[]))) == []
    assert [pointer for pointer, _ in HEAD.faults(Truth(label="name"))] == ["/label", "/spans"]
    answer = {
        "spans": [
            {"start": 0, "end": 3, "label": "name", "confidence": 0.9},
            {"start": 5, "end": 7, "label": "number", "confidence": 0.6},
        ]
    }
    accepted = HEAD.accepted(answer)
    assert accepted == Truth(spans=[Span(5, 7, "number"), Span(0, 3, "name")])
    assert HEAD.loss(answer, accepted) == 0
    assert HEAD.loss(answer, Truth(spans=[Span(0, 3, "name"), Span(5, 8, "number")])) == 0.5
    assert HEAD.loss({"spans": []}, Truth(spans=[])) == 0
    assert HEAD.truth_distance(accepted, Truth(spans=[Span(0, 3, "name")])) == pytest.approx(1 / 3)
    assert HEAD.uncertainty(answer) == pytest.approx(0.4)
    assert HEAD.uncertainty({"spans": []}) == 0
    assert HEAD.says(answer) == "name 0–3, number 5–7"
    assert HEAD.says({"spans": answer["spans"] * 3}) == "name 0–3, number 5–7, name 0–3, 3 more"
    assert HEAD.says({"spans": []}) == "no span"
    assert HEAD.labels_of({"spans": answer["spans"] * 2}) == ["name", "number"]


def test_label_studio_gets_and_gives_regions() -> None:
    answer = {"spans": [{"start": 1, "end": 3, "label": "name", "confidence": 0.9}]}
    (region,) = HEAD.studio_result(answer)
    assert region == {"type": "labels", "value": {"start": 1, "end": 3, "labels": ["name"]}, "score": 0.9}
    assert HEAD.studio_truth([region["value"] | {"text": "OÉ"}]) == HEAD.accepted(answer)
    assert HEAD.studio_truth([]) == Truth(spans=[])
    for wrong in ({"choices": ["name"]}, {"labels": ["name", "x"], "start": 1, "end": 2}, {"labels": ["name"]}):
        with pytest.raises(ValueError, match="a region of a text has"):
            HEAD.studio_truth([wrong])


def test_items_go_to_label_studio_and_come_back() -> None:
    answer = {"spans": [{"start": 2, "end": 5, "label": "name", "confidence": 0.9}]}
    item = make_item(1, task=written(HEAD), answer=answer, inputs=msgspec.Raw(b'{"text":"I Zoe 12"}'))
    task = msgspec.json.decode(msgspec.json.encode(to_task(item)))
    (region,) = task["predictions"][0]["result"]
    assert (region["from_name"], region["to_name"], region["value"]["labels"]) == ("answer", "inputs", ["name"])
    theirs = [region, region | {"value": {"start": 7, "end": 9, "text": "12", "labels": ["number"]}}]
    data = {name: task["data"][name] for name in ("id", "client_id", "key")}
    (label,) = read_tasks(msgspec.json.encode([{"data": data, "annotations": [{"result": theirs}]}]))
    assert isinstance(label, Label)
    assert callable(label.said)
    assert label.said(HEAD) == Truth(spans=[Span(2, 5, "name"), Span(7, 9, "number")])


def test_labels_are_translated_and_spans_stay_apart() -> None:
    head = TokenLabels(labels=["street", "avenue", "city"], positions=8)
    public = head.public({"avenue": "street", "city": "town"})
    assert public.labels == ["street", "town"]
    translate = head.translation(public, {"avenue": "street", "city": "town"})
    assert translate is not None
    numbers = head.numbers(scored(head, "ab c", ["street", "avenue", "O", "city"]))
    assert [tuple(span.values())[:3] for span in public.answer(translate(numbers)[0].tolist()).spans] == [
        (0, 1, "street"),
        (1, 2, "street"),
        (3, 4, "town"),
    ]
    assert head.translation(head.public({}), {}) is None
    assert head.signature == msgspec.structs.replace(head, labels=head.labels[::-1]).signature
    assert head.signature != public.signature


def test_versions_agree_on_spans_and_differ_by_f1() -> None:
    one, other = (
        HEAD.numbers(scored(HEAD, "AB 7", ["name", tag, "O", "number"], chances))[0].tolist()
        for tag, chances in (("name", {0: 0.6}), ("O", {}))
    )
    assert HEAD.agree(one, HEAD.numbers(scored(HEAD, "AB 7", ["name", "name", "O", "number"]))[0].tolist())
    assert not HEAD.agree(one, other)
    assert HEAD.distance(one, other) == 0.5
    assert HEAD.tensor("spans", np.array([other])) == [
        '[{"start":0,"end":1,"label":"name","confidence":0.99},{"start":3,"end":4,"label":"number","confidence":0.99}]'
    ]


def test_a_head_is_read_again_as_it_was_written_and_checked() -> None:
    head = msgspec.structs.replace(HEAD, review_threshold=0.9, scheme="BIO")
    assert msgspec.json.decode(msgspec.json.encode(head), type=Head, dec_hook=decode_head) == head
    for labels, positions in (([], 4), (["a", "a"], 4), (["a"], 0)):
        with pytest.raises(ValueError, match="must be"):
            TokenLabels(labels=labels, positions=positions)


def test_rows_that_are_no_numbers_do_no_harm() -> None:
    scores = np.full((1, HEAD.outputs), np.nan, np.float32)
    HEAD.numbers(scores)
    HEAD.needs_review(scores)
    assert np.isinf(HEAD.distances(scores, scores)[0])


def test_a_part_is_what_a_head_takes() -> None:
    HEAD.check_targets(part(4, 0).targets)
