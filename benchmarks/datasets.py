"""Small sets of labelled images that packages provide, as manifests: what the science is measured on.

    python benchmarks/datasets.py                    which are there, and why not the others
    python benchmarks/datasets.py digits 160         a manifest of 160 training and 500 test images, on stdout

| name | images | from | licence |
|---|---|---|---|
| elpv | 2,624 solar cells, sound or defective | `pip install elpv-dataset` | CC-BY-NC-SA-4.0 |
| elpv-mono-poly | the same; trained on monocrystalline cells, tested on polycrystalline ones | | |
| digits | 1,797 digits, 8x8 pixels | scikit-learn | BSD-3-Clause; from UCI, CC-BY-4.0 |
| fashion | 70,000 articles of clothing, 28x28 pixels | Debian's `dataset-fashion-mnist` | MIT |
| stamps | 252 cut-out photographs of eight kinds of things | Debian's `tuxpaint-stamps-default` | GPL-2 |

Packages of Debian are fetched with `apt-get download` and unpacked in the cache folder; nothing is installed.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture

from zoo_core.places import cache_folder

TEST = 500
STAMPS = ("birds", "fish", "flowers", "fruit", "houses", "insects", "mammals", "vegetables")


class Missing(Exception):
    """A data set cannot be had here; says why."""


@dataclass(frozen=True)
class Image:
    """One labelled file; `side` is `train` or `test` where the data set says on which it belongs."""

    path: str
    label: str
    side: str = ""


def images(name: str) -> list[Image]:
    """Every image of a data set, its files made on first use.

    Raises:
        Missing: it cannot be had here.
    """
    if name not in SETS:
        raise Missing(f"no data set {name!r}; expected one of {', '.join(SETS)}")
    return list(SETS[name](cache_folder().absolute() / "benchmarks" / name))


def sample(
    found: Sequence[Image], train: int, test: int = TEST, seed: int = 0, labels: Sequence[str] = ()
) -> list[tuple[Image, str]]:
    """Images with their sides, every class in proportion.

    The test side is the same for every seed and size, and a smaller training side lies within a larger one of
    the same seed.

    Args:
        test: at most; a third of the images where the data set does not say which are for tests.
        labels: only these classes; none for all.

    Raises:
        Missing: there are fewer training images.
    """
    wanted = [image for image in found if not labels or image.label in labels]
    given = any(image.side for image in wanted)
    tests = _in_proportion([i for i in wanted if i.side != "train"], -1)[
        : test if given else min(test, len(wanted) // 3)
    ]
    taken = set(tests)
    trains = _in_proportion([i for i in wanted if i.side != "test" and i not in taken], seed)
    if len(trains) < train:
        raise Missing(f"{train} training images wanted, but only {len(trains)} are left beside {len(tests)} for tests")
    return [(image, "train") for image in trains[:train]] + [(image, "test") for image in tests]


def write(path: Path, chosen: Sequence[tuple[Image, str]]) -> Path:
    """A manifest with path, label and split."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["path", "label", "split"])
        out.writerows((image.path, image.label, side) for image, side in chosen)
    return path


def _in_proportion(found: Sequence[Image], seed: int) -> list[Image]:
    """All of them, so ordered that every beginning has the classes in proportion; within a class by hash."""
    by_label: dict[str, list[Image]] = defaultdict(list)
    for image in found:
        by_label[image.label].append(image)
    places = []
    for label, members in sorted(by_label.items()):
        members.sort(key=lambda i: hashlib.sha256(f"{seed} {Path(i.path).name}".encode()).digest())
        places += [((k + 0.5) / len(members), label, image) for k, image in enumerate(members)]
    return [image for _, _, image in sorted(places, key=lambda p: p[:2])]


def _cells() -> Iterator[tuple[Path, str, str]]:
    """Path, label, kind of silicon (Buerhop-Lutz et al. 2018; Deitsch et al. 2019)."""
    try:
        import elpv_dataset
    except ImportError:
        raise Missing("the package elpv-dataset is not installed. Type: pip install elpv-dataset") from None
    folder = Path(elpv_dataset.__file__).parent / "data"
    for line in (folder / "labels.csv").read_text().splitlines():
        if line.strip():
            name, probability, kind = line.split()
            yield folder / name, "defective" if float(probability) >= 0.5 else "sound", kind


