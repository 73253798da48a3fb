"""The whole request as data."""

from __future__ import annotations

import tomllib
from dataclasses import asdict

import pytest

from zoo_core.errors import BadOption, BadRecipe
from zoo_core.recipe import Recipe, field_names

FULL = Recipe(
    data='dätä "x"\\y',
    backbone="tiny/net",
    freeze="last:stages=2",
    epochs=3,
    budget="10m",
    lr=1e-4,
    batch_size=8,
    weight_decay=0.0,
    seed=7,
    device="cpu",
    weights="none",
    test_share=0.3,
    val_share=0.0,
    on_bad_image="fail",
)


@pytest.mark.parametrize("recipe", [FULL, Recipe("photos", "tiny/net")])
def test_toml_round_trip(recipe, tmp_path):
    """A recipe written as TOML reads back as the same recipe with the same digest."""
    recipe.save(tmp_path / "recipe.toml")
    again = Recipe.load(tmp_path / "recipe.toml")
    assert again == recipe
    assert again.digest == recipe.digest
    assert again.run_name == recipe.run_name


def test_open_fields_are_comments():
    """What is left to be chosen stands in the TOML as a comment, so that every field is seen."""
    text = Recipe("photos", "tiny/net").to_toml()
    assert "# epochs = (chosen" in text
    assert all(name in text for name in field_names())
    assert "epochs" not in tomllib.loads(text)


def test_what_replaces_what(tmp_path):
    """Options replace the file's fields, `--set` replaces both."""
    FULL.save(tmp_path / "r.toml")
    recipe = Recipe.load(tmp_path / "r.toml", ["seed=9", "epochs=auto"], seed=8, lr=0.5)
    assert (recipe.seed, recipe.lr, recipe.epochs) == (9, 0.5, None)
    assert recipe == FULL.with_values(seed=9, lr=0.5, epochs=None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["frezee=full"], "unknown field 'frezee'. Did you mean freeze"),
        (["seed=one"], "seed: got 'one', expected int"),
        (["weights=some"], "weights: got 'some', expected pretrained or none"),
        (["lr"], "--set 'lr': expected key=value"),
        (["epochs=-1"], "epochs: got -1, expected more than 0"),
        (["batch_size=-1"], "batch_size: got -1, expected more than 0"),
        (["lr=0"], "lr: got 0.0, expected more than 0"),
        (["lr=inf"], "lr: got inf, expected more than 0"),
        (["weight_decay=-0.1"], "weight_decay: got -0.1, expected 0 or more"),
        (["seed=-1"], "seed: got -1, expected 0 to "),
        (["test_share=1"], "test_share: got 1.0, expected a share"),
        (["test_share=0.6", "val_share=0.4"], "nothing is left to train on"),
        (["budget=soon"], "budget: got 'soon', expected a duration such as 90s, 10m or 1h"),
        (["budget=0m"], "budget: got '0m', expected a duration"),
        (["data="], "no data given. Add data = ... or give DATA"),
        (["backbone="], "no backbone given. Add backbone = ... or give --backbone NAME"),
    ],
)
def test_bad_fields(settings, message):
    """A field that is unknown, of the wrong type or out of range is an error that names it."""
    with pytest.raises((BadOption, BadRecipe)) as caught:
        Recipe.of({"data": "x", "backbone": "y"}, settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data = ", "cannot be read as a TOML recipe"),
        ('data = "x"\nbackbone = "y"\nepoch = 3', "r.toml: unknown field 'epoch'. Did you mean epochs?"),
        ('data = "x"\nbackbone = "y"\nseed = "1x"', "seed: got '1x', expected int"),
        ('data = "x"\nbackbone = "y"\nseed = 1.5', "seed: got 1.5, expected int"),
        ('data = "x"\nbackbone = "y"\nepochs = true', "epochs: got True"),
        ('data = ["x"]\nbackbone = "y"', "data: got ['x'], expected str"),
        ('data = "x"\nbackbone = "y"\nlr = nan', "lr: got nan"),
        ('data = "x"\nbackbone = "y"\ntest_share = nan', "test_share: got nan"),
        ('backbone = "y"', "r.toml: no data given"),
    ],
)
def test_bad_files(tmp_path, text, message):
    """A recipe file with a mistake is refused, and the mistake named."""
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises((BadOption, BadRecipe)) as caught:
        Recipe.load(tmp_path / "r.toml")
    assert message in str(caught.value)


def test_missing_file():
    """A recipe file that is not there is an error with its name."""
    with pytest.raises(BadRecipe, match=r"nowhere\.toml cannot be read"):
        Recipe.load("nowhere.toml")


@pytest.mark.parametrize(("budget", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("20", 20), (None, None)])
def test_budget(budget, seconds):
    """A budget is a number with s, m or h; without a unit it is seconds."""
    assert Recipe("x", "y", budget=budget).budget_seconds == seconds


@pytest.mark.parametrize("change", [{"seed": 1}, {"lr": 0.1}, {"freeze": "full"}, {"data": "z"}, {"val_share": 0.1}])
def test_every_field_is_in_the_digest(change):
    """The digest names the request: another value of any field is another digest and another run."""
    recipe = Recipe("x", "y")
    assert recipe.with_values(**change).digest != recipe.digest
    assert recipe.with_values(**change).run_name != recipe.run_name


def test_run_name():
    """A run is named after data, freeze strategy and digest, as a file name anywhere."""
    recipe = Recipe("some/my photos (1)/", "y", freeze="last:2")
    assert recipe.run_name == f"my-photos-1-last-{recipe.digest[:8]}"
    assert Recipe("/", "y").run_name.startswith("data-head-only-")


def test_equal_values_are_equal_recipes():
    """A whole number where a number is meant, or text from the command line, gives the same recipe and digest."""
    typed = Recipe.of({"data": "x", "backbone": "y", "lr": 1, "seed": 3})
    text = Recipe.of({"data": "x", "backbone": "y"}, ["lr=1.0", "seed=3"])
    assert typed == text
    assert asdict(typed) == asdict(text)
    assert typed.digest == text.digest
