"""Running the checks: one function a promise, a tuple of them a kind, one result each, nothing left out in silence."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zoo_core.plugins import Plugins, discover
from zoo_core.testing.components import Component
from zoo_core.testing.freeze import CHECKS as FREEZE
from zoo_core.testing.head import CHECKS as HEAD
from zoo_core.testing.outcome import Skip
from zoo_core.testing.package import CHECKS as PACKAGE
from zoo_core.testing.provider import CHECKS as PROVIDER
from zoo_core.testing.provider import Subject
from zoo_core.testing.regime import CHECKS as REGIME

Outcome = Literal["passed", "failed", "skipped"]

CHECKS: dict[str, tuple[Callable[[Any], str | None], ...]] = {
    "package": PACKAGE,
    "provider": PROVIDER,
    "freeze": FREEZE,
    "head": HEAD,
    "regime": REGIME,
}
"""Kind to its checks. A check takes one thing that a plugin supplies; its docstring is the promise."""


@dataclass(frozen=True)
class Result:
    """What one check found.

    Attributes:
        subject: what was checked: `package zoo-share`, `freeze share`.
        check: name of the check.
        outcome: a check that could not be made is skipped, never passed.
        reason: why it failed or was skipped; for a passed one what was looked at, or empty.
        seconds: it took.
    """

    subject: str
    check: str
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Case:
    """One check of one thing, not yet made. Calling it makes it: it returns, fails, or raises `Skip`."""

    subject: str
    function: Callable[[Any], str | None]
    thing: Any

    @property
    def name(self) -> str:
        return self.function.__name__

    def __call__(self) -> str | None:
        return self.function(self.thing)

    def result(self) -> Result:
        """Make the check; whatever it raises becomes the reason."""
        start = time.perf_counter()
        outcome: Outcome = "passed"
        try:
            reason = self() or ""
        except Skip as error:
            outcome, reason = "skipped", str(error)
        except Exception as error:
            kind = "" if isinstance(error, AssertionError) and str(error) else f"{type(error).__name__}: "
            outcome, reason = "failed", " ".join(f"{kind}{error}".split())
        return Result(self.subject, self.name, outcome, reason, time.perf_counter() - start)


def cases(name: str, plugins: Plugins | None = None) -> list[Case]:
    """All checks of everything that a plugin supplies; nothing is loaded before a case is called.

    Args:
        name: of the entry point or the distribution.
        plugins: where to look; by default what is installed.

    Raises:
        UsageError: no such plugin is installed; near names are given.
    """
    found: list[Case] = []
    for plugin in (plugins or discover()).named(name):
        found += _cases("package", plugin.distribution, plugin)
        for kind, names in plugin.supplies.items():
            for short, cls in names.items():
                thing: Any = Subject(plugin, short, cls) if kind == "provider" else Component(kind, short, cls)
                found += _cases(kind, short, thing)
    return found


def check(name: str, plugins: Plugins | None = None, report: Callable[[Result], object] | None = None) -> list[Result]:
    """Make all checks of a plugin; arguments as for `cases`. `report` gets each result as it comes."""
    results = []
    for case in cases(name, plugins):
        results.append(case.result())
        if report:
            report(results[-1])
    return results


def totals(results: Sequence[Result]) -> str:
    """How many ran, with what outcome; and each reason for a skip, with how often it was given."""
    count = Counter(result.outcome for result in results)
    line = (
        f"{len(results)} checks: {len(results) - count['skipped']} ran, {count['passed']} passed, "
        f"{count['failed']} failed, {count['skipped']} skipped."
    )
    return "\n".join([line, *_reasons(r for r in results if r.outcome == "skipped")])


def parametrize(name: str, plugins: Plugins | None = None) -> Any:
    """A pytest decorator: the test function gets each check of the plugin as `check`, and calls it."""
    import pytest

    def runner(case: Case) -> Callable[[], None]:
        def run() -> None:
            try:
                case()
            except Skip as reason:
                pytest.skip(str(reason))

        return run

    found = cases(name, plugins)
    return pytest.mark.parametrize(
        "check", [runner(case) for case in found], ids=[f"{case.subject} {case.name}" for case in found]
    )


def _cases(kind: str, name: str, thing: Any) -> list[Case]:
    return [Case(f"{kind} {name}", function, thing) for function in CHECKS[kind]]


def _reasons(skipped: Iterable[Result]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for result in skipped:
        by_reason.setdefault(result.reason, []).append(f"{result.subject} {result.check}")
    return [f"  skipped {', '.join(names)}: {reason}" for reason, names in by_reason.items()]
