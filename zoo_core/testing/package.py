"""Checks of a plugin as a package: it loads, cleanly and quickly, and supplies something."""

from __future__ import annotations

import json
import subprocess
import sys

from zoo_core.plugins import CORE, Plugin
from zoo_core.testing.outcome import Failed, Skip, expect

_FRESH = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from importlib.metadata import EntryPoint
from zoo_core.layers import load_registry
from zoo_core.plugins import discover
from zoo_core.watching import watched
name, value = sys.argv[2:]
found = discover([EntryPoint(name, value, "zoo")] if value != "zoo_core.builtin" else [], {})
plugin = found.found[-1]
with watched() as listing:
    for _ in load_registry(found).plain(problems=[]):
        pass
print(json.dumps([plugin.error, [*plugin.notes, *listing]]))
"""


def loads(plugin: Plugin) -> None:
    """Its module can be imported, and its hooks return names and classes of the right shape."""
    expect(not plugin.error, plugin.error)


def supplies_something(plugin: Plugin) -> str:
    """At least one hook returns at least one name."""
    if plugin.error:
        raise Skip("it is broken, see `loads`.")
    names = [f"{kind} {name}" for kind, found in plugin.supplies.items() for name in found]
    expect(names, "its hooks return empty dicts; expected a name and a class.")
    return ", ".join(names)


def loads_cleanly_in_a_fresh_process(plugin: Plugin) -> None:
    """Loading it and listing cards imports nothing heavy, prints nothing, changes no environment, folder or chance."""
    command = [sys.executable, "-c", _FRESH, json.dumps(sys.path), plugin.name, plugin.module]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"it ends the process with exit code {done.returncode}: {done.stderr.strip()[-200:]}")
    error, notes = json.loads(done.stdout)
    expect(not error, error)
    expect(not notes, " ".join(f"It {note}" for note in notes))


def says_its_package_and_version(plugin: Plugin) -> str:
    """It is an installed distribution with a version, so that a user can be told what to update."""
    named = plugin.distribution not in ("", "unknown") and plugin.version
    expect(named, f"distribution {plugin.distribution!r}, version {plugin.version!r}; expected both.")
    return f"{plugin.distribution} {plugin.version}" + (" (the core)" if plugin.distribution == CORE else "")


CHECKS = (loads, supplies_something, says_its_package_and_version, loads_cleanly_in_a_fresh_process)
