"""`zoo export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from zoo_core.cli.common import as_json, emit

FORMS = ("onnx", "safetensors", "timm", "hf", "torch-export")


@click.command("export")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(FORMS), required=True, help="The form.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder. Default: beside the run, RUN-FORM.")
@click.option("--force", is_flag=True, help="Replace an export that is there.")
@as_json
def export_command(run_folder: Path, to: str, out: Path | None, force: bool, as_json: bool) -> None:
    """Write RUN into a folder in another library's form, with labels, preprocessing and a model card.

    The folder is opened again by the library that it is for and compared with the run, on stored samples and on the
    whole test side, before it is called done. zoo verify FOLDER repeats that later, anywhere.

    \b
    onnx          one graph for any number of images: uint8 pixels in, calibrated answers out; needs zoo-core[export]
    safetensors   every tensor under upstream's names
    timm          a folder for timm.create_model("local-dir:FOLDER", pretrained=True)
    hf            a folder for transformers' pipeline("image-classification", "FOLDER"); chat models: "text-generation"
    torch-export  a program for torch.export.load

    \b
    Examples:
      zoo export runs/photos-last-1a2b3c4d --to onnx
      zoo export runs/photos-last-1a2b3c4d --to timm --out for-timm
    """
    from zoo_core.console import Terminal
    from zoo_core.exporting import export
    from zoo_core.runs import Run

    folder = out or run_folder.with_name(f"{run_folder.name}-{to}")
    run = Run(run_folder)
    found = export(run, to, folder, Terminal(), force)
    if as_json:
        emit({"folder": str(folder), "to": to} | asdict(found))
        return
    click.echo(f"{found.samples} stored samples differ from the run by {found.worst:.1g} at most.")
    plural = run.modality.plural
    click.echo(
        f"{found.same} of {found.test} test {plural} have the same answer; greatest difference {found.worst_test:.1g}."
    )
    click.echo(folder)
