"""Where bundles are kept for others: a folder, or object storage such as S3."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from rollout.bundle.room import room
from rollout.errors import BundleError, ConfigError, StorageError

if TYPE_CHECKING:
    from obstore import Bytes, GetOptions, ObjectMeta, PutMode, UpdateVersion
    from obstore.store import ObjectStore

# Each piece has its own deadline and its own retries, however large the bundle is.
PIECE_BYTES = 16 * 1024 * 1024
PIECE_TIMEOUT = timedelta(seconds=30)
# A bundle is sent in one request: only for that can storage promise that it replaces no other.
PUT_TIMEOUT = timedelta(hours=1)
RETRIES, RETRY_S = 3, 20
# What has more was not made for bundles, or is made up: it would fill the memory.
MOST_FILES = 100_000

# Names of models and versions begin with a letter or a digit; what is this alone is none.
FIRST = "0"

T = TypeVar("T")


class Storage(Protocol):
    """A place where files lie under names such as ``digits/v2.bentomodel``.

    Attributes:
        strange: What the last listing has left out, each in a sentence.
    """

    strange: list[str]

    def list(self) -> dict[str, str]:
        """Returns the files that are there, each with what changes when its content does.

        Raises:
            StorageError: If it cannot be read.
        """
        ...

    def fetch(self, name: str, file: Path) -> UpdateVersion | None:
        """Copies what lies under a name into a local file.

        Returns:
            Which content of this name it is, as far as the storage tells; ``None`` if there is nothing.

        Raises:
            StorageError: If it cannot be read, is replaced meanwhile, or is larger than there is room for.
        """
        ...

    def put(self, name: str, file: Path, replaces: UpdateVersion | None = None) -> None:
        """Puts a local file under a name; whoever reads it meanwhile sees all of it or nothing.

        Args:
            name: The name.
            file: The local file.
            replaces: The content that it takes the place of, as ``fetch`` returned it, if any.

        Raises:
            BundleError: If there is another content by now.
            StorageError: If it cannot be written.
        """
        ...


def open_storage(url: str) -> Storage:
    """Returns the storage at a URL such as ``s3://bucket/path``, or in a folder.

    Raises:
        ConfigError: If the URL is of no known kind, or what it takes is not installed.
    """
    path = url.removeprefix("file://")
    return Objects(url) if "://" in path else Folder(Path(path).expanduser())


class Folder:
    """A folder on disk, such as one that a container image brings.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.strange: list[str] = []

    def list(self) -> dict[str, str]:
        with self._named():
            if not self._path.is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            files = (file for file in self._path.glob("*/*") if file.is_file())
            found = {file: file.stat() for file in _bounded(files, str(self._path))}
        return {
            file.relative_to(self._path).as_posix(): f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
            for file, stat in found.items()
        }

    def fetch(self, name: str, file: Path) -> UpdateVersion | None:
        with self._named():
            try:
                _require_room((self._path / name).stat().st_size, file, str(self._path / name))
                shutil.copyfile(self._path / name, file)
            except FileNotFoundError:
                return None
        return {}  # a folder cannot replace just one content

    def put(self, name: str, file: Path, replaces: UpdateVersion | None = None) -> None:
        place = self._path / name
        draft = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
        with self._named():
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(file, draft)
                if replaces is None:
                    place.hardlink_to(draft)  # only if nobody was first
                else:
                    draft.replace(place)
            except FileExistsError:
                raise BundleError(f"{place} was written concurrently: push again") from None
            finally:
                draft.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{self._path} cannot be used: {error.strerror}") from None


