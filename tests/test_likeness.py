"""Near copies: found where they are, and not where pictures only look alike."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from zoo_core import decoding, likeness


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A drawn scene of twenty coloured shapes."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(20):
        x, y = rng.integers(0, size[0] - 20), rng.integers(0, size[1] - 20)
        box = (x, y, x + rng.integers(10, 60), y + rng.integers(10, 60))
        draw.ellipse([int(v) for v in box], fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """What a JPEG file keeps of an image."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


COPIES = {
    "JPEG of quality 90": lambda image: as_jpeg(image, 90),
    "JPEG of quality 50": lambda image: as_jpeg(image, 50),
    "half the size": lambda image: image.resize((80, 60), Image.Resampling.BICUBIC),
    "other sides": lambda image: image.resize((224, 224), Image.Resampling.BILINEAR),
    "a little brighter": lambda image: image.point(lambda value: min(255, int(value * 1.04))),
    "one pixel": lambda image: (image.putpixel((3, 3), (255, 0, 255)), image)[1],
}


@pytest.mark.parametrize("copy", COPIES)
def test_near_copies_are_found(copy):
    """A picture stored as a JPEG, resized, brightened or touched in one pixel is found beside its original."""
    looks = {f"{i}": likeness.look(scene(i)) for i in range(30)}
    looks |= {f"{i} again": likeness.look(COPIES[copy](scene(i))) for i in range(30)}
    assert sorted(likeness.near(looks)) == sorted([f"{i}", f"{i} again"] for i in range(30))


def test_other_colours_are_other_pictures():
    """The same drawing in red and in blue, of one brightness, is two pictures."""
    pair = {}
    for name, colour in {"red": (200, 0, 0), "blue": (0, 60, 217)}.items():
        image = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(image).rectangle([20, 20, 32, 32], fill=colour)
        pair[name] = likeness.look(image)
    assert all(pair.values())
    assert likeness.near(pair) == []


def test_turned_pictures_are_others():
    """Flips and turns are not near copies: in many tasks they are the class."""
    turned = [scene(0).transpose(way) for way in Image.Transpose]
    assert likeness.near({str(i): likeness.look(image) for i, image in enumerate([scene(0), *turned])}) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 64)])
def test_flat_images_have_no_look(size):
    """An image of one colour has no look: all sheets of white paper are not one picture."""
    assert likeness.look(Image.new("L", size, 200)) == ""
    assert likeness.look(Image.new("RGB", size, (1, 2, 3))) == ""
    assert likeness.near({"a": "", "b": ""}) == []
    assert likeness.near({}) == []


def test_noise_is_not_alike():
    """Noise of one mean and spread is never near other noise."""
    rng = np.random.default_rng(0)
    looks = {str(i): likeness.look(Image.fromarray(rng.integers(0, 256, (60, 60), dtype=np.uint8))) for i in range(300)}
    assert all(looks.values())
    assert likeness.near(looks) == []


def test_groups_do_not_depend_on_order():
    """Groups are the same in whatever order the images come, and joined through others."""
    looks = {f"{i}{j}": likeness.look(as_jpeg(scene(i), 95 - 10 * j)) for i in range(5) for j in range(4)}
    found = likeness.near(looks)
    assert found == [[f"{i}{j}" for j in range(4)] for i in range(5)]
    assert likeness.near(dict(reversed(looks.items()))) == found


def test_many_near_copies(monkeypatch):
    """Hundreds of near copies of one picture are one group; where they are too many for all pairs, nearly so."""
    look = np.frombuffer(likeness.base64.b64decode(likeness.look(scene(0))), dtype=np.int8).astype(int)
    rng = np.random.default_rng(0)
    noisy = np.clip(look + rng.integers(-1, 2, (500, len(look))) * (rng.random((500, len(look))) < 0.1), -127, 127)
    looks = {
        f"{i:03d}": likeness.base64.b64encode(row.astype(np.int8).tobytes()).decode() for i, row in enumerate(noisy)
    }
    assert [len(group) for group in likeness.near(looks)] == [500]
    monkeypatch.setattr(likeness, "_MAX_PAIRS", 1000)
    assert max(len(group) for group in likeness.near(looks)) > 450


def test_real_pictures_that_look_alike():
    """Real solar cells, all alike to the eye, are never joined with one another; their JPEG copies are."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("elpv-dataset is not installed; it comes with zoo-core[demo]")
    files = sorted((Path(spec.submodule_search_locations[0]) / "data" / "images").glob("*.png"))[1400:1700]
    images = [decoding.decode(file) for file in files]
    looks = {file.stem: likeness.look(image) for file, image in zip(files, images, strict=True)}
    assert likeness.near(looks) == []
    looks |= {
        f"{file.stem} again": likeness.look(as_jpeg(image, 60)) for file, image in zip(files, images, strict=True)
    }
    assert likeness.near(looks) == [[file.stem, f"{file.stem} again"] for file in files]
