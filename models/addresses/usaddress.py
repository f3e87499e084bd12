"""Makes the addresses of this folder anew: ``python -m models.addresses.usaddress labeled.xml``.

The file is ``training/labeled.xml`` of the source distribution of usaddress: ``pip download --no-deps --no-binary
:all: usaddress==0.5.16``. The model needs what is in the repository, not that package.
"""

from __future__ import annotations

import html
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from models.addresses.data import FILE, Address, Span

# What a tag of usaddress is here; a tag that begins with none of these is outside.
PARTS = {
    "AddressNumber": "number",
    "StreetName": "street",
    "Occupancy": "unit",
    "Subaddress": "unit",
    "USPSBox": "box",
    "BuildingName": "place",
    "LandmarkName": "place",
    "PlaceName": "city",
    "StateName": "state",
    "ZipCode": "zip",
}
# Whoever is written to by name is left out, with the address.
LEFT_OUT = "Recipient"
AROUND = " ,;"


def read(xml: str) -> Iterator[Address]:
    """Yields each address that names nobody, once, in the order of the file.

    Words of one part that follow each other are one span; it begins and ends with neither a space nor a comma.
    """
    seen = set()
    for tagged in re.findall(r"<AddressString>(.*?)</AddressString>", xml, re.DOTALL):
        if f"<{LEFT_OUT}>" in tagged:
            continue
        address = _read_one(" ".join(tagged.split()))
        if address.spans and address.text not in seen:
            seen.add(address.text)
            yield address


def _read_one(tagged: str) -> Address:
    text, words = "", []
    for tag, word, between in re.findall(r"<(\w+)>(.*?)</\1>|([^<]+)", tagged):
        piece = html.unescape(word or between)
        words += [(_part(tag), len(text), len(text) + len(piece))] if tag else []
        text += piece
    spans = []
    for part, group in itertools.groupby(words, key=lambda word: word[0]):
        own = list(group)
        start, end = own[0][1], own[-1][2]
        start += len(text[start:end]) - len(text[start:end].lstrip(AROUND))
        end = start + len(text[start:end].rstrip(AROUND))
        spans += [Span(part, start, end)] if part and start < end else []
    return Address(text, spans)


def _part(tag: str) -> str | None:
    return next((part for start, part in PARTS.items() if tag.startswith(start)), None)


if __name__ == "__main__":
    addresses = read(Path(sys.argv[1]).read_text(encoding="utf-8"))
    FILE.write_text("".join(f"{json.dumps(address, ensure_ascii=False)}\n" for address in addresses))
