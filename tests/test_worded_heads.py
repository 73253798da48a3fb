"""Heads that begin with class names: files of names and templates, votes beside them, and what cannot be asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from zoo_core.backbone import Backbone
from zoo_core.errors import BadOption
from zoo_core.head_modules import TipLayer
from zoo_core.prompts import TEMPLATE, prompts_of
from zoo_core.solvers import tip_strengths
from zoo_core.types import Task
from zoo_core.worded_heads import TipAdapter, ZeroShot


def test_a_label_is_its_classs_name():
    """Without files every class is one prompt, its label with blanks for underscores in CLIP's own template."""
    assert prompts_of(["red_fox", "cat"]) == [["a photo of a red fox."], ["a photo of a cat."]]


def test_names_and_templates_from_files(tmp_path):
    """A class may have several names, each stands in every template; comments and empty lines say nothing."""
    (tmp_path / "names.txt").write_text("# synset = words\nn02119789 = kit fox\nn02119789 = swift fox\n\n")
    (tmp_path / "templates.txt").write_text("a photo of a {}.\n\n# for drawings\na drawing of the {}.\n")
    found = prompts_of(["n02119789", "cat"], str(tmp_path / "names.txt"), str(tmp_path / "templates.txt"))
    assert found[0][1:3] == ["a drawing of the kit fox.", "a photo of a swift fox."]
    assert [len(each) for each in found] == [4, 2]


@pytest.mark.parametrize(
    ("what", "text", "message"),
    [
        ("names", "cat: a cat", r"line 1: got 'cat: a cat', expected class = words, such as cat = a cat"),
        ("names", "cta = a cat", r"the data have no class 'cta'\. Did you mean cat\?"),
        ("templates", "a photo", r"line 1: got 'a photo', expected \{\} once, such as a photo of a \{\}\."),
        ("templates", "# nothing", r"has no template; expected lines such as"),
        ("templates", None, r"templates=.*No such file.*Expected a text file in UTF-8"),
    ],
)
def test_files_that_say_nothing(tmp_path, what, text, message):
    """A line that makes no sense is named with its number and what was expected."""
    path = tmp_path / "file.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadOption, match=message):
        prompts_of(["cat", "dog"], **{what: str(path)})


def worded(tiny: Backbone, rows: dict[str, torch.Tensor]) -> Backbone:
    """The tiny backbone with a text tower beside it that knows some words."""

    def words(prompts):
        found = [next(row for word, row in rows.items() if word in prompt) for prompt in prompts]
        return normalize(torch.stack(found), dim=1), 20.0

    return dataclasses.replace(tiny, words=words)


def test_a_class_is_the_mean_of_its_prompts(tiny):
    """A head's row is the mean of the prompts' unit vectors, of unit length again; the scale is the backbone's own."""
    rows = {
        word: torch.randn(32, generator=torch.Generator().manual_seed(i)) for i, word in enumerate(("red", "green"))
    }
    builder, task = ZeroShot(), Task("", ("red", "green"), ())
    head = builder.build(32, task)
    how = builder.begin(head, worded(tiny, rows), task)
    assert how == f"begins with 2 classes that the text tower read in 2 prompts, such as {TEMPLATE.format('red')!r}"
    x = torch.randn(5, 32)
    expected = 20 * normalize(x, dim=1) @ normalize(torch.stack(list(rows.values())), dim=1).T
    assert torch.allclose(head(x), expected, atol=1e-5)


def test_beginning_draws_nothing(tiny):
    """Reading class names leaves the random state alone: what is drawn afterwards is the seed's."""
    head = ZeroShot().build(32, Task("", ("red", "red too"), ()))
    torch.manual_seed(0)
    expected = torch.rand(3)

    def words(prompts):
        return normalize(torch.rand(len(prompts), 32), dim=1), 1.0

    torch.manual_seed(0)
    ZeroShot().begin(head, dataclasses.replace(tiny, words=words), Task("", ("red", "red too"), ()))
    assert torch.equal(torch.rand(3), expected)


def test_votes_are_the_papers():
    """Tip-Adapter adds alpha * exp(-beta (1 - cosine to examples)) * one-hot labels to the texts' scaled cosine."""
    generator = torch.Generator().manual_seed(0)
    head = TipLayer(6, 3, 100.0)
    features, labels = torch.randn(9, 6, generator=generator), torch.arange(9) % 3
    head.weight.copy_(normalize(torch.randn(3, 6, generator=generator), dim=1))
    head.remember(features, labels)
    x = normalize(torch.randn(4, 6, generator=generator), dim=1)
    votes = (-5.5 * (1 - x @ normalize(features, dim=1).T)).exp() @ torch.nn.functional.one_hot(labels).float()
    assert torch.allclose(head(x), 100 * x @ head.weight.T + votes, atol=1e-4)


def test_strengths_are_chosen_by_leaving_out():
    """Votes that help are weighed highly, votes that only disturb are not counted; given values are kept."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    centres = torch.eye(3, 12)
    features = centres[labels] + 0.1 * torch.randn(60, 12, generator=generator)
    head = TipLayer(12, 3, 10.0)
    head.remember(features, labels)
    assert tip_strengths(head, labels, None, None)[0] == 3.0
    head.weight.copy_(centres)
    head.scale.fill_(100.0)
    head.remember(features, labels[torch.randperm(60, generator=generator)])
    assert tip_strengths(head, labels, None, None)[0] == 0.0
    assert tip_strengths(head, labels, 2.0, 3.0) == (2.0, 3.0, "as given")
    assert tip_strengths(head, torch.arange(3), None, None)[:2] == (1.17, 1.0)


def test_what_cannot_be_asked(make, tmp_path):
    """No text tower, no epochs for a head of chance, and odd strengths are refused with what to type."""
    with pytest.raises(BadOption, match=r"tiny/net has no text tower with weights beside it.* --head linear"):
        make(head="zero-shot")
    with pytest.raises(BadOption, match=r"--epochs 0 trains nothing, which leaves --head linear .* to chance"):
        make(epochs=0)
    with pytest.raises(BadOption, match=r"expected 0 or more, and more than 0\. Type --head tip-adapter"):
        TipAdapter(beta=-1.0)
    assert not Path("run").exists()
