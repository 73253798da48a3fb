"""Twelve kinds of bad plugin, each an installed package: every one is said, none costs anyone else anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from zoo_core.errors import AmbiguousName, PluginBroken, UnknownStrategy
from zoo_core.plugins import discover

GOOD = """
from zoo_core import hookimpl
from zoo_core.freeze import HeadOnly

@hookimpl
def zoo_freeze_strategies():
    return {"NAME": HeadOnly}
"""


@dataclass(frozen=True)
class Bad:
    """A bad plugin.

    Attributes:
        text: of its module; NAME becomes its name.
        error: what its one line says; empty where it works all the same.
        notes: what `zoo plugins` says that it did.
        requires: its requirements, as its package states them.
        more: another module of the same package, an entry point of its own.
    """

    text: str = GOOD
    error: str = ""
    notes: str = ""
    requires: tuple[str, ...] = ()
    more: str = ""


BAD = {
    "import-error": Bad("raise ImportError('no such driver')" + GOOD, "ImportError: no such driver."),
    "system-exit": Bad("raise SystemExit('not today')" + GOOD, "SystemExit: not today."),
    "signature": Bad(
        GOOD.replace("strategies()", "strategies(stages)"),
        "zoo_freeze_strategies(stages) asks for arguments; expected def zoo_freeze_strategies():.",
    ),
    "misspelt": Bad(
        GOOD.replace("zoo_freeze_strategies", "zoo_freeze_strategy"),
        "zoo_freeze_strategy is no hook. Did you mean zoo_freeze_strategies?.",
    ),
    "unmarked": Bad(
        GOOD.replace("@hookimpl", ""),
        "zoo_freeze_strategies lacks the marker @hookimpl (from zoo_core import hookimpl).",
    ),
    "none": Bad(
        GOOD.replace("return", "unused ="), "zoo_freeze_strategies returned NoneType; expected a dict of name to class."
    ),
    "garbage": Bad(
        GOOD.replace("HeadOnly}", "'HeadOnly'}"),
        "zoo_freeze_strategies returned 'garbage': 'HeadOnly'; expected a name and a class.",
    ),
    "twice": Bad(
        error="the freeze 'twice' is supplied already by 'twice', of the same package.",
        more=GOOD,
    ),
    "printing": Bad(
        "import os, sys\nprint('noise')\nprint('noise', file=sys.__stdout__)\nos.system('echo noise')\n"
        + GOOD.replace("    return", "    print('noise')\n    return"),
        notes="prints while it is loaded; that went to stderr.",
    ),
    "meddling": Bad(
        "import os, random\nos.environ['ZOO_HOME'] = '/nowhere'\nos.environ.pop('KEPT')\n"
        "os.chdir('/')\nrandom.seed(0)\n" + GOOD,
        notes=r"changed the environment \(KEPT, ZOO_HOME\); undone. changed the working directory to /; undone. "
        r"changed the random state of random; undone.",
    ),
    "heavy": Bad(
        "import safetensors\n" + GOOD,
        notes="imports safetensors at its top, which slows every command: import inside methods.",
    ),
    "needy": Bad(
        "import not_there.part\n" + GOOD,
        "ModuleNotFoundError: No module named 'not_there'. Type: pip install 'not-there[fast]>=2'.",
        requires=("not-there[fast]>=2", "numpy", "extra-tool; extra == 'more'"),
    ),
}
BROKEN = [name for name, bad in BAD.items() if bad.error]


def install(site: Path, name: str, bad: Bad) -> None:
    """Lay a package out as pip does: module, metadata, entry points."""
    module, points = f"zoo_bad_{name.replace('-', '_')}", f"[zoo]\n{name} = zoo_bad_{name.replace('-', '_')}\n"
    info = site / f"{module}-0.3.dist-info"
    info.mkdir(parents=True)
    requires = "".join(f"Requires-Dist: {line}\n" for line in bad.requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: zoo-bad-{name}\nVersion: 0.3\n{requires}")
    (site / f"{module}.py").write_text(bad.text.replace("NAME", name))
    if bad.more:
        points += f"{name}-more = {module}_more\n"
        (site / f"{module}_more.py").write_text(bad.more.replace("NAME", name))
    (info / "entry_points.txt").write_text(points)


@dataclass(frozen=True)
class Site:
    """A folder of installed packages, and `zoo` as a process that sees them."""

    folder: Path

    def zoo(self, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `zoo` in a fresh process."""
        path = os.pathsep.join((str(self.folder), str(Path(__file__).parent)))
        environ = {"PYTHONPATH": path, "KEPT": "1", "ZOO_HOME": str(self.folder / "home"), **environ}
        plain = {n: v for n, v in os.environ.items() if not n.startswith("ZOO_")}
        command = [sys.executable, "-m", "zoo_core", *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=plain | environ)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The twelve bad packages and a good one, all installed side by side."""
    folder = tmp_path_factory.mktemp("bad") / "site"
    for name, bad in BAD.items():
        install(folder, name, bad)
    install(folder, "good", Bad())
    info = folder / "zoo_tiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-tiny\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo]\ntiny = zoo_tiny\n")
    return Site(folder)


@pytest.fixture(scope="module")
def listed(site):
    """What `zoo list` does beside all of them."""
    return site.zoo("list", "-q", "tiny/")


@pytest.fixture(scope="module")
def shown(site):
    """What `zoo plugins --json` says of each, by entry point."""
    return {plugin["name"]: plugin for plugin in json.loads(site.zoo("plugins", "--json").stdout)}


def test_there_are_twelve():
    """Twelve kinds: nine that cannot be used, three that work and misbehave."""
    assert (len(BAD), len(BROKEN)) == (12, 9)


def test_they_cost_one_line_each(listed):
    """Beside twelve bad plugins a command succeeds, prints its result alone, and one line on stderr for each broken."""
    assert listed.returncode == 0
    assert listed.stdout == "tiny/net\n"
    lines = [line for line in listed.stderr.splitlines() if line.startswith("zoo: ")]
    assert len(lines) == len(BROKEN)
    assert set(listed.stderr.splitlines()) - set(lines) == {"noise"}


@pytest.mark.parametrize("name", BAD)
def test_isolated(name, listed, shown):
    """Each is named with package, version and the reason; what works in spite of all is there."""
    bad = BAD[name]
    found = shown[f"{name}-more" if bad.more else name]
    assert (found["distribution"], found["version"]) == (f"zoo-bad-{name}", "0.3")
    assert found["error"].rstrip(".") == bad.error.rstrip(".")
    assert re.fullmatch(bad.notes, " ".join(found["notes"]))
    assert found["supplies"] == ({} if bad.error else {"freeze": [name]})
    line = f"zoo: plugin zoo-bad-{name} is broken and left out: {found['error']}"
    assert (line in listed.stderr.splitlines()) is bool(bad.error)


def test_the_good_ones_go_on(shown):
    """The core, the tiny plugin and a good one beside them supply what they always do."""
    assert not any(shown[name]["error"] or shown[name]["notes"] for name in ("core", "tiny", "good"))
    assert shown["tiny"]["supplies"] == {"provider": ["tiny"]}
    assert shown["good"]["supplies"] == {"freeze": ["good"]}


def test_the_table_says_it_all(site):
    """`zoo plugins` prints every reason and every note for people, and exits with 0."""
    done = site.zoo("plugins")
    assert done.returncode == 0
    for name, bad in BAD.items():
        assert bad.error.rstrip(".") in done.stdout
        assert not bad.notes or re.search(f"zoo-bad-{name} {bad.notes.split(';')[0]}", done.stdout)


def test_strict(site):
    """With ZOO_STRICT=1 a broken plugin makes every command exit with 1, `zoo plugins` after it has said why."""
    done = site.zoo("list", "-q", "tiny/", ZOO_STRICT="1")
    assert (done.returncode, done.stdout) == (1, "")
    last = f"zoo: ZOO_STRICT is set and {len(BROKEN)} of the plugins are broken. Type: zoo plugins"
    assert done.stderr.splitlines()[-1] == last
    done = site.zoo("plugins", "--json", ZOO_STRICT="1")
    assert done.returncode == 1
    assert len(json.loads(done.stdout)) > len(BAD)
    allowed = {"ZOO_STRICT": "1", "ZOO_PLUGINS": "tiny,good,heavy"}
    assert site.zoo("list", "-q", "tiny/", **allowed).returncode == 0
    assert site.zoo("list", "-q", "tiny/", ZOO_STRICT="0").returncode == 0


def test_left_out_before_it_does_harm(site):
    """What ZOO_DISABLE names is never imported, by entry point or package: no line, no noise."""
    names = ",".join([*BROKEN[:-1], f"zoo-bad-{BROKEN[-1]}", "twice-more", "printing"])
    done = site.zoo("list", "-q", "tiny/", ZOO_DISABLE=names)
    assert (done.returncode, done.stdout, done.stderr) == (0, "tiny/net\n", "")


def test_asking_for_what_a_broken_one_supplies(site):
    """Asking for what only a broken plugin supplies is a failure that names the plugin, in one line."""
    done = site.zoo("plugins", "check", "zoo-bad-needy")
    assert done.returncode == 1
    assert "failed   package zoo-bad-needy  loads: ModuleNotFoundError: No module named 'not_there'." in done.stdout
    done = site.zoo("finetune", "photos", "-b", "tiny/net", "--freeze", "needy", ZOO_PLUGINS="tiny,needy")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "zoo-bad-needy is installed but broken: ModuleNotFoundError" in done.stderr.splitlines()[-1]


def test_why(site):
    """`zoo plugins --why` prints the traceback of a broken plugin, down to its own line."""
    done = site.zoo("plugins", "--why", "zoo-bad-import-error")
    assert done.returncode == 0
    assert "raise ImportError('no such driver')" in done.stdout
    (plugin,) = json.loads(site.zoo("plugins", "--why", "import-error", "--json").stdout)
    assert "raise ImportError('no such driver')" in plugin["traceback"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Install some packages for this process alone, and find them."""

    def here(**packages: Bad):
        for name, bad in packages.items():
            install(tmp_path / "site", name, bad)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        return discover(environ={"ZOO_PLUGINS": ",".join(f"zoo-bad-{name}" for name in packages)})

    yield here
    for name in [name for name in sys.modules if name.startswith("zoo_bad_")]:
        del sys.modules[name]


