"""What the documentation shows is what happens."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("page", ["README.md", "docs/stages.md"])
def test_chains_on_the_page_run(page):
    """Every Python snippet about cutting a network of your own runs as printed, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    snippets = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if ".cut(" in code]
    assert snippets
    names: dict[str, object] = {}
    for code in snippets:
        exec(code, names)


def test_the_table_of_families_is_the_checked_one(monkeypatch):
    """`docs/families.md` says what the last full check wrote, no more and no less."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import families

    rows = json.loads((ROOT / "benchmarks" / "families.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "families.md").read_text(encoding="utf-8") == families.document(rows)
    sys.modules.pop("families")


def test_links_lead_somewhere():
    """Every relative link of the documentation leads to a file."""
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*/*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
