"""`zoo eval`, `zoo predict`, `zoo runs`."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import click

from zoo_core.cli.chat import saying_of, saying_options
from zoo_core.cli.common import as_json, emit, say, table
from zoo_core.errors import BadOption, ZooError, printable
from zoo_core.run_files import reading

if TYPE_CHECKING:
    from zoo_core.runs import Prediction

Form = Literal["text", "csv", "jsonl"]


@click.command("eval")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--columns", help="What a table calls its columns: path=file,label=class.")
@as_json
def eval_command(run_folder: Path, data: str, columns: str | None, as_json: bool) -> None:
    """Score RUN on DATA, every image of it; classes are matched by name.

    DATA is read as by finetune: class folders, a table, shards. Images that cannot be read are listed on stderr.

    \b
    Examples:
      zoo eval runs/photos-last-1a2b3c4d new_photos/
      zoo eval runs/photos-last-1a2b3c4d labels.csv --columns path=file,label=class
    """
    from zoo_core.cli.figures import print_scores
    from zoo_core.console import Terminal
    from zoo_core.data import scan
    from zoo_core.runs import Run

    run = Run(run_folder)
    console = Terminal()
    task = scan(data, columns=columns, console=console, for_training=False, modality=run.modality, task=run.target.kind)
    scores = run.evaluate(task)
    for note in task.notes:
        console.say(f"zoo: {note}")
    for path, reason in task.bad.items():
        console.say(f"zoo: {path}: {reason}")
    emit(scores | {"bad": dict(task.bad)}) if as_json else print_scores(scores, run)


@click.command("predict")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("files", metavar="FILES_OR_FOLDERS...", nargs=-1, required=True)
@click.option("--csv", "as_csv", is_flag=True, help="CSV with the probability of every class.")
@click.option("--json", "--jsonl", "as_jsonl", is_flag=True, help="One JSON object a line.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A .csv or .jsonl file for the results.")
@click.option("--uncalibrated", is_flag=True, help="Probabilities as the head gives them, without the temperature.")
@click.option("--operating-point", is_flag=True, help="Of two classes call the second from the run's threshold on.")
@saying_options
def predict_command(
    run_folder: Path,
    files: tuple[str, ...],
    as_csv: bool,
    as_jsonl: bool,
    out: Path | None,
    uncalibrated: bool,
    operating_point: bool,
    **given: float | None,
) -> None:
    """Predict files, or all in folders; results are printed as they are computed. A chat model answers each of them.

    Images that cannot be read are listed with the reason on stderr at the end, and have a line with an `error` in
    CSV and JSON lines. The exit code is 1 only if no image could be read. --out writes the file whole or not at all.

    \b
    Examples:
      zoo predict runs/photos-last-1a2b3c4d a.jpg b.png
      zoo predict runs/photos-last-1a2b3c4d folder/ --csv > answers.csv
      zoo predict runs/photos-last-1a2b3c4d folder/ --out answers.jsonl --uncalibrated
      zoo predict runs/chats-last-1a2b3c4d questions.jsonl --max-tokens 50 --out answers.jsonl
    """
    from zoo_core.console import Console, Terminal
    from zoo_core.data import example_files
    from zoo_core.runs import Run

    form = _form(as_csv, as_jsonl, out)
    run = Run(run_folder)
    found = example_files(files, run.modality)
    seen = out is None and sys.stdout.isatty()  # the results themselves show how far it is
    console = Terminal() if sys.stderr.isatty() and not seen else Console()
    failed: list[Prediction] = []
    started, first = time.monotonic(), 0.0
    with _sink(out) as stream, console.track("Predicting", len(found)) as advance:
        write = _writer(form, stream, run.classes)
        answers = run.predict(
            found, calibrated=not uncalibrated, operating_point=operating_point, saying=saying_of(given)
        )
        for prediction in answers:
            first = first or time.monotonic() - started
            write(prediction)
            advance(1)
            if prediction.error:
                failed.append(prediction)
    seconds = time.monotonic() - started
    for prediction in failed:
        say(f"zoo: {prediction.path}: {prediction.error}", err=True)
    lost = f", {len(failed)} of them could not be read" if failed else ""
    speed, plural = len(found) / max(seconds, 1e-9), run.modality.plural
    say(
        f"zoo: {len(found)} {plural} in {seconds:.1f} s{lost}: {speed:.0f} {plural} a second, "
        f"the first after {first:.1f} s",
        err=True,
    )
    if len(failed) == len(found):
        sys.exit(1)


def _form(as_csv: bool, as_jsonl: bool, out: Path | None) -> Form:
    if as_csv and as_jsonl:
        raise BadOption("--csv and --jsonl were given; expected one of them.")
    if as_csv or as_jsonl:
        return "csv" if as_csv else "jsonl"
    if out is None:
        return "text"
    if out.suffix.lower() not in (".csv", ".jsonl"):
        raise BadOption(f"--out {out}: expected a name ending in .csv or .jsonl, or add --csv or --jsonl.")
    return "csv" if out.suffix.lower() == ".csv" else "jsonl"


@contextmanager
def _sink(out: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that is there only when it is whole; a name that is no UTF-8 is escaped."""
    if out is None:
        reconfigure = getattr(sys.stdout, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")
        yield sys.stdout
        return
    from zoo_core.files import publishing

    with publishing(out) as temp, open(temp, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        yield stream


def _writer(form: Form, stream: IO[str], classes: Sequence[str]) -> Callable[[Prediction], None]:
    """What writes one prediction and hands it on at once."""
    rows = csv.writer(stream, lineterminator="\n")

    def text(p: Prediction) -> None:
        if not p.error:
            shown = p.label or "-"
            line = f"{p.path}  {shown}  {p.probability:.3f}" if p.probabilities else f"{p.path}  {shown}"
            stream.write(printable(line) + "\n")

    def cells(p: Prediction) -> None:
        rows.writerow(
            [p.path, p.label, *(f"{p.probabilities[c]:.6f}" if not p.error else "" for c in classes), p.error]
        )

    def line(p: Prediction) -> None:
        whole = json.dumps(asdict(p), ensure_ascii=False)
        stream.write((whole if whole.isprintable() else json.dumps(asdict(p))) + "\n")

    if form == "csv":
        rows.writerow(["path", "predicted", *(f"p:{c}" for c in classes), "error"])
    write = {"text": text, "csv": cells, "jsonl": line}[form]

    def write_now(p: Prediction) -> None:
        write(p)
        stream.flush()

    return write_now


@click.group("runs")
def runs_command() -> None:
    """List and show runs.

    \b
    Examples:
      zoo runs ls
      zoo runs show runs/photos-last-1a2b3c4d
      zoo runs diff runs/photos-last-1a2b3c4d runs/photos-full-5e6f7a8b
    """


@runs_command.command("ls")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("runs"))
@as_json
def runs_ls(folder: Path, as_json: bool) -> None:
    """List the finished runs in FOLDER (default: runs)."""
    from zoo_core.cli.figures import headline
    from zoo_core.runs import find_runs

    found = []
    rows = []
    for run in find_runs(folder):
        try:
            with reading(run.path):
                s = run.summary
                names = (s["run"], s["backbone"], s["freeze"]["requested"], s["head"])
                rows.append((*names, headline(run), f"{s['seconds']['total']:.0f} s"))
                found.append(s)
        except ZooError as error:  # the others are still worth a list
            say(f"zoo: {error}", err=True)
    if as_json:
        emit(found)
        return
    table(("run", "backbone", "freeze", "head", "test side", "time"), rows)
    if not rows:
        say(f"No finished run in {folder}. Make one with 'zoo finetune'.", err=True)


@runs_command.command("show")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@as_json
def runs_show(run_folder: Path, as_json: bool) -> None:
    """Show the figures, the plan and the recipe of RUN."""
    from zoo_core.cli.figures import print_run
    from zoo_core.runs import Run

    run = Run(run_folder)
    if as_json:
        emit(run.summary)
        return
    say(run.recipe.to_toml())
    with reading(run.path):
        say(f"Freeze    {run.summary['freeze']['reason']}")
        print_run(run)


@runs_command.command("diff")
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@as_json
def runs_diff(first: Path, second: Path, as_json: bool) -> None:
    """Compare run B with run A: recipe, figures, cost, and the test examples whose answer flipped."""
    from zoo_core.cli.figures import print_difference
    from zoo_core.differing import diff
    from zoo_core.runs import Run

    a, b = Run(first), Run(second)
    with reading(second):
        found = diff(a, b)
        emit(found.to_json()) if as_json else print_difference(a, b, found)
