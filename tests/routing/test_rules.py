"""Rules: clients that get an arm before the hash is asked."""

from __future__ import annotations

import time
import timeit

import pytest

from rollout.errors import InvalidSplitError
from rollout.routing.assignment import assign, bucket, describe, explain
from rollout.routing.split import LONGEST_PATTERN, MOST_CLIENTS, MOST_PATTERNS, MOST_RULES, Rule, Split

PINNED = Rule(arm="challenger", clients=("ada", "tester-*"))
EXCLUDED = Rule(arm="champion", clients=("ada", "grace"))


def split(*rules: Rule, share: float = 0.0) -> Split:
    return Split(champion="v1", challenger="v2", share=share, experiment="digits-v1-v2", rules=rules)


def rule_of(client_id: str, *rules: Rule, segment: str = "") -> int | None:
    return assign(split(*rules), client_id, segment).rule


def fits(pattern: str, client_id: str) -> bool:
    return rule_of(client_id, Rule(arm="challenger", clients=(pattern,))) == 0


def test_a_rule_pins_clients_to_the_challenger_whatever_their_share() -> None:
    assert assign(split(PINNED), "ada") == ("challenger", "v2", None, 0)
    assert assign(split(PINNED), "tester-7") == ("challenger", "v2", None, 0)


def test_a_rule_keeps_clients_out_of_the_trial() -> None:
    position = bucket("digits-v1-v2", "grace")
    assert assign(split(share=0.5), "grace").arm != "champion"
    assert assign(split(EXCLUDED, share=0.5), "grace") == ("champion", "v1", None, 0)
    assert assign(split(EXCLUDED, share=0.5), "someone").rule is None
    assert assign(split(share=0.5), "grace").bucket == position


def test_who_fits_no_rule_goes_by_the_hash() -> None:
    for number in range(500):
        client = f"client-{number}"
        assert assign(split(PINNED, EXCLUDED, share=0.2), client) == assign(split(share=0.2), client)


def test_the_first_rule_that_fits_decides() -> None:
    assert assign(split(PINNED, EXCLUDED), "ada")[::3] == ("challenger", 0)
    assert assign(split(EXCLUDED, PINNED), "ada")[::3] == ("champion", 0)
    assert rule_of("grace", PINNED, EXCLUDED) == 1


@pytest.mark.parametrize(
    ("rules", "decides"),
    [
        # Names, patterns and segments are kept apart; the order among them still counts.
        ((Rule(arm="champion", clients=("a*",)), Rule(arm="challenger", clients=("ada",))), 0),
        ((Rule(arm="champion", clients=("ada",)), Rule(arm="challenger", clients=("a*",))), 0),
        ((Rule(arm="champion", segments=("beta",)), Rule(arm="challenger", clients=("ada",))), 0),
        ((Rule(arm="champion", clients=("b*", "bob")), Rule(arm="challenger", segments=("beta",))), 1),
        ((Rule(arm="champion", clients=("b*",)), Rule(arm="champion", clients=("*a",)), PINNED), 1),
        ((Rule(arm="champion", clients=("b*",)), PINNED, Rule(arm="champion", clients=("*a",))), 1),
        ((Rule(arm="champion", segments=("alpha",)), Rule(arm="champion", clients=("bob",))), None),
    ],
)
def test_the_order_of_rules_counts_across_their_kinds(rules: tuple[Rule, ...], decides: int | None) -> None:
    assert rule_of("ada", *rules, segment="beta") == decides


@pytest.mark.parametrize(
    ("pattern", "clients", "others"),
    [
        ("acme", ["acme"], ["acme ", "Acme", "acm", "acmee", "xacme"]),
        ("acme-*", ["acme-", "acme-1", "acme-\n-x"], ["acme", "Acme-1", "x-acme-1"]),
        ("*-eu", ["-eu", "a-eu", "a-eu-eu"], ["eu", "a-eu ", "a-eu\n"]),
        ("a?c", ["abc", "a?c", "a*c", "a😀c"], ["ac", "abbc", "abc\n"]),
        ("a*b*c", ["abc", "a--b--c", "abcbc"], ["acb", "ab"]),
        ("*", ["a", "\n", "😀"], []),
        ("u[1]*", ["u[1]", "u[1]x"], ["u1", "u1x"]),
        ("[!a]*", ["[!a]", "[!a]b"], ["b", "!"]),
        ("[a-z]?", ["[a-z]1"], ["b1"]),
        ("a]*[", ["a][", "a]x["], ["a]"]),
        ("[[]*", ["[[]x"], ["[x"]),
        (r"a\*", ["a\\", r"a\b"], ["a*", "ab"]),
        ("(a|b)+.*", ["(a|b)+.", "(a|b)+.x"], ["a.", "ab"]),
        ("[a]", ["[a]"], ["a"]),
    ],
)
def test_patterns_know_the_star_and_the_question_mark_only(
    pattern: str, clients: list[str], others: list[str]
) -> None:
    assert [client for client in clients if not fits(pattern, client)] == []
    assert [client for client in others if fits(pattern, client)] == []


