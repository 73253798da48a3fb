"""A chat model as a folder of transformers: written by the head, opened again by transformers alone, and compared."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo_core import answered, manifests, model_card, tensors
from zoo_core.console import Console
from zoo_core.errors import ExportFailed, NotExportable, ZooError
from zoo_core.files import sha256_file, write_json, write_text
from zoo_core.next_tokens import NATS, RIGHT, TOKENS
from zoo_core.sealed import seal

if TYPE_CHECKING:
    from zoo_core.exporting import Compared
    from zoo_core.runs import Run

USE = """from transformers import pipeline
say = pipeline("text-generation", "FOLDER")
say([{"role": "user", "content": "Hello"}])"""
_KEPT = 16


def fill(run: Run, to: str, folder: Path, console: Console) -> Compared:
    """Write the folder and compare it with the run.

    Raises:
        NotExportable: the form is another one.
        ExportFailed: transformers reads something else in it.
    """
    from zoo_core.exporting import MANIFEST, SAMPLES, TOLERANCE

    if to != "hf":
        raise NotExportable(
            f"{run.path} is a chat model, which has the form hf only. Type: zoo export {run.path} --to hf"
        )
    model = run._predictor.model
    model.backbone.to("cpu")
    model.head.to("cpu")
    console.say(f"Writing   {to}")
    model.builder.builder.export(model, folder)
    _store_samples(run, folder / SAMPLES)
    compared = on_samples(folder, folder / SAMPLES, TOLERANCE)
    write_text(folder / "README.md", model_card.text(run, to, USE, compared))
    digests = {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    facts: dict[str, Any] = {
        "format": 1,
        "to": to,
        "task": run.target.kind,
        "run": run.summary["run"],
        "recipe": run.summary["recipe"],
    }
    facts |= {"tolerance": TOLERANCE, "compared": asdict(compared), "files": digests}
    write_json(folder / MANIFEST, seal(facts))
    return compared


def on_samples(folder: Path, samples: Path, tolerance: float) -> Compared:
    """Losses of the stored conversations by transformers, beside the run's.

    Raises:
        ExportFailed: they differ by more than `tolerance` nats a token.
    """
    from safetensors.torch import load_file

    from zoo_core.exporting import Compared

    stored = load_file(samples)
    found, expected = _losses(folder, stored), stored["answers"]
    gaps = (found[:, NATS] - expected[:, NATS]).abs() / expected[:, TOKENS].clamp_min(1)
    worst = float(gaps.max())
    if not worst <= tolerance or not torch.equal(found[:, TOKENS], expected[:, TOKENS]):
        raise ExportFailed(
            f"{folder} finds its stored conversations more or less probable than the run, by up to {worst:.2g} nats a "
            f"token (at most {tolerance:g} is allowed). Nothing of it is to be trusted; please report it."
        )
    same = int((found[:, RIGHT] == expected[:, RIGHT]).sum())
    return Compared(len(expected), worst, len(expected), same, worst)


def _losses(folder: Path, stored: dict[str, Tensor]) -> Tensor:
    """[N, 3] as a head gives them, computed from the scores of transformers' own model."""
    import transformers

    library: Any = transformers
    bars = library.utils.logging.is_progress_bar_enabled()
    library.utils.logging.disable_progress_bar()
    try:
        model = library.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    finally:
        if bars:
            library.utils.logging.enable_progress_bar()
    rows = []
    for ids, mask, wanted in zip(stored["ids"], stored["mask"], stored["wanted"], strict=True):
        here, asked = mask > 0, wanted[mask > 0] > 0
        with torch.inference_mode():
            scores = model(ids[here][None].long()).logits[0][asked]
        aims = wanted[here][asked].long() - 1
        nats = torch.nn.functional.cross_entropy(scores, aims, reduction="sum")
        rows.append(torch.stack([nats, torch.tensor(float(len(aims))), (scores.argmax(1) == aims).sum().float()]))
    return torch.stack(rows)


def _store_samples(run: Run, path: Path) -> None:
    """Some conversations of the test side with what the run gives for them; numbers at random where none is there."""
    predictor, reader = run._predictor, run._predictor.model.backbone.reader
    raw: Any = reader.stack([reader.read(file, "") for file in _test_files(run)] or [_noise(reader)])
    with torch.inference_mode():
        answers = predictor.probabilities(reader.to_input(raw, torch.device("cpu")))
    ids, mask, wanted = raw
    tensors.write(path, {"ids": ids, "mask": mask, "wanted": wanted, "answers": answers.float().contiguous()})


def _test_files(run: Run) -> list[str]:
    """Conversations of the test side, as far as the data still lie where they lay."""
    try:
        files = {row.origin: row.path for row in manifests.read_conversations(Path(run.recipe.data).expanduser())}
    except (ZooError, OSError):
        return []
    there = [files[name] for name in answered.read(run).paths if name in files]
    return there[:: max(1, len(there) // _KEPT)][:_KEPT]


def _noise(reader: Any) -> tuple[Tensor, ...]:
    """One conversation of the first tokens, all of which are to be said."""
    ids = torch.arange(16, dtype=torch.int32)
    return ids, torch.ones(16, dtype=torch.uint8), torch.cat([ids[1:] + 1, torch.zeros(1, dtype=torch.int32)])
