"""Freeze what this version writes, for every later one to open: `python tests/freeze_fixtures.py 0.1` before a release.

Writes `tests/fixtures/zoo-VERSION`: images, a registry with weights, a store of activations, a run, the same run
unfinished at its third checkpoint, a bundle, and `expected.json`, what they hold. One that is there is not touched.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

FIXTURES = Path(__file__).parent / "fixtures"


def frozen(out: Path) -> None:
    """Write everything into a folder, which becomes the working directory."""
    import zoo_tiny
    from conftest import make_photos

    from zoo_core import bundling, checkpoints, engine
    from zoo_core.card import Source
    from zoo_core.files import read_json, write_json
    from zoo_core.layers import load_registry, user_file
    from zoo_core.plugins import discover
    from zoo_core.recipe import Recipe
    from zoo_core.registering import publish_card
    from zoo_core.shelves import Shelf
    from zoo_core.weight_store import keep_copy
    from zoo_core.weights import load_backbone

    os.chdir(out)
    os.environ["ZOO_CACHE"], os.environ["ZOO_HOME"] = str(out / "cache"), str(out / "home")
    make_photos(out / "photos", each=6)
    point = SimpleNamespace(name="tiny", value="zoo_tiny", dist=SimpleNamespace(name="zoo-tiny", version="1.0"))
    point.load = lambda: zoo_tiny
    plugins = discover([point], {})
    sha = keep_copy(Path(zoo_tiny.__file__).with_name("tiny.safetensors")).stem
    card = load_registry(plugins).get("tiny/net")
    here = Source(f"store:{sha}", sha, (out / "home" / "weights" / f"{sha}.safetensors").stat().st_size)
    publish_card(replace(card, name="mine/frozen", sources=(here,), parent="tiny/net"), user_file(), force=False)
    checkpoints.SPARE, checkpoints.WITHIN = 0, 0.0
    write, number = checkpoints.Memory._write, 0

    def copying(self, *args):
        nonlocal number
        write(self, *args)
        number += 1
        if number == 3:
            shutil.copytree("run.unfinished", "begun")

    checkpoints.Memory._write = copying
    recipe = Recipe(
        data="photos", backbone="tiny/net", freeze="last:1", epochs=2, batch_size=4, device="cpu", cache="boundary"
    )
    run = engine.finetune(recipe, load_registry(plugins), plugins, Path("run"))
    bundling.bundle(load_registry(plugins), ["tiny/net"], Path("bundle"))
    shelves = {}
    for place in sorted((out / "cache" / "activations").iterdir()):
        shelf = Shelf(place, read_json(place / "about.json")["kind"])
        shelf.refresh()
        if shelf.rows:
            name = min(shelf.rows)
            shelves[place.name] = {"rows": len(shelf.rows), "first": shelf.gather([name])[0].double().sum().item()}
        else:
            shutil.rmtree(place)
    answers = {p.path: p.row for p in run.predict("photos")}
    known = load_backbone(load_registry(plugins).get("mine/frozen"), plugins)
    expected = {"shelves": shelves, "answers": answers, "registered": known.digest(), "test": run.metrics}
    write_json(out / "expected.json", expected)
    (out / "run" / "report.html").unlink()
    shutil.move(out / "cache" / "activations", out / "activations")
    shutil.rmtree(out / "cache")
    for lock in out.rglob("LOCK"):
        lock.unlink()


def main() -> None:
    """Freeze a version that is not there yet."""
    sys.path.insert(0, str(Path(__file__).parent))
    target = FIXTURES / f"zoo-{sys.argv[1]}"
    if target.exists():
        sys.exit(f"{target} is frozen already; later versions have to open it as it is.")
    with tempfile.TemporaryDirectory() as folder:
        frozen(Path(folder))
        os.chdir(FIXTURES)
        shutil.copytree(folder, target)
    print(target)


if __name__ == "__main__":
    main()