def test_one_name_in_two_packages(here):
    """A name that two packages supply is neither's: both are named, and `distribution:name` picks one."""
    plugins = here(one=Bad(GOOD.replace("NAME", "same")), two=Bad(GOOD.replace("NAME", "same")))
    assert not plugins.broken
    with pytest.raises(AmbiguousName, match="ask for zoo-bad-one:same or zoo-bad-two:same"):
        plugins.get("freeze", "same")
    assert plugins.get("freeze", "zoo-bad-two:same").__name__ == "HeadOnly"


def test_one_name_in_one_package(here):
    """A name that a package supplies twice stays with its first entry point; the second is broken, and says so."""
    plugins = here(twice=BAD["twice"])
    assert [p.name for p in plugins.broken] == ["twice-more"]
    assert plugins.get("freeze", "zoo-bad-twice:twice").__name__ == "HeadOnly"


def test_one_name_in_one_module(here):
    """Two functions of a module for one hook, by pluggy's `specname`, may not supply one name."""
    more = GOOD.replace("def zoo_freeze_strategies", "def more")
    text = GOOD + more.replace("@hookimpl", "@hookimpl(specname='zoo_freeze_strategies')")
    (broken,) = here(double=Bad(text)).broken
    assert broken.error == "the freeze 'double' is supplied twice, by two functions that are zoo_freeze_strategies."


