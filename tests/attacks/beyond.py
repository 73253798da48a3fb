"""Hostile files of every kind but the registry's, against the command line: recipes, runs, tables, names, images.

    python tests/attacks/beyond.py            # a line each, and the totals: inputs, escapes, tracebacks
    python tests/attacks/beyond.py csv-|tar-  # those whose names begin so
    python tests/attacks/beyond.py '' 1 16    # the most telling line of every sixteenth, as the everyday tests do

Each input is put into a project of its own with six photos and a finished run, beside bait; then what a user would
type is run in this process. An audit hook sees what leaves the project; memory and time are limited.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

HERE = Path(__file__).resolve().parent
MEMORY = 3 << 30
"""Bytes of address space that all attacks together may add."""
SECONDS = 40
"""That one command may take before it counts as endless; none takes more than a few."""


@dataclass(frozen=True)
class Attack:
    """One hostile input.

    Attributes:
        name: its kind and what is wrong.
        make: puts it into a project.
        lines: what a user would type.
        check: looks at the project afterwards, and says what is wrong with it.
        reads: it may have any file looked at, as a table that names images may; never kept, never shown.
    """

    name: str
    make: Callable[[Path], object]
    lines: Sequence[str]
    check: Callable[[Path], Sequence[str]] = lambda project: ()
    reads: bool = False


def all_attacks() -> Iterator[Attack]:
    """Every module's."""
    import names
    import pictures
    import recipes
    import run_folders
    import stores
    import tables
    import weights

    for module in (recipes, run_folders, weights, tables, names, pictures, stores):
        yield from module.attacks()


def main(wanted: str = "", lines: str = "99", every: str = "1") -> int:
    """Attack with each, print a line each and the totals; the exit code is 1 if anything got out."""
    import run as registry

    sys.dont_write_bytecode = True
    watch = registry.Watch()
    sys.addaudithook(watch)
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder).resolve()
        _install(top / "site")
        _template(top / "template")
        _limit()
        rows = []
        chosen = (a for a in all_attacks() if a.name.startswith(tuple(wanted.split("|"))))
        for number, attack in enumerate(list(chosen)[:: int(every)]):
            rows.append(_attack(attack, int(lines), top, top / str(number), watch))
            print(json.dumps(rows[-1]), flush=True)
            shutil.rmtree(top / str(number), ignore_errors=True)
    count = {key: sum(len(row[key]) for row in rows) for key in ("escapes", "tracebacks", "unclean", "wrong")}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"benchmark": "hostile inputs", "inputs": len(rows), **count, "most_mb": most}))
    return 1 if any(count.values()) else 0


def _attack(attack: Attack, most: int, top: Path, box: Path, watch) -> dict[str, object]:
    import run as registry

    project = registry._box(box)
    shutil.copytree(top / "template", project, dirs_exist_ok=True)
    os.environ |= {"ZOO_HOME": str(box / "home"), "ZOO_CACHE": str(box / "cache"), "HOME": str(box / "outside")}
    os.chdir(project)
    attack.make(project)
    watch.escapes, watch.box = [], str(box)
    tracebacks, unclean = [], []
    for line in attack.lines[:most]:
        signal.alarm(SECONDS)
        try:
            code, text = registry._zoo(*line.split())
        except BaseException as error:  # whatever it is, a user would have seen a traceback
            tracebacks.append(f"{line}: {type(error).__name__}: {error}"[:300])
            if os.environ.get("SHOW"):
                import traceback

                traceback.print_exc()
            continue
        finally:
            signal.alarm(0)
        if "Traceback" in text or code not in (0, 1, 2):
            tracebacks.append(f"{line}: exit code {code}: {text[-300:]}")
        if not all(c.isprintable() or c == "\n" for c in text):
            unclean.append(f"{line}: {next(t for t in text.split(chr(10)) if not t.isprintable())[:200]!r}")
        if os.environ.get("SHOW"):
            print(attack.name, "|", line, "|", code, "|", text[-1000:], file=sys.stderr)
    watch.box = ""
    escapes = [e for e in watch.escapes if not (attack.reads and e.endswith(" to read"))]
    left = [p.name for p in (box, box.parent, project) for p in p.glob("*escaped*")]
    wrong = list(attack.check(project))
    found = {"escapes": [*escapes, *left], "tracebacks": tracebacks, "unclean": unclean, "wrong": wrong}
    return {"attack": attack.name, **found}


def _install(site: Path) -> None:
    """The tiny plugin as pip would have installed it."""
    info = site / "zoo_tiny-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-tiny\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo]\ntiny = zoo_tiny\n")
    if not any(d.name == "zoo-tiny" for d in distributions()):
        sys.path.insert(0, str(site))


def _template(project: Path) -> None:
    """Six photos, a run on them, and the tiny plugin's weights; made once and copied into every project."""
    import run as registry
    from conftest import make_photos

    project.mkdir()
    os.chdir(project)
    os.environ |= {"ZOO_HOME": str(project / "home"), "ZOO_CACHE": str(project / "cache"), "ZOO_PLUGINS": "tiny"}
    make_photos(Path("photos"), each=3)
    line = "finetune photos -b tiny/net --freeze last:1 --epochs 1 --device cpu --out run --cache boundary"
    code, text = registry._zoo(*line.split())
    assert code == 0, text


def _limit() -> None:
    """No attack may fill the memory or go on for ever."""

    class Endless(BaseException):
        """An OSError would be taken for one of the file system."""

    def stop(number: int, frame: object) -> None:
        raise Endless(f"over {SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    sys.modules["beyond"] = sys.modules["__main__"]
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]  # the tests' own conftest before the one at the top
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(*sys.argv[1:4]))
