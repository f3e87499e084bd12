"""The image's root file system, made by the Dockerfile's own steps where there is no container engine.

``bwrap`` runs them in name spaces of their own. What stands for the base image is this machine's Debian, read-only, and
under ``/usr/local`` a copy of its Python and pip, where the base image has both.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from docker.utils.build import PatternMatcher  # type: ignore[import-untyped]

from tests.image.dockerfile import Stage, Step

ROOT = Path(__file__).parent.parent.parent
SYSTEM = ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/share")
SETTINGS = (
    "group", "hosts", "ld.so.conf", "ld.so.conf.d", "nsswitch.conf", "passwd", "pip.conf", "resolv.conf", "ssl/certs",
)  # fmt: skip


class Tree:
    """A root file system in a folder.

    Args:
        folder: Where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def at(self, path: str) -> Path:
        """Returns where a path of the image lies on this machine."""
        return self.folder / path.lstrip("/")

    def command(
        self,
        words: list[str],
        *,
        environment: Mapping[str, str],
        directory: str,
        user: int = 0,
        mounts: Mapping[str, Path] | None = None,
        read_only: bool = False,
        options: tuple[str, ...] = (),
    ) -> list[str]:
        """Returns the command that runs another one in the tree.

        Args:
            words: The command, which becomes the process with the number 1.
            environment: All its variables.
            directory: The folder that it starts in.
            user: Who runs it, without capabilities unless it is root.
            mounts: Folders of this machine by the paths at which they lie in the tree, to be written to.
            read_only: Whether everything else can only be read.
            options: Further ones of ``bwrap``.
        """
        bwrap = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--as-pid-1", "--clearenv"]
        bwrap += [
            "--ro-bind" if read_only else "--bind",
            str(self.folder),
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
        ]
        for path in SYSTEM:
            bwrap += ["--ro-bind-try", f"/{path}", f"/{path}"]
        for inside, outside in (mounts or {}).items():
            bwrap += ["--bind", str(outside), inside]
        for name, value in environment.items():
            bwrap += ["--setenv", name, value]
        bwrap += ["--chdir", directory, *options]
        if os.getuid() != 0:
            bwrap += ["--unshare-user", "--uid", str(user), "--gid", str(user)]
        elif user:
            words = [
                "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs",
                "--inh-caps=-all", "--bounding-set=-all", *words,
            ]  # fmt: skip
        return [*bwrap, "--", *words]


class Builder:
    """Builds stages, each once.

    Args:
        stages: The Dockerfile's.
        scratch: An empty folder for trees.
    """

    def __init__(self, stages: Mapping[str, Stage], scratch: Path) -> None:
        self._stages = stages
        self._scratch = scratch
        self._built: dict[str, Tree] = {}
        self._context = scratch / "context"
        ignored = [
            line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")
        ]
        for path in PatternMatcher(ignored).walk(str(ROOT)):
            if (ROOT / path).is_file():
                (self._context / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, self._context / path)

    def build(self, name: str) -> Tree:
        """Returns the tree of a stage, after all its steps."""
        if name in self._built:
            return self._built[name]
        folder = self._scratch / "trees" / name
        tree = Tree(folder)
        stage = self._stages[name]
        if stage.parent is None:
            _make_base(tree)
        else:
            _copy(self.build(stage.parent.name).folder, folder)
        inherited = len(stage.lineage) - len(stage.steps)
        for number, step in enumerate(stage.steps, start=inherited):
            before = Stage(name, stage.base, stage.lineage[:number])
            directory = before.last("WORKDIR") or "/"
            assert step.name != "RUN" or not before.user, "RUN after USER is not known here"
            if step.name == "WORKDIR":
                tree.at(step.text).mkdir(parents=True, exist_ok=True)
            elif step.name == "COPY":
                self._copy_step(step, tree, directory)
            elif step.name == "RUN":
                self._run_step(step, tree, directory, before)
        self._built[name] = tree
        return tree

    def _copy_step(self, step: Step, tree: Tree, directory: str) -> None:
        *sources, target = shlex.split(step.text)
        origin = self.build(step.flag("from")).folder if step.flag("from") else self._context
        into = tree.at(str(PurePosixPath(directory, target)))
        for source in sources:
            path = origin / source.lstrip("/")
            one = into if path.is_dir() or not (target.endswith("/") or len(sources) > 1) else into / path.name
            one.parent.mkdir(parents=True, exist_ok=True)
            _copy(path, one)
            if os.getuid() == 0:
                owner = step.flag("chown") or "0:0"
                subprocess.run(["chown", "-R", owner, str(one)], check=True)

    def _run_step(self, step: Step, tree: Tree, directory: str, before: Stage) -> None:
        mounts = {}
        for name, value in step.flags:
            options = dict(pair.split("=") for pair in value.split(","))
            assert (name, options["type"]) == ("mount", "cache"), f"RUN --{name}={value} is not known here"
            mounts[options["target"]] = _pip_cache()
            tree.at(options["target"]).mkdir(parents=True, exist_ok=True)
        # As an engine would be told with --build-arg: what this machine's pip needs to reach an index.
        settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        command = tree.command(
            ["/bin/sh", "-c", step.text],
            environment={"HOME": "/root", **before.environment, **settings},
            directory=directory,
            mounts=mounts,
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"RUN {step.text}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"


def make_context(source: Path, target: Path) -> None:
    """Copies what an engine is sent: all that ``.dockerignore`` leaves."""
    lines = (source / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line[:1] not in ("", "#")]
    for path in PatternMatcher(patterns).walk(str(source)):
        if path != ".dockerignore" and (source / path).is_file():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / path, target / path)