def test_an_unknown_name_beside_a_broken_plugin(here):
    """A name that nobody supplies is unknown, with the broken packages that may be meant to."""
    plugins = here(hurt=Bad("raise OSError('disk on fire')"))
    with pytest.raises(UnknownStrategy, match=r"Broken, and may supply it: zoo-bad-hurt; see 'zoo plugins'\."):
        plugins.get("head", "bilinear")
    with pytest.raises(PluginBroken, match="zoo-bad-hurt is installed but broken: OSError: disk on fire"):
        plugins.get("head", "hurt")


CLASSES = {
    "no dataclass": ("class Odd:\n    def plan(self, stages, task): ...", "Odd is no dataclass; write @dataclass("),
    "method short of arguments": (
        "class Odd:\n    def plan(self, stages): ...",
        "Odd.plan is (self, stages); expected",
    ),
    "no method": ("class Odd:\n    plan = 3", "Odd.plan is no method; expected (self, stages, task)"),
    "type that cannot be read": (
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Odd:\n    a: 'Nowhere' = 1\n"
        "    def plan(self, stages, task): ...",
        "Odd: the type of a field cannot be read (name 'Nowhere' is not defined)",
    ),
    "name with a colon": ("Odd = HeadOnly", "the name 'a:b' cannot be typed; expected lower-case words"),
    "error whose text raises": (
        "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute",
        "Mute: <exception str() failed>.",
    ),
    "error beside Exception": ("class Away(BaseException): ...\nraise Away('gone')", "Away: gone."),
    "marked under another name": (GOOD.replace("zoo_freeze_", ""), "strategies is no hook. Did you mean zoo_"),
    "no hook": ("import sys\ndel sys.modules[__name__].zoo_freeze_strategies", "it has no hook; expected one of zoo_b"),
}


