"""The conformance kit: what zoo promises of every plugin, as checks that a plugin's author runs.

In a test file of the plugin, with pytest:

    from zoo_core import testing

    @testing.parametrize("zoo-share")
    def test_conformance(check):
        check()

On the command line `zoo plugins check zoo-share`; in Python `testing.check("zoo-share")` gives a list of results.
"""

from __future__ import annotations

from zoo_core.testing.kit import CHECKS as CHECKS
from zoo_core.testing.kit import Case as Case
from zoo_core.testing.kit import Result as Result
from zoo_core.testing.kit import cases as cases
from zoo_core.testing.kit import check as check
from zoo_core.testing.kit import parametrize as parametrize
from zoo_core.testing.kit import totals as totals
from zoo_core.testing.outcome import Failed as Failed
from zoo_core.testing.outcome import Skip as Skip
from zoo_core.testing.outcome import expect as expect
