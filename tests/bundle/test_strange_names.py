"""Names in a bucket that object storage can list and its client refuses: they hide nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import pytest

from rollout.bundle.exchange import Pull
from rollout.bundle.storage import Objects
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
            for name in sorted(names):
                if name.startswith(begin) and name > asked.get("start-after", ""):
                    first, slash, _ = name[len(begin) :].partition("/")
                    (folders if cut and slash else files).append(begin + first + slash if cut else name)
            about = "<LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size><ETag>e</ETag>"
            text = "".join(f"<Contents><Key>{_xml(name)}</Key>{about}</Contents>" for name in files)
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
    return "".join(sign if sign.isprintable() else f"&#{ord(sign)};" for sign in name)


@pytest.mark.parametrize(
    "strange",
    [
        "digits//v1.bentomodel",
        "digits/v1//x",
        "digits/../x.bentomodel",
        "digits/./x",
        "digits/\tv2.bentomodel",
        "digits/v1/\n.bentomodel",
        "//x",
        "../x/y",
        "\t/v1.bentomodel",
    ],
)
def test_one_strange_name_hides_no_other_and_is_named(bucket: list[str], strange: str) -> None:
    bucket += [f"pre/{name}" for name in [*WHOLE, strange]]
    storage = Objects("s3://bucket/pre")
    assert sorted(name for name in storage.list() if name in WHOLE) == WHOLE
    (said,) = storage.strange
    assert said == f"{f'pre/{strange}'!r} is left out: object storage can have no such name"
    pull = Pull("s3://bucket/pre")
    assert list(pull.look()) == WHOLE
    assert list(pull.take({})) == [said]
    pull.look()
    assert list(pull.take({})) == []  # said once
    bucket.pop()
    assert list(pull.look()) == WHOLE
    assert not storage.list().keys() - {*WHOLE}
    assert storage.strange == []


def test_one_between_versions_hides_those_of_its_model_alone(bucket: list[str]) -> None:
    bucket += [*WHOLE, "digits/v1\n2.bentomodel"]
    storage = Objects("s3://bucket")
    assert list(storage.list()) == ["arrivals/v1.bentomodel"]
    assert "'digits/v1\\n2.bentomodel' is left out" in storage.strange[-1]
    assert "what lies beside it cannot be listed" in storage.strange[-1]
