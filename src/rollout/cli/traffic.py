"""``rollout demo traffic``: users of the demo, who report what was true, so that its trial is decided."""

from __future__ import annotations

import asyncio
import base64
import importlib
import io
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import click

from rollout.cli.output import say
from rollout.config import load_settings
from rollout.errors import ConfigError, RolloutError

FOLDER = Path("models/digits")
ROWS = 25  # of a request
TURNS = 8  # of a digit, by a scanner
SAY_EVERY_S = 5.0
LONGEST_WAIT_S = 30.0


class Scan(NamedTuple):
    """A scan and the digit that it shows.

    Attributes:
        image: As it is sent, a PNG in base64.
        label: The digit.
    """

    image: str
    label: str


@click.command()
@click.option("--url", help="The service; the one of ROLLOUT_HOST and ROLLOUT_PORT by default.")
@click.option("--token-file", type=click.File(), help="A file with its token; ROLLOUT_TOKEN by default.")
@click.option("--rate", type=click.FloatRange(min=1), default=500, show_default=True, help="Scans a second.")
@click.option("--clients", type=click.IntRange(min=1), default=20_000, show_default=True, help="So many users.")
@click.option("--seconds", type=click.FloatRange(min=0), help="End after so long; without, when the trial ends.")
@click.option("--scanner", is_flag=True, help="As a hand-held scanner gives them, turned and shifted.")
def traffic(
    url: str | None,
    token_file: IO[str] | None,
    rate: float,
    clients: int,
    seconds: float | None,
    *,
    scanner: bool,
) -> None:
    """Send scans of digits as many users would, and report for those in the trial which digit it was.

    Says what the service makes of its trial meanwhile. The digits are those that no version was trained on.
    """
    settings = load_settings(token=None if token_file is None else token_file.read().strip())
    service = (url or f"http://{settings.host}:{settings.port}").rstrip("/")
    asyncio.run(_run(service, settings.token, _scans(scanner=scanner), rate, clients, seconds))


def _scans(*, scanner: bool) -> list[Scan]:
    import PIL.Image  # noqa: PLC0415

    from rollout.training.recipe import load_recipe  # noqa: PLC0415  needs what training needs

    recipe = load_recipe(FOLDER)
    scanned = importlib.import_module("models.digits.scans").scanned  # which lies beside the recipe
    chance = random.Random(0)  # noqa: S311  no secret
    part = recipe.load().evaluation
    scans = []
    for pixels, target in zip(part.inputs["image"], part.targets.tolist(), strict=True):
        images = [scanned(pixels, chance) for _ in range(TURNS)] if scanner else [PIL.Image.fromarray(pixels)]
        for image in images:
            file = io.BytesIO()
            image.save(file, "PNG")
            scans.append(Scan(base64.b64encode(file.getvalue()).decode(), str(target)))
    return scans


async def _run(
    url: str, token: str, scans: Sequence[Scan], rate: float, clients: int, seconds: float | None
) -> None:
    import aiohttp  # noqa: PLC0415  takes long to import

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(f"{url}/v1/models/", headers=headers) as session:
        watching = asyncio.create_task(_watch(session))
        users = _Users(session, scans, clients)
        due = time.monotonic()
        until = None if seconds is None else due + seconds
        give_up = due + LONGEST_WAIT_S
        refused: Exception | None = None
        try:
            while not watching.done() and (until is None or time.monotonic() < until):
                try:
                    await users.send()
                    give_up = time.monotonic() + LONGEST_WAIT_S
                except (aiohttp.ClientError, TimeoutError, OSError, RolloutError) as error:
                    refused = error
                    if time.monotonic() > give_up:
                        break
                    await asyncio.sleep(1)
                due = max(due + ROWS / rate, time.monotonic() - 1)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            if refused is not None and (not users.sent or time.monotonic() > give_up):
                raise ConfigError(f"no Rollout service answers at {url}: {refused}")
            say(f"{users.sent:,} scans were sent, and {users.reported:,} digits reported")
        finally:
            watching.cancel()


class _Users:
    """Those who send scans.

    Args:
        session: To the model.
        scans: What they send.
        clients: How many there are.

    Attributes:
        sent: Scans that were answered.
        reported: Digits that were reported.
    """

    def __init__(self, session: Any, scans: Sequence[Scan], clients: int) -> None:
        self._session = session
        self._scans = scans
        self._clients = clients
        self._run = f"{random.getrandbits(32):08x}"
        self.sent = self.reported = 0

    async def send(self) -> None:
        """Sends a request, and reports what was true of those rows that are in the trial."""
        picked = random.choices(self._scans, k=ROWS)  # noqa: S311  no secret
        instances = [
            {
                "client_id": f"user-{random.randrange(self._clients)}",  # noqa: S311  no secret
                "key": f"{self._run}-{self.sent + place}",
                "inputs": {"image": scan.image},
            }
            for place, scan in enumerate(picked)
        ]
        answer = await self._post("predict", {"instances": instances})
        self.sent += ROWS
        outcomes = [
            {"client_id": one["client_id"], "key": one["key"], "label": scan.label}
            for one, scan in zip(answer["predictions"], picked, strict=True)
            if one["arm"] != "champion"
        ]
        if outcomes:
            await self._post("feedback", {"outcomes": outcomes})
            self.reported += len(outcomes)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._session.post(f"digits/{path}", json=body) as response:
            found: dict[str, Any] = await response.json(content_type=None)
            if response.status != 200:
                raise ConfigError(str(found.get("detail", response.status)))
            return found


async def _watch(session: Any) -> None:
    """Says what becomes of the trial, until there is none any more."""
    import aiohttp  # noqa: PLC0415

    said, was_on_trial = "", False
    while True:
        try:
            async with session.get("digits/verdict") as response:
                verdict = await response.json(content_type=None)
            async with session.get("digits") as response:
                split = (await response.json(content_type=None))["split"]
        except (aiohttp.ClientError, TimeoutError, OSError, KeyError):
            await asyncio.sleep(SAY_EVERY_S)
            continue
        if split["challenger"] is None:
            if was_on_trial:
                say(f"{time.strftime('%H:%M:%S')}  the trial is over: {split['champion']} is champion")
                return
            raise ConfigError("nothing is on trial: `rollout split set digits --challenger VERSION` begins one")
        was_on_trial = True
        known = [found["detail"] for found in verdict["findings"][:1] if found["estimate"] is not None]
        said_so = [one for one in known if one not in verdict["detail"]]
        words = f"{split['challenger']} has {split['share']:.0%}; {verdict['verdict']}: "
        words += "; ".join([verdict["detail"], *said_so])
        if words != said:
            said = words
            say(f"{time.strftime('%H:%M:%S')}  {words}")
        await asyncio.sleep(SAY_EVERY_S)