class Objects:
    """Object storage, through obstore; credentials and endpoint come from the usual variables, as ``AWS_…``.

    Args:
        url: Bucket and path.

    Raises:
        ConfigError: If obstore is missing, or does not know this kind of URL.
    """

    def __init__(self, url: str) -> None:
        try:
            import obstore.store  # noqa: PLC0415  an extra
        except ImportError:
            raise ConfigError(f"{url} takes the extra `s3`: pip install 'rollout[s3]'") from None
        self._url = url
        self.strange: list[str] = []
        self._obstore = obstore
        self._was_first = (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError)
        try:
            self._to_read, self._to_write = self._store(PIECE_TIMEOUT), self._store(PUT_TIMEOUT)
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise ConfigError(
                f"{url} cannot be used: {_in_short(error)}; a URL reads s3://bucket/path, and a folder has no ://"
            ) from None

    def _store(self, timeout: timedelta) -> ObjectStore:
        return self._obstore.store.from_url(
            self._url,
            # Without TLS only where the endpoint says http://.
            client_options={"allow_http": True, "timeout": timeout},
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)},
        )

    def list(self) -> dict[str, str]:
        def look() -> dict[str, str]:
            self.strange = []
            found = itertools.chain.from_iterable(self._obstore.list(self._to_read))
            try:
                return _contents(_bounded(found, self._url))
            except self._obstore.exceptions.InvalidPathError as error:
                self.strange.append(_strange(error))
            return _contents(_bounded(self._list_by_model(), self._url))

        return self._run(look)

    def _list_by_model(self) -> Iterator[ObjectMeta]:
        """Yields what lies in each folder, where a name that is none has refused the page of a listing.

        What lies deeper is not seen then, nor what is before all names of models and versions: an empty part,
        ``.``, ``..`` and most control characters. One between these names hides those of its page.
        """

        def folders() -> Sequence[str]:
            found: Sequence[str] = self._obstore.list_with_delimiter(self._to_read)["common_prefixes"]
            return found

        def first_parts() -> Sequence[str]:
            found = itertools.chain.from_iterable(self._obstore.list(self._to_read, offset=FIRST))
            return sorted({one["path"].partition("/")[0] for one in _bounded(found, self._url)})

        for model in self._any_of(folders, first_parts):

            def files(model: str = model) -> Sequence[ObjectMeta]:
                found: Sequence[ObjectMeta] = self._obstore.list_with_delimiter(self._to_read, model)["objects"]
                return found

            def later_files(model: str = model) -> Sequence[ObjectMeta]:
                found = self._obstore.list(self._to_read, model, offset=f"{model}/{FIRST}")
                return [*_bounded(itertools.chain.from_iterable(found), self._url)]

            yield from self._any_of(files, later_files)

    def _any_of(self, *ways: Callable[[], Sequence[T]]) -> Sequence[T]:
        """Returns what the first way finds that meets no name that is none; if all do, that is said."""
        for look in ways:
            try:
                return look()
            except self._obstore.exceptions.InvalidPathError as error:
                strange = _strange(error)
        self.strange.append(f"{strange}; what lies beside it cannot be listed")
        return []

    def fetch(self, name: str, file: Path) -> UpdateVersion | None:
        try:
            meta = self._run(lambda: self._obstore.head(self._to_read, name))
            _require_room(meta["size"], file, self._place(name))
            with file.open("wb") as out:
                for start in range(0, meta["size"], PIECE_BYTES):
                    out.write(self._run(lambda: self._piece(name, meta, start)))  # noqa: B023  done before the next
        except FileNotFoundError:  # perhaps since a moment ago
            return None
        except self._obstore.exceptions.PreconditionError:
            raise StorageError(f"{self._place(name)} was replaced while it was read: try again") from None
        version: UpdateVersion = {}
        if meta["e_tag"]:
            version["e_tag"] = meta["e_tag"]
        if meta["version"]:
            version["version"] = meta["version"]
        return version

    def _piece(self, name: str, meta: ObjectMeta, start: int) -> Bytes:
        end = min(start + PIECE_BYTES, meta["size"])
        options: GetOptions = {"range": (start, end), "if_match": meta["e_tag"]}
        return self._obstore.get(self._to_read, name, options=options).bytes()

    def put(self, name: str, file: Path, replaces: UpdateVersion | None = None) -> None:
        mode: PutMode = "create" if replaces is None else replaces or "overwrite"
        try:
            self._run(lambda: self._obstore.put(self._to_write, name, file, mode=mode))
        except self._was_first:
            raise BundleError(f"{self._place(name)} was written concurrently: push again") from None
        except FileNotFoundError as error:  # the bucket
            raise StorageError(f"{self._url} cannot be used: {_in_short(error)}") from None

    def _place(self, name: str) -> str:
        return f"{self._url.rstrip('/')}/{name}"

    def _run(self, work: Callable[[], T]) -> T:
        """Runs something in another thread: while obstore blocked the main one, no signal would end it."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except Exception as error:
                done.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        try:
            return done.result()
        except (*self._was_first, FileNotFoundError):
            raise
        except (self._obstore.exceptions.BaseError, ValueError) as error:
            raise StorageError(f"{self._url} cannot be used: {_in_short(error)}") from None


def _contents(found: Iterable[ObjectMeta]) -> dict[str, str]:
    """Returns what changes with the content of each file, by its name."""
    return {one["path"]: one["e_tag"] or str(one["last_modified"]) for one in found}


def _strange(error: Exception) -> str:
    """Says in a line which name is none."""
    found = re.search(r'[Pp]ath "(.*?)"(?: contained|: )', str(error), re.DOTALL)
    name = found[1] if found else _in_short(error)
    return f"{name!r} is left out: object storage can have no such name"


def _bounded(found: Iterable[T], place: str) -> Iterator[T]:
    for number, one in enumerate(found):
        if number == MOST_FILES:
            raise StorageError(f"{place} cannot be used: it has more than {MOST_FILES:,} files")
        yield one


def _require_room(size: int, file: Path, place: str) -> None:
    """Refuses what would fill the disk of a file.

    Raises:
        StorageError: If it would.
    """
    if size > (there := room(file.parent)):
        raise StorageError(f"{place} has {size:,} bytes, and {file.parent} has room for {there:,}")


def _in_short(error: Exception) -> str:
    """Returns what an error of obstore says and what is behind it, without the times and the dump around it."""
    text = str(error)
    if found := re.search(r"<Code>(.*?)</Code>\s*<Message>(.*?)</Message>", text, re.DOTALL):
        return f"{found[1]}: {found[2].rstrip('.')}"
    first = text.partition("\n")[0].rpartition(" - ")[2].rstrip(": ")
    behind = re.search(r'(?:message|error): "(.+?)"|(InvalidCertificate)\(\s*(\w+)', text)
    return ": ".join([first, *filter(None, behind.groups())]) if behind else first
