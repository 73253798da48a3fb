"""Every hostile registry file in `registry/`, and some that only a file system can hold, against the command line.

    python tests/attacks/run.py         # a line each, and the totals: files, escapes, tracebacks

Each file becomes a project's `registry.json` (and the user's, and a registered entry), in a folder of its own beside
bait: a secret outside of it, a Python package that must never be imported, a pickle that must never be unpickled. An
audit hook sees every file that is opened, and everything else that leaves the folder.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
WRITES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
LEAVES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class")
LEAVES += ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")


@dataclass
class Watch:
    """What the audit hook saw since the attack began; `box` is the folder that it may use."""

    box: str = ""
    escapes: list[str] = field(default_factory=list)

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        if not self.box:
            return
        if event in LEAVES:
            self.escapes.append(f"{event} {args!r}"[:200])
        elif event == "import" and str(args[0]).partition(".")[0] == "evil":
            self.escapes.append(f"import {args[0]}")
        elif event == "open" and isinstance(args[0], str | bytes):
            flags = args[2] if isinstance(args[2], int) else 0
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            path = os.path.realpath(os.fsdecode(args[0]))
            if self._is_bait(path) or (writes and not self._inside(path) and path != os.devnull):
                self.escapes.append(f"open {path} {'to write' if writes else 'to read'}")
        elif event in WRITES:
            outside = [
                p for p in args if isinstance(p, str | bytes) and not self._inside(os.path.abspath(os.fsdecode(p)))
            ]
            if outside:
                self.escapes.append(f"{event} {outside}")

    def _inside(self, path: str) -> bool:
        """The project, and what `ZOO_HOME` and `ZOO_CACHE` name; all else that the box holds is bait."""
        return path.startswith(tuple(f"{self.box}/{name}" for name in ("project", "home", "cache")))

    def _is_bait(self, path: str) -> bool:
        return path.startswith((f"{self.box}/outside", f"{self.box}/evil", "/etc/passwd", "/proc/self/environ"))


def attacks() -> dict[str, Callable[[Path], None]]:
    """Name to what makes the project of it."""
    found: dict[str, Callable[[Path], None]] = {}
    for file in sorted((HERE / "registry").glob("*.json")):
        found[file.stem] = lambda project, file=file: shutil.copy(file, project / "registry.json")
    for kind in ("link", "hard-link", "folder", "pipe", "huge", "loop"):
        found[f"file-{kind}"] = lambda project, kind=kind: _odd(project / "registry.json", kind)
        found[f"registered-{kind}"] = lambda project, kind=kind: _odd(_entry_file(project), kind)
    found["registered-misnamed"] = lambda project: _entry(project / "registry.d" / "other.json", "mine/net")
    found["registered-two"] = lambda project: _entry(_entry_file(project), "mine/net", "mine/more")
    return found


def main() -> int:
    """Attack with each, print a line each and the totals; the exit code is 1 if anything got out."""
    sys.dont_write_bytecode = True
    watch = Watch()
    sys.addaudithook(watch)
    import safetensors.torch  # noqa: F401  what importing torch does on a machine is no attack's doing

    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for number, (name, make) in enumerate(attacks().items()):
            rows.append(attack(name, make, Path(folder).resolve() / str(number), watch))
            print(json.dumps(rows[-1]), flush=True)
    count = {key: sum(len(row[key]) for row in rows) for key in ("escapes", "tracebacks", "unclean")}
    print(json.dumps({"benchmark": "hostile registry files", "files": len(rows), **count}))
    return 1 if any(count.values()) else 0


def attack(name: str, make: Callable[[Path], None], box: Path, watch: Watch) -> dict[str, object]:
    """One attack: what escaped, what ended in a traceback, and what was printed that moves a terminal's cursor."""
    project = _box(box)
    make(project)
    os.environ |= {"ZOO_HOME": str(box / "home"), "ZOO_CACHE": str(box / "cache"), "HOME": str(box / "outside")}
    os.environ["ZOO_PLUGINS"] = "tiny"
    os.chdir(project)
    watch.escapes, watch.box = [], str(box)
    tracebacks, unclean = [], []
    for label, run in commands(name):
        try:
            code, text = run()
        except BaseException as error:  # whatever it is, a user would have seen a traceback
            tracebacks.append(f"{label}: {type(error).__name__}: {error}"[:300])
            continue
        if "Traceback" in text or code not in (0, 1, 2):
            tracebacks.append(f"{label}: exit code {code}: {text[-300:]}")
        if not all(c.isprintable() or c == "\n" for c in text):
            unclean.append(label)
    watch.box = ""
    left = [p.name for p in (box, box.parent, project) for p in p.glob("*escaped*")]
    return {"attack": name, "escapes": [*watch.escapes, *left], "tracebacks": tracebacks, "unclean": unclean}


