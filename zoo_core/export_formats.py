"""What a run can be exported to: how each form is written, and how it is opened again by those who will use it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo_core.deploying import Deployed
from zoo_core.errors import MissingExtra, NotExportable
from zoo_core.files import read_json, write_json

if TYPE_CHECKING:
    from zoo_core.runs import Run

Answer = Callable[[np.ndarray], np.ndarray]
"""uint8 pixels [N, C, H, W] to probabilities [N, classes], or numbers [N, 1]."""


@dataclass(frozen=True)
class Form:
    """One form.

    Attributes:
        write: run, module and empty folder to files.
        load: folder to a function that answers, made by the libraries that will use it and nothing of ours.
        use: Python code that does so, for the model card.
    """

    write: Callable[[Run, Deployed, Path], None]
    load: Callable[[Path], Answer]
    use: str


def write_onnx(run: Run, module: Deployed, folder: Path) -> None:
    """One graph for any number of images, normalisation inside, labels and preprocessing in its metadata."""
    onnx = _needs("onnx", "onnxscript")
    program = _exported(run, module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the exporter says of its own parts
        made: Any = torch.onnx.export(
            program, input_names=["pixels"], output_names=["answers"], verbose=False, external_data=False
        )
    model = made.model_proto
    facts = {"labels": list(run.classes), "task": run.target.kind, "preprocessing": asdict(run.card.input)}
    for name, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")


def load_onnx(folder: Path) -> Answer:
    runtime = _needs("onnxruntime")
    session = runtime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run(None, {"pixels": pixels})[0])


def write_program(run: Run, module: Deployed, folder: Path) -> None:
    """torch's own portable program, for any number of images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of parts of tensors that it then saves whole
        torch.export.save(_exported(run, module), folder / "model.pt2")


def load_program(folder: Path) -> Answer:
    module: Any = torch.export.load(folder / "model.pt2").module()
    return lambda pixels: _plain(module(torch.from_numpy(pixels)))


def write_safetensors(run: Run, module: Deployed, folder: Path) -> None:
    """Every tensor under upstream's names, and what is needed to build the network around them."""
    from zoo_core.tensors import write

    body = run._predictor.model.backbone
    tensors = {f"backbone.{n}": t.clone() for n, t in body.model.state_dict().items()}
    tensors |= {f"head.{n}": t.clone() for n, t in module.head.state_dict().items()}
    write(folder / "model.safetensors", tensors)
    write_json(folder / "card.json", {"name": run.card.name, "card": run.card.to_json()})
    plan = run.plan
    kept = ("head", "head_dim", "depth", "calibration", "reader")
    write_json(
        folder / "plan.json", {name: plan[name] for name in kept} | {"target": read_json(run.file("labels.json"))}
    )


def load_safetensors(folder: Path) -> Answer:
    """Built anew by the backbone's own library, from random weights that are all replaced."""
    from safetensors.torch import load_file

    from zoo_core import components, targets
    from zoo_core.activations import Numbers
    from zoo_core.calibration import Calibration
    from zoo_core.card import Card
    from zoo_core.fit import Model
    from zoo_core.objective import Objective
    from zoo_core.plugins import discover
    from zoo_core.predicting import Predictor
    from zoo_core.types import FreezePlan, Phase, Task
    from zoo_core.weights import load_backbone

    plan, stored = read_json(folder / "plan.json"), read_json(folder / "card.json")
    plugins, target = discover(), targets.read(plan["target"])
    body = load_backbone(Card.from_json(stored["name"], stored["card"]), plugins, pretrained=False)
    builder = Objective(components.build(plugins, "head", plan["head"]), target)
    head = builder.build(plan["head_dim"], Task("", target.classes, (), kind=target.kind))
    tensors = load_file(folder / "model.safetensors")
    for module, part in ((body.model, "backbone."), (head, "head.")):
        module.load_state_dict({n.removeprefix(part): t for n, t in tensors.items() if n.startswith(part)})
    still = FreezePlan((Phase(len(body.stages)),), "everything stands still for prediction")
    predictor = Predictor(Model(body, head.eval(), builder, still), plan["depth"], Numbers("fp32", "fp32"))
    module = Deployed(predictor, Calibration.read(plan["calibration"]))
    return lambda pixels: _plain(module(torch.from_numpy(pixels)))


def write_timm(run: Run, module: Deployed, folder: Path) -> None:
    """timm's own folder: the whole model with its classifier, labels and preprocessing in `config.json`."""
    _needs("timm")
    from timm.models import save_for_hf

    spec = run.card.input
    how: dict[str, Any] = {
        "input_size": spec.size,
        "mean": spec.mean,
        "std": spec.std,
        "interpolation": spec.interpolation,
    }
    how |= {"crop_pct": spec.crop, "crop_mode": spec.crop_mode}
    config = {"label_names": list(run.classes)} if run.classes else {}
    save_for_hf(_with_classifier(run, module), str(folder), config, data_config=how, safe_serialization=True)


def load_timm(folder: Path) -> Answer:
    _needs("timm")
    import timm

    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return _after_normalising(model, folder, model.pretrained_cfg, lambda out: out)