def _elpv(folder: Path) -> Iterator[Image]:
    return (Image(str(path), label) for path, label, _ in _cells())


def _mono_poly(folder: Path) -> Iterator[Image]:
    return (Image(str(path), label, "train" if kind == "mono" else "test") for path, label, kind in _cells())


def _digits(folder: Path) -> Iterator[Image]:
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = (data.images * 255 / 16).astype(np.uint8)
    yield from _pictures(folder, pixels, [str(label) for label in data.target])


def _fashion(folder: Path) -> Iterator[Image]:
    """The first 10,000 of its training images and 5,000 of its test images: nobody here takes more."""
    names = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
    for side, stem, count in (("train", "train", 10_000), ("test", "t10k", 5_000)):
        found = [_idx(path, count) for path in debian("dataset-fashion-mnist", folder, f"**/{stem}-*.gz")]
        labels, pixels = sorted(found, key=lambda array: array.ndim)
        yield from _pictures(folder / side, pixels, [f"{n} {names[n]}" for n in labels], side)


def _stamps(folder: Path) -> Iterator[Image]:
    """Cut-out pictures, laid on white."""
    seen = set()
    for path in debian("tuxpaint-stamps-default", folder, "**/stamps/*/**/*.png"):
        kinds = set(path.parts) & set(STAMPS)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if len(kinds) != 1 or path.stem.endswith("_mirror") or digest in seen:
            continue
        seen.add(digest)
        yield Image(str(on_white(path, folder / "images")), kinds.pop())


def on_white(path: Path, folder: Path) -> Path:
    """A cut-out picture in the middle of a white square, as a file of its own named by its content."""
    out = folder / f"{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.png"
    if not out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        cut = Picture.open(path).convert("RGBA")
        side = max(cut.size)
        square = Picture.new("RGBA", (side, side), "white")
        square.alpha_composite(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
        square.convert("RGB").resize((160, 160), Picture.Resampling.LANCZOS).save(out)
    return out


SETS: dict[str, Callable[[Path], Iterator[Image]]] = {
    "elpv": _elpv,
    "elpv-mono-poly": _mono_poly,
    "digits": _digits,
    "fashion": _fashion,
    "stamps": _stamps,
}


def _pictures(folder: Path, pixels: np.ndarray, labels: Sequence[str], side: str = "") -> Iterator[Image]:
    """Gray images [N, H, W] as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (array, label) in enumerate(zip(pixels, labels, strict=True)):
        path = folder / f"{number:05d}.png"
        if not path.exists():
            Picture.fromarray(array).save(path)
        yield Image(str(path), label, side)


def _idx(path: Path, count: int) -> np.ndarray:
    """The first entries of an IDX file of bytes (LeCun et al. 1998)."""
    data = gzip.decompress(path.read_bytes())
    axes = data[3]
    shape = np.frombuffer(data, ">i4", axes, 4)
    array: np.ndarray = np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
    return array[:count]


def debian(package: str, folder: Path, pattern: str) -> list[Path]:
    """Files of a Debian package, unpacked into a folder."""
    unpacked = folder / "package"
    if not unpacked.exists():
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise Missing(f"it is in Debian's package {package}, and there is no apt-get here")
        temp = folder / "download"
        shutil.rmtree(temp, ignore_errors=True)
        temp.mkdir(parents=True)
        _run(package, ["apt-get", "download", package], temp)
        _run(package, ["dpkg-deb", "-x", str(next(temp.glob("*.deb"))), str(temp / "unpacked")], temp)
        (temp / "unpacked").rename(unpacked)
        shutil.rmtree(temp)
    return sorted(path for path in unpacked.glob(pattern) if path.is_file())


def _run(package: str, command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Missing(f"Debian's package {package} cannot be had: {last}")


def main(arguments: Sequence[str]) -> Any:
    """Say what is there, or write a manifest."""
    if arguments:
        name, count = arguments[0], int(arguments[1])
        chosen = sample(images(name), count)
        return write(Path("/dev/stdout"), chosen)
    for name in SETS:
        try:
            found = images(name)
            classes = sorted({image.label for image in found})
            print(f"{name:<16}{len(found):>6} images, {len(classes)} classes: {', '.join(classes)}")
        except Missing as error:
            print(f"{name:<16}not there: {error}")
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