def commands(name: str) -> Iterator[tuple[str, Callable[[], tuple[int, str]]]]:
    """What a user would type, and the same in Python."""
    for line in (
        "list mine",
        "list mine --json",
        "list mine --license permissive --open code,weights --max-params 1B",
        "list mine --available",
        "list -q tiny",
        "show mine/net",
        "show mine/net --json",
        "verify mine/net",
        "bundle mine/net --out stick",
        "register mine/child --like mine/net --weights w.safetensors",
        "register mine/net --like tiny/net --weights w.safetensors --force",
        "unregister mine/net",
        "unregister mine/net --project",
    ):
        yield line, lambda line=line: _zoo(*line.split())
    yield "load", _load


def _zoo(*args: str) -> tuple[int, str]:
    """Exit code and everything printed."""
    from zoo_core.cli import main as zoo

    sys.argv = ["zoo", *args]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            zoo()
        except SystemExit as end:
            return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def _load() -> tuple[int, str]:
    """The weights of the hostile card, as a run would load them."""
    from zoo_core.api import installed
    from zoo_core.errors import ZooError
    from zoo_core.layers import load_registry
    from zoo_core.weights import load_backbone

    plugins = installed(core=False)
    try:
        load_backbone(load_registry(plugins).get("mine/net"), plugins)
    except ZooError as error:
        return 1, str(error) if str(error).isprintable() else repr(str(error))
    return 0, ""


def _box(box: Path) -> Path:
    """A project with weights of its own and traps, and bait beside it."""
    project = box / "project"
    for folder in (project, box / "outside", box / "home", box / "cache"):
        folder.mkdir(parents=True)
    secret = {"schema": 1, "cards": {"mine/secret": {"provider": "tiny", "architecture": "stolen"}}}
    (box / "outside" / "secret.txt").write_text("secret")
    (box / "outside" / "secret.json").write_text(json.dumps(secret))
    (project / "link.safetensors").symlink_to(box / "outside" / "secret.txt")
    (project / "w.safetensors").write_bytes((HERE.parent / "zoo_tiny" / "tiny.safetensors").read_bytes())
    pickle = b"cposix\nsystem\n(S'touch ../escaped'\ntR."
    (project / "evil.pth").write_bytes(pickle)
    (project / "evil.safetensors").write_bytes(pickle)
    (project / "header-huge.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    deep = b"[" * 100_000
    (project / "header-deep.safetensors").write_bytes(len(deep).to_bytes(8, "little") + deep)
    far = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 40]}}).encode()
    (project / "header-offsets.safetensors").write_bytes(len(far).to_bytes(8, "little") + far)
    for folder in (project / "evil", box / "evil"):
        folder.mkdir()
        (folder / "__init__.py").write_text("open('../escaped', 'w')\n")
        (folder / "w.safetensors").write_bytes((project / "w.safetensors").read_bytes())
    return project


def _entry_file(project: Path, name: str = "mine/net") -> Path:
    from zoo_core.entries import entry_path

    return entry_path(project / "registry.d", name)


def _entry(path: Path, *names: str) -> None:
    path.parent.mkdir(exist_ok=True)
    card = {"provider": "tiny", "architecture": "tiny"}
    path.write_text(json.dumps({"schema": 1, "cards": dict.fromkeys(names, card)}))


def _odd(path: Path, kind: str) -> None:
    """A registry file that is no plain file of its own."""
    path.parent.mkdir(exist_ok=True)
    secret = path.parents[1] / "outside" / "secret.json"
    if not secret.exists():
        secret = path.parents[2] / "outside" / "secret.json"
    if kind == "link":
        path.symlink_to(secret)
    elif kind == "hard-link":
        os.link(secret, path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    else:
        with open(path, "wb") as file:
            file.truncate((64 << 20) + 1)


if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]
    sys.exit(main())