@pytest.mark.parametrize("mistake", CLASSES)
def test_other_mistakes(mistake, here):
    """What would fail later, in `zoo strategies` or in the middle of a run, is said when the plugin is loaded."""
    text, reason = CLASSES[mistake]
    name = "a:b" if mistake == "name with a colon" else "odd"
    (broken,) = here(odd=Bad(GOOD.replace("HeadOnly}", "Odd}").replace("NAME", name) + text)).broken
    assert reason in broken.error
    assert "Traceback" in broken.traceback


def test_a_provider_without_a_cards_file(here):
    """A provider whose cards are no path is broken; it does not take the registry with it."""
    text = "class Odd:\n    cards = None\n    def load(self, card, weights): ...\n" + GOOD.replace(
        "zoo_freeze_strategies", "zoo_backbone_providers"
    ).replace("HeadOnly}", "Odd}")
    (broken,) = here(odd=Bad(text)).broken
    assert broken.error == "zoo_backbone_providers: Odd.cards is None; expected the path of a JSON file of cards."


def test_a_plugin_that_is_not_whole(here, tmp_path):
    """An entry point whose module is gone asks for the package to be installed again."""
    gone = Bad()
    here(other=gone)
    install(tmp_path / "site", "gone", gone)
    (tmp_path / "site" / "zoo_bad_gone.py").unlink()
    (broken,) = discover(environ={"ZOO_PLUGINS": "gone"}).broken
    assert broken.error.endswith("Type: pip install --force-reinstall --no-deps zoo-bad-gone")


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (b"[zoo]\nno equals sign\n", "its entry_points.txt cannot be read (ValueError). Install it again."),
        (b"\xff\xfe[zoo]\n", "its entry_points.txt cannot be read (UnicodeDecodeError). Install it again."),
        (b"[zoo]\nodd = not a module\n", "its entry point 'not a module' is no module; expected a name such as"),
    ],
)
def test_damaged_metadata(points, reason, here, tmp_path):
    """A package whose list of entry points is damaged is broken by itself; Python's own reader loses all of them."""
    here(good=Bad(), odd=Bad())
    (tmp_path / "site" / "zoo_bad_odd-0.3.dist-info" / "entry_points.txt").write_bytes(points)
    plugins = discover(environ={"ZOO_PLUGINS": "good,odd,zoo-bad-odd"})
    (broken,) = plugins.broken
    assert (broken.distribution, broken.version) == ("zoo-bad-odd", "0.3")
    assert broken.error.startswith(reason)
    assert list(plugins.supplied("freeze")).count("good") == 1
    assert not discover(environ={"ZOO_DISABLE": "odd,zoo-bad-odd"}).broken