def write_hf(run: Run, module: Deployed, folder: Path) -> None:
    """A folder of transformers', whose wrapper around timm reads it with `AutoModelForImageClassification`."""
    _needs("transformers")
    from tempfile import TemporaryDirectory

    import transformers

    library: Any = transformers
    with TemporaryDirectory() as between:
        write_timm(run, module, Path(between))
        config = read_json(Path(between) / "config.json")
        config.get("model_args", {}).pop("num_classes", None)  # the wrapper gives it itself
        write_json(Path(between) / "config.json", config)
        library.AutoModelForImageClassification.from_pretrained(between).save_pretrained(folder)
        library.AutoImageProcessor.from_pretrained(between).save_pretrained(folder)


def load_hf(folder: Path) -> Answer:
    _needs("transformers")
    import transformers

    model: Any = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    return _after_normalising(model, folder, model.config.pretrained_cfg, lambda out: out.logits)


FORMS: dict[str, Form] = {
    "onnx": Form(
        write_onnx,
        load_onnx,
        """import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
answers = session.run(None, {"pixels": pixels})[0]  # uint8 [N, C, H, W], resized and cropped""",
    ),
    "safetensors": Form(
        write_safetensors,
        load_safetensors,
        """from safetensors.torch import load_file
tensors = load_file("model.safetensors")  # backbone.* under upstream's names, head.*""",
    ),
    "timm": Form(
        write_timm,
        load_timm,
        """import timm
model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))""",
    ),
    "hf": Form(
        write_hf,
        load_hf,
        """from transformers import pipeline
pipeline("image-classification", "FOLDER")("photo.jpg")""",
    ),
    "torch-export": Form(
        write_program,
        load_program,
        """import torch
model = torch.export.load("model.pt2").module()
answers = model(pixels)  # uint8 [N, C, H, W], resized and cropped""",
    ),
}
"""Name to form; in each the answers are those of the run."""


def _exported(run: Run, module: Deployed) -> Any:
    """The module as one graph, for any number of images."""
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    example = torch.zeros((2, *run.card.input.size), dtype=torch.uint8)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    try:
        return torch.export.export(module, (example,), dynamic_shapes=({0: batch},), strict=False)
    except Exception as error:  # torch has a dozen classes for what it cannot follow
        first = " ".join(str(error).split())[:300]
        raise NotExportable(
            f"torch cannot make one graph of {run.card.name} with the head {run.summary['head']}: {first} "
            "Type: zoo export RUN --to safetensors"
        ) from error


def _with_classifier(run: Run, module: Deployed) -> Any:
    """timm's model of the run's card with the head as its classifier, the temperature folded in."""
    from zoo_core.timm_provider import create

    body = run._predictor.model.backbone
    if not hasattr(body.model, "pretrained_cfg") or not isinstance(module.head, nn.Linear) or module.reads_stages:
        raise NotExportable(
            f"timm's models end in one linear layer on their pooled features; this run is {run.card.name} with the "
            f"head {run.summary['head']}. Type: zoo export RUN --to onnx"
        )
    full: Any = create(run.card, num_classes=module.head.out_features).eval()
    missing, unexpected = full.load_state_dict(body.model.state_dict(), strict=False)
    classifier = full.get_classifier()
    names = {f"{n}.{p}" for n, m in full.named_modules() if m is classifier for p in ("weight", "bias")}
    if unexpected or not isinstance(classifier, nn.Linear) or set(missing) != names:
        raise NotExportable(
            f"timm's {run.card.architecture} has no single linear classifier to fill. Type: zoo export RUN --to onnx"
        )
    weight, bias = _folded(run, module)
    with torch.no_grad():
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)
    return full


def _folded(run: Run, module: Deployed) -> tuple[Tensor, Tensor]:
    """The head's weight and bias so that a softmax, a sigmoid or nothing behind it gives the run's answers."""
    head, target = module.head, run.target
    assert isinstance(head, nn.Linear)
    weight, bias = head.weight.detach(), head.bias.detach() if head.bias is not None else torch.zeros(head.out_features)
    if target.kind == "regression":
        mean, std = getattr(target, "mean", 0.0), getattr(target, "std", 1.0)
        return weight * std, bias * std + mean
    return weight / run.calibration.temperature, bias / run.calibration.temperature


def _after_normalising(model: Any, folder: Path, config: dict[str, Any], outputs: Callable[[Any], Tensor]) -> Answer:
    """Pixels normalised as the folder's own configuration says, then the model, then what its task means."""
    mean, std = (torch.tensor(config[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    kind = read_json(folder / "labels.json")["task"]
    last: dict[str, Callable[[Tensor], Tensor]] = {"multi-label": torch.sigmoid, "regression": lambda t: t}

    def answer(pixels: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(pixels).float().div(255).sub(mean).div(std)
        with torch.inference_mode():
            found: Tensor = last.get(kind, _softmax)(outputs(model(x)))
        return _plain(found)

    return answer


def _softmax(t: Tensor) -> Tensor:
    return t.softmax(1)


def _plain(t: Tensor) -> np.ndarray:
    return np.asarray(t.detach().cpu().numpy())


def _needs(*names: str) -> Any:
    """Import packages of the extra; returns the first.

    Raises:
        MissingExtra: one is not installed.
    """
    import importlib

    try:
        modules = [importlib.import_module(name) for name in names]
    except ImportError as error:
        extra = "zoo-core[export]" if names[0].startswith("onnx") else names[0]
        raise MissingExtra(f"{error.name} is not installed. Type: pip install '{extra}'") from error
    return modules[0]
