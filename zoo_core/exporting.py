"""A run carried to other libraries: written, opened again by those libraries, and compared before it is called done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_core import answered, chat_export, model_card, run_files
from zoo_core.console import Console
from zoo_core.errors import ExportFailed, FolderExists, NotExportable, UsageError, ZooError, near, printable, shown
from zoo_core.export_formats import FORMS, Answer
from zoo_core.files import publishing_folder, read_json, sha256_file, write_json, write_text
from zoo_core.sealed import is_sealed, seal
from zoo_core.targets import written

if TYPE_CHECKING:
    from zoo_core.runs import Run

MANIFEST = "export.json"
SAMPLES = "samples.safetensors"
TOLERANCE = 1e-4
"""Greatest difference of any answer, on the scale of the training side for numbers."""
WHOLE = ("onnx", "torch-export")
"""Forms that hold whatever computes the answers."""
_KEPT, _BATCH = 16, 16  # stored samples; images a pass


@dataclass(frozen=True)
class Compared:
    """How an export answers beside its run.

    Attributes:
        samples: stored examples, answered by both on the same pixels.
        worst: greatest difference of an answer among them.
        test: images of the test side that were there to be answered.
        same: of these, with the same label as in the run's `predictions.csv`.
        worst_test: greatest difference of an answer among them.
    """

    samples: int
    worst: float
    test: int = 0
    same: int = 0
    worst_test: float = 0.0


def export(run: Run, to: str, out: Path, console: Console | None = None, force: bool = False) -> Compared:
    """Write a run into a folder in another library's form; nothing is there unless it answers as the run does.

    Args:
        to: a key of `FORMS`.
        out: the folder.
        force: replace an export that is there.

    Raises:
        UsageError: no such form.
        FolderExists: the folder is there, and is no export or not to be replaced.
        NotExportable: the run has no such form.
        MissingExtra: a library is not installed.
        ExportFailed: the form answers differently from the run.
    """
    console = console or Console()
    if to not in FORMS:
        raise UsageError(f"--to {to}: expected one of {', '.join(FORMS)}. {near(to, FORMS)}".rstrip())
    if run.modality.name not in ("image", "chat"):
        raise NotExportable(f"{run.path} reads {run.modality.plural}; zoo export knows images and chat models so far.")
    if "second" in run.plan and to not in WHOLE:
        raise NotExportable(
            f"{run.path} is an ensemble of two models, and --to {to} holds one. Type: zoo export {run.path} --to onnx"
        )
    if out.exists() and not (force and (out / MANIFEST).is_file()):
        raise FolderExists(f"{out} is already there. Give another --out, or replace an export with --force.")
    fill = chat_export.fill if run.modality.name == "chat" else _fill
    with run_files.reading(run.path), publishing_folder(out) as part:
        return fill(run, to, part, console)


def verify(folder: Path) -> Compared:
    """Read an export again: every file's digest, and its answers for the stored samples, by the library it is for.

    Raises:
        ExportFailed: a file has changed, or the answers differ.
    """
    try:
        manifest = checked(folder)
        if manifest.get("task") == "next-token":
            return chat_export.on_samples(folder, folder / SAMPLES, manifest["tolerance"])
        answer = FORMS[manifest["to"]].load(folder)
        return _on_samples(folder, answer, manifest["scale"], manifest["tolerance"])
    except ZooError:
        raise
    except Exception as error:  # whatever another library says of files that are not its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ExportFailed(f"{folder} cannot be opened again ({reason}). Export it again.") from error


def checked(folder: Path) -> dict[str, Any]:
    """What an export's manifest says, if all its files are still as it says. Raises `ExportFailed`."""
    manifest = read_json(folder / MANIFEST)
    if not is_sealed(manifest):
        raise ExportFailed(f"{folder / MANIFEST} is not what zoo export wrote. Export it again.")
    inside = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    for name, expected in manifest["files"].items():  # names are looked up, not joined
        found = sha256_file(inside[name]) if name in inside else "nothing"
        if found != expected:
            said = f"{MANIFEST} says {shown(expected)}"
            raise ExportFailed(f"{folder}: {printable(name)} has sha256 {found}, but {said}. Export it again.")
    return dict(manifest)