def files_of(tree: Tree) -> Iterator[str]:
    """Yields the paths in a tree."""
    for folder, folders, files in os.walk(tree.folder):
        for name in folders + files:
            yield "/" + os.path.relpath(os.path.join(folder, name), tree.folder)  # noqa: PTH118


def _make_base(tree: Tree) -> None:
    """Makes what stands for the base image."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = tree.at(f"usr/local/lib/{python}")
    tree.at("usr/local/bin").mkdir(parents=True)
    for name in ("proc", "dev", "tmp", "root", "opt", "var/lib", *SYSTEM):
        tree.at(name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        tree.at(name).symlink_to(f"usr/{name}")
    for name in SETTINGS:
        if (source := Path("/etc", name)).exists():
            tree.at("etc").mkdir(exist_ok=True)
            _copy(source.resolve(), tree.at(f"etc/{name}"))
    shutil.copy2(Path(sys.executable).resolve(), tree.at(f"usr/local/bin/{python}"))
    for name in ("python3", "python"):
        tree.at(f"usr/local/bin/{name}").symlink_to(python)
    shutil.copytree(
        sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}),
        library,
        symlinks=True,
        ignore=shutil.ignore_patterns("*-packages", "test", "__pycache__", "config-*", "EXTERNALLY-MANAGED"),
    )
    shared = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
    if shared.suffix != ".a" and shared.exists():
        shutil.copy2(shared, library.parent)
    script = f'/sbin/ldconfig; /usr/local/bin/{python} -c "import site; print(site.getsitepackages()[0])"'
    command = tree.command(["/bin/sh", "-c", script], environment={}, directory="/")
    asked = subprocess.run(command, check=True, capture_output=True, text=True)
    packages = Path(sysconfig.get_path("purelib"))
    for path in (packages / "pip", *packages.glob("pip-*.dist-info")):
        _copy(path, tree.at(asked.stdout.strip()) / path.name)


def _copy(source: Path, target: Path) -> None:
    """Copies a file, or what a folder holds, with modes, times and links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # The dot: into a folder that is there already as into one that is not.
    origin = f"{source}/." if source.is_dir() else str(source)
    subprocess.run(["cp", "-a", "--reflink=auto", origin, str(target)], check=True)


def _pip_cache() -> Path:
    found = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=True
    )
    folder = Path(found.stdout.strip())
    folder.mkdir(parents=True, exist_ok=True)
    return folder
