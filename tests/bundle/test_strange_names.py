"""Names in a bucket that object storage can list and its client refuses: they hide nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from rollout.bundle import storage as storage_module
from rollout.bundle.exchange import Pull
from rollout.bundle.storage import Objects
from rollout.errors import StorageError
from tests.s3 import KEYS

WHOLE = ["arrivals/v1.bentomodel", "digits/0.1.bentomodel", "digits/v1.bentomodel"]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What an S3 lists, which lists any name as it is."""
    names: list[str] = []

    class Listing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
            begin, cut = asked.get("prefix", ""), asked.get("delimiter")
            files: list[str] = []
            folders: list[str] = []
            encodes = "encoding-type" in asked and not self.path.startswith("/plain")
            for name in sorted(names):
                if name.startswith(begin) and name > asked.get("start-after", ""):
                    first, slash, _ = name[len(begin) :].partition("/")
                    (folders if cut and slash else files).append(begin + first + slash if cut else name)
            about = "<LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size><ETag>e</ETag>"
            start = int(asked.get("continuation-token") or 0)
            more = (
                f"<NextContinuationToken>{start + 2}</NextContinuationToken>"
                if encodes and files[start + 2 :]
                else ""
            )
            files = files[start : start + 2] if encodes else files
            said = [quote(name) if encodes else _xml(name) for name in files]
            text = "<EncodingType>url</EncodingType>" * encodes + more
            text += "".join(f"<Contents><Key>{name}</Key>{about}</Contents>" for name in said)
            text += "".join(
                f"<CommonPrefixes><Prefix>{_xml(one)}</Prefix></CommonPrefixes>" for one in sorted({*folders})
            )
            body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{text}</ListBucketResult>".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {**KEYS, "AWS_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}.items():
            monkeypatch.setenv(name, value)
        yield names
        server.shutdown()


def _xml(name: str) -> str:
    return "".join(sign if sign.isprintable() and sign not in "&<>" else f"&#{ord(sign)};" for sign in name)


# In the order in which they are listed; the first bucket is of a storage that lists no names encoded.
STRANGE = [
    "digits//v1.bentomodel",
    "digits/v1//x",
    "digits/../x.bentomodel",
    "digits/./x",
    "digits/\tv2.bentomodel",
    "digits/v1/\n.bentomodel",
    "//x",
    "../x/y",
    "\t/v1.bentomodel",
]
BETWEEN = [
    "digits/v1\n2.bentomodel",
    "digits/v1\x7f.bentomodel",
    "dig\x1b[31mits/v1.bentomodel",
    "z\r/v1.bentomodel",
    "a\n",
    "a/\0",
]


@pytest.mark.parametrize(
    ("place", "strange"), [*(("plain", name) for name in STRANGE), *(("s3", name) for name in STRANGE + BETWEEN)]
)
def test_one_strange_name_hides_no_other_and_is_named(bucket: list[str], place: str, strange: str) -> None:
    bucket += [f"pre/{name}" for name in [*WHOLE, strange]]
    storage = Objects(f"s3://{place}/pre")
    assert sorted(name for name in storage.list() if name in WHOLE) == WHOLE
    (said,) = storage.strange
    name = f"pre/{strange}" if place == "plain" else strange
    assert said == f"{name!r} is left out: object storage can have no such name"
    assert said.isprintable()
    pull = Pull(f"s3://{place}/pre")
    assert list(pull.look()) == WHOLE
    assert list(pull.take({})) == [said]
    pull.look()
    assert list(pull.take({})) == []  # said once
    bucket.pop()
    assert list(pull.look()) == WHOLE
    assert not storage.list().keys() - {*WHOLE}
    assert storage.strange == []


def test_of_very_many_strange_names_some_are_said(bucket: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    bucket += [*WHOLE, *(f"digits/\n{number:02}" for number in range(12)), "é/+ %41&<>.bentomodel"]
    storage = Objects("s3://bucket")
    assert sorted(storage.list()) == sorted([*WHOLE, "é/+ %41&<>.bentomodel"])
    assert len(storage.strange) == 11
    assert storage.strange[-1] == "2 further names are left out, too"
    monkeypatch.setattr(storage_module, "MOST_FILES", 10)
    with pytest.raises(StorageError, match="it has more than 10 files"):
        storage.list()


def test_where_names_are_not_listed_encoded_one_hides_those_of_its_model_alone(bucket: list[str]) -> None:
    bucket += [*WHOLE, "digits/v1\n2.bentomodel"]
    storage = Objects("s3://plain")
    assert list(storage.list()) == ["arrivals/v1.bentomodel"]
    assert "'digits/v1\\n2.bentomodel' is left out" in storage.strange[-1]
    assert "what lies beside it cannot be listed" in storage.strange[-1]