@pytest.mark.parametrize(
    ("pattern", "client_id"),
    [
        ("*a" * 63 + "*b", "a" * 128),
        ("*a?" * 42 + "b", "a" * 128),
        ("*ab" * 42 + "*c", "aab" * 42),
        ("*" * 127 + "b", "a" * 128),
    ],
)
def test_no_pattern_takes_long(pattern: str, client_id: str) -> None:
    start = time.process_time()
    assert not fits(pattern, client_id)
    assert time.process_time() - start < 0.5


def test_ten_thousand_names_cost_a_request_next_to_nothing() -> None:
    named = split(Rule(arm="champion", clients=tuple(f"client-{number}" for number in range(MOST_CLIENTS))))
    assign(named, "someone")
    best = min(timeit.repeat(lambda: assign(named, "someone"), number=1000, repeat=5))
    assert best < 0.02, "20 µs each; hashing all the names takes twice as long"


def test_segments_are_matched_exactly() -> None:
    beta = Rule(arm="challenger", segments=("beta", "staff*"))
    assert assign(split(beta), "anyone", "beta") == ("challenger", "v2", None, 0)
    assert rule_of("anyone", beta, segment="staff*") == 0
    for segment in ("", "Beta", "betas", "staff"):
        assert rule_of("anyone", beta, segment=segment) is None
    assert rule_of("beta", beta) is None, "a segment is not a client"
    assert rule_of("anyone", PINNED, segment="ada") is None, "nor a client a segment"


def test_without_a_challenger_nobody_is_pinned_to_it() -> None:
    alone = Split(champion="v1", rules=(PINNED,))
    assert assign(alone, "ada") == ("champion", "v1", None, None)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (PINNED, "pins clients ada, tester-* to the challenger"),
        (EXCLUDED, "keeps clients ada, grace out of the trial"),
        (Rule(arm="champion", segments=("beta",)), "keeps segments beta out of the trial"),
        (
            Rule(arm="challenger", clients=tuple(f"c{number}" for number in range(1234))),
            "pins clients c0, c1, c2 and 1,231 more to the challenger",
        ),
    ],
)
def test_rules_are_described_and_explain_an_assignment(rule: Rule, words: str) -> None:
    assert describe(rule) == words
    ruled = split(Rule(arm="champion", clients=("nobody",)), rule)
    client = rule.clients[0] if rule.clients else "anyone"
    assert explain(ruled, assign(ruled, client, "beta")) == f"rule 2 {words}"


def test_nobody_fits_no_rule() -> None:
    assert assign(split(Rule(arm="challenger", clients=("*",))), "") == ("champion", "v1", None, None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "either clients or segments"),
        ({"clients": ("a",), "segments": ("b",)}, "either clients or segments"),
        ({"clients": ("a", "")}, "1 to 128 characters, not 0"),
        ({"segments": ("",)}, "1 to 128 characters, not 0"),
        ({"clients": ("a" * (LONGEST_PATTERN + 1),)}, "1 to 128 characters, not 129"),
    ],
)
def test_rules_that_make_no_sense_are_refused(fields: dict[str, tuple[str, ...]], words: str) -> None:
    with pytest.raises(InvalidSplitError, match=words):
        Rule(arm="challenger", **fields)


@pytest.mark.parametrize(
    "rules",
    [
        [Rule(arm="champion", clients=("a",))] * (MOST_RULES + 1),
        [Rule(arm="champion", clients=tuple(map(str, range(MOST_CLIENTS + 1))))],
        [Rule(arm="champion", segments=tuple(map(str, range(MOST_CLIENTS + 1))))],
        [Rule(arm="champion", clients=tuple(f"{number}-*" for number in range(MOST_PATTERNS + 1)))],
    ],
    ids=["rules", "names", "segments", "patterns"],
)
def test_more_rules_than_a_request_has_time_for_are_refused(rules: list[Rule]) -> None:
    with pytest.raises(InvalidSplitError, match="at most 100 rules with 10,000 clients and segments in all, 200"):
        split(*rules)