def _fill(run: Run, to: str, folder: Path, console: Console) -> Compared:
    import torch

    from zoo_core.calibration import Calibration
    from zoo_core.deploying import Deployed

    predictor = run._predictor
    predictor.to(torch.device("cpu"))
    fitted = run.calibration if run.target.kind != "regression" else Calibration()
    module = Deployed(predictor, fitted)
    write_json(folder / "labels.json", written(run.target) | {"task": run.target.kind})
    write_json(folder / "preprocessing.json", asdict(run.card.input))
    test = answered.read(run)
    files = [(i, Path(path)) for i, path in enumerate(test.paths)]
    _store_samples(run, test, module, folder, files)
    console.say(f"Writing   {to}")
    FORMS[to].write(run, module, folder)
    answer = FORMS[to].load(folder)
    scale = getattr(run.target, "std", 1.0)
    compared = _on_samples(folder, answer, scale, TOLERANCE)
    compared = _on_test_side(run, test, files, answer, scale, compared, console)
    write_text(folder / "README.md", model_card.text(run, to, FORMS[to].use, compared))
    digests = {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    facts: dict[str, Any] = {"format": 1, "to": to, "run": run.summary["run"], "recipe": run.summary["recipe"]}
    facts |= {"tolerance": TOLERANCE, "scale": scale, "compared": asdict(compared), "files": digests}
    write_json(folder / MANIFEST, seal(facts))
    return compared


def _store_samples(
    run: Run, test: answered.Answered, module: Any, folder: Path, files: Sequence[tuple[int, Path]]
) -> None:
    """Pixels of some test images, and the run's answers for them; noise where no image is there any more."""
    import torch

    from zoo_core import tensors

    there = [(i, file) for i, file in files if file.is_file()]
    some = there[:: max(1, len(there) // _KEPT)][:_KEPT]
    found = [pixels for _, batch in _pixels(run, test, some) for pixels in batch]
    noise = torch.randint(0, 256, (_KEPT, *run.card.input.size), generator=torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(np.stack(found)) if found else noise.to(torch.uint8)
    with torch.no_grad():
        answers = module(pixels)
    tensors.write(folder / SAMPLES, {"pixels": pixels, "answers": answers.float()})


def _on_samples(folder: Path, answer: Answer, scale: float, tolerance: float) -> Compared:
    from safetensors.numpy import load_file

    stored = load_file(folder / SAMPLES)
    pixels, expected = stored["pixels"], stored["answers"]
    found = answer(pixels)
    alone = answer(pixels[:1])  # any number of images must do
    if found.shape != expected.shape or alone.shape[0] != 1:
        raise ExportFailed(f"{folder} gives answers of shape {list(found.shape)}, the run {list(expected.shape)}.")
    worst = float(max(abs(found - expected).max(), abs(alone - expected[:1]).max())) / scale
    if not worst <= tolerance:
        raise ExportFailed(
            f"{folder} answers its stored samples differently from the run, by up to {worst:.2g} "
            f"(at most {tolerance:g} is allowed). Nothing of it is to be trusted; please report it."
        )
    return Compared(len(pixels), worst)


def _on_test_side(
    run: Run,
    test: answered.Answered,
    files: Sequence[tuple[int, Path]],
    answer: Answer,
    scale: float,
    compared: Compared,
    console: Console,
) -> Compared:
    """The whole test side, as far as its images are there, from the files on."""
    there = [(i, file) for i, file in files if file.is_file()]
    same, worst, count = 0, 0.0, 0
    cuts = run.calibration.thresholds if run.target.kind == "multi-label" else ()
    with console.track("Comparing on the test side", len(there)) as advance:
        for rows, batch in _pixels(run, test, there):
            found = answer(batch)
            for i, row in zip(rows, found, strict=True):
                gap = float(abs(row - test.shares[i]).max()) / scale
                worst, count = max(worst, gap), count + 1
                label = "|".join(run.target.names(row.tolist(), cuts))
                same += label == test.predicted[i] or (run.target.kind == "regression" and gap <= TOLERANCE)
            advance(len(rows))
    return Compared(compared.samples, compared.worst, count, same, worst)


def _pixels(
    run: Run, test: answered.Answered, files: Sequence[tuple[int, Path]]
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Images as they enter an export, uint8 [N, C, H, W]; those that cannot be read, or are others, are left out."""
    from zoo_core import images

    channels = run.card.input.size[0]
    for start in range(0, len(files), _BATCH):
        rows, found = [], []
        for i, file in files[start : start + _BATCH]:
            try:
                image = images.decode(file)
            except (ZooError, OSError):
                continue
            if images.content_digest(image) != test.digests[i]:
                continue
            pixels = images.pixels(image, run.card.input)
            rows.append(i)
            found.append(pixels.expand(channels, -1, -1).numpy())
        if rows:
            yield rows, np.stack(found)
