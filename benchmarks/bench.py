"""All benchmarks by one command; JSON lines in `results.jsonl`, tables and pictures in `README.md`.

    python benchmarks/bench.py                      everything, as `make bench` does
    python benchmarks/bench.py --quick              a few parts on few images; prints, writes nothing
    python benchmarks/bench.py --only loops sweep   some parts; what the others gave before stays
    python benchmarks/bench.py --only loops --add   one more round beside those there
    python benchmarks/bench.py --render             the page again, from the lines that are there

Run it on a machine that does nothing else: each line says how high the load was. Rounds go through all parts before the
next round begins, so that an hour in which the machine was slow does not fall on one part alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import accuracy
import loops
import scale
import startup
import sweep
from measure import HERE, bars, machine, table

Rows = list[dict[str, Any]]
PEERS = HERE.parent / ".venv-bench" / "bin" / "python"
RESULTS, PAGE = HERE / "results.jsonl", HERE / "README.md"
FEW: dict[str, int] = {"train": 640, "test": 128}
FRAMEWORKS = ["plain", "lightning", "hf-trainer", "fastai"]
PARTS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "startup": startup.measure,
    "loops": lambda: loops.measure(["plain", "tuned"]),
    "frameworks": lambda: loops.measure(FRAMEWORKS, **FEW, python=str(PEERS), warm=False),
    "partial": lambda: loops.measure(["plain", "tuned"], **FEW, freeze="last:2", batch=32, warm=False),
    "sweep": lambda: sweep.measure(rounds=1),
    "scale": lambda: scale.measure([1000, 10_000]),
    "accuracy": accuracy.measure,
    "accuracy of partial": lambda: accuracy.measure(train=640, seeds=1, freeze="last:2", batch=32),
}
"""What each part measures, in one round."""
QUICK: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "startup": lambda: startup.measure(rounds=5),
    "loops": lambda: loops.measure(["plain", "tuned"], **FEW),
    "sweep": lambda: sweep.measure(rounds=1, train=640, test=128),
    "scale": lambda: scale.measure([1000]),
}
ROUNDS = {"loops": 2, "sweep": 2}
"""Rounds of `make bench`, where it is not one."""
SECTIONS: dict[str, Any] = {
    "startup": startup,
    "loops": loops,
    "frameworks": loops,
    "partial": loops,
    "sweep": sweep,
    "scale": scale,
    "accuracy": accuracy,
    "accuracy of partial": accuracy,
}


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--add", action="store_true", help="one round, beside those that are there")
    parser.add_argument("--quick", action="store_true", help="few images, few parts; nothing is written")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    options = parser.parse_args()
    parts = QUICK if options.quick else {name: PARTS[name] for name in options.only or PARTS}
    kept = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    rows = (
        [] if options.quick else kept if options.add or options.render else [r for r in kept if r["part"] not in parts]
    )
    start = time.perf_counter()
    for row in () if options.render else lines(parts, once=options.add or options.quick):
        rows.append(row)
        print(json.dumps(row), flush=True)
        if not options.quick:
            RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if options.quick:
        for name, text in sections(rows).items():
            print(f"\n{name}\n{text}")
        print(f"\n{(time.perf_counter() - start) / 60:.1f} minutes")
        return
    write(rows)


def lines(parts: dict[str, Callable[[], Iterator[dict[str, Any]]]], once: bool) -> Iterator[dict[str, Any]]:
    """Each part's lines, all parts once, then those that have another round."""
    about = {"day": str(datetime.date.today()), "machine": machine()}
    for number in range(1 if once else max(ROUNDS.values())):
        for name, measure in parts.items():
            if once or number < ROUNDS.get(name, 1):
                yield from one_round(name, measure, about)


def one_round(
    name: str, measure: Callable[[], Iterator[dict[str, Any]]], about: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """A part's lines, and how long it took; one that cannot be measured here says so and costs the others nothing."""
    start = time.perf_counter()
    try:
        for row in measure():
            yield {"part": name} | about | row
    except (SystemExit, OSError) as error:
        print(f"{name} was not measured: {str(error).strip().splitlines()[-1]}", file=sys.stderr, flush=True)
    yield {"part": "time"} | about | {"of": name, "minutes": round((time.perf_counter() - start) / 60, 1)}


def write(rows: Rows) -> None:
    """Tables and pictures into the page, each between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    for name, made in sections(rows).items():
        first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(first)
        _, count, after = rest.partition(last)
        text = f"{before}{first}{made}\n{last}{after}" if count else text
        if not count:
            sys.exit(f"{PAGE.name} has no place for {name}: expected a line {first.strip()} and one {last}")
    PAGE.write_text(text, encoding="utf-8")
    if of(rows, "loops"):
        (HERE / "probe.svg").write_text(picture(rows), encoding="utf-8")


def sections(rows: Rows) -> dict[str, str]:
    """Name of each place of the page to what stands there."""
    found = {name: module.section(of(rows, name)) for name, module in SECTIONS.items() if of(rows, name)}
    where = "; ".join(dict.fromkeys(f"{row['machine']}, {row['day']}" for row in rows))
    loads = [row["load"] for row in rows if "load" in row] or ["unknown"]
    took = sum(row["minutes"] for row in of(rows, "time"))
    found["machine"] = f"{where}. Load {min(loads)} to {max(loads)}, {took:.0f} minutes in all."
    if of(rows, "loops"):
        found |= {"share": share(of(rows, "loops")), "craft": craft(of(rows, "loops"))}
    return found | {"goals": goals(rows)}


def of(rows: Rows, part: str) -> Rows:
    """A part's lines."""
    return [row for row in rows if row["part"] == part]


def best(rows: Rows, runner: str) -> dict[str, Any]:
    """The fastest process of a runner."""
    return min((row for row in rows if row["runner"] == runner), key=lambda row: row["seconds"])


def share(rows: Rows) -> str:
    """Seconds of a cold head-only run by what they went into, and their share of the whole process."""
    run = best(rows, "ours, cold")
    phases = {name: seconds for name, seconds in run["phases"].items() if name != "total"}
    lines = {"python, imports of torch and ours, writing JSON": run["seconds"] - run["phases"]["total"]} | phases
    told = [(name, f"{seconds:.1f}", f"{seconds / run['seconds']:.0%}") for name, seconds in lines.items()]
    return table(("part", "seconds", "of the whole process"), [*told, ("whole process", run["seconds"], "")])


def others(rows: Rows) -> float:
    """Share of all but start, loading, frozen pass and training in a cold run."""
    run = best(rows, "ours, cold")
    return sum(run["phases"].get(n, 0.0) for n in ("scan", "baselines", "eval", "save", "report")) / float(
        run["seconds"]
    )


def craft(rows: Rows) -> str:
    """Which part of the ratio would help any loop, and which is not computing again."""
    plain, tuned, cold = (loops.least(rows, name) for name in ("plain", "tuned", "ours, cold"))
    train, test, epochs = (rows[0][name] for name in ("train", "test", "epochs"))
    count = (epochs * train + test) / (train + test)
    return (
        f"Plain to ours is {plain / cold:.1f}: CPU craft {plain / tuned:.1f} (plain to tuned), times "
        f"{tuned / cold:.1f} for what is not computed again (tuned to ours). By counting images the latter could be "
        f"{count:.1f} at most, if nothing else took time."
    )


def goals(rows: Rows) -> str:
    """What was aimed at, what came out, and whether that is met."""
    made = []
    for what, sign, goal, value in GOALS:
        try:
            found = value(rows)
        except (ValueError, KeyError, IndexError):  # a part that was not measured
            made.append((what, f"{sign} {goal:g}", "not measured", ""))
            continue
        met = found >= goal if sign == ">=" else found <= goal
        made.append((what, f"{sign} {goal:g}", f"{found:.3g}", "met" if met else "**missed**"))
    return table(("what", "goal", "measured", ""), made)


def times(part: str, runner: str, key: str = "seconds") -> Callable[[Rows], float]:
    """How many times our cold process a runner takes."""
    return lambda rows: loops.least(of(rows, part), runner, key) / loops.least(of(rows, part), "ours, cold")


def over_limit(rows: Rows) -> float:
    """A cold process as a multiple of the imports and the one pass (decode and frozen forward)."""
    mine = of(rows, "loops")
    return float(
        best(mine, "ours, cold")["seconds"]
        / (loops.least(mine, "imports alone") + best(mine, "ours, cold")["phases"]["prefix"])
    )


def warm_over_imports(rows: Rows) -> float:
    """Seconds of a warm process beside its imports."""
    return loops.least(of(rows, "loops"), "ours, warm") - loops.least(of(rows, "loops"), "imports alone")


def memory(rows: Rows) -> float:
    """Peak of a cold run as a multiple of torch, the model and one batch."""
    mine = of(rows, "loops")
    return float(best(mine, "ours, cold")["peak_mb"] / best(mine, "one batch")["peak_mb"])


def grid(rows: Rows) -> float:
    """A cold sweep as a multiple of a cold run."""
    mine = of(rows, "sweep")
    return float(best(mine, "sweep, cold")["seconds"] / best(mine, "one run, cold")["seconds"])


def growth(key: Callable[[dict[str, Any]], float]) -> Callable[[Rows], float]:
    """A figure of a cold run at the most images, as a multiple of that at the fewest."""

    def found(rows: Rows) -> float:
        cold = sorted((r for r in of(rows, "scale") if r["state"] == "cold"), key=lambda r: r["images"])
        return key(cold[-1]) / key(cold[:-1][0])

    return found


def ahead(part: str, figure: str) -> Callable[[Rows], float]:
    """Ours less the plain loop's, means over seeds."""

    def found(rows: Rows) -> float:
        ours, theirs = ([r[figure] for r in of(rows, part) if r["runner"] == who] for who in ("ours", "plain loop"))
        return statistics.mean(ours) - statistics.mean(theirs)

    return found


GOALS: tuple[tuple[str, str, float, Callable[[Rows], float]], ...] = (
    ("probe, 20 epochs: plain loop, times ours cold", ">=", 40, times("loops", "plain")),
    ("probe, 20 epochs: tuned loop, times ours cold", ">=", 10, times("loops", "tuned")),
    ("probe: plain loop with one epoch, times ours cold with 20", ">=", 2, times("loops", "plain", "one_epoch")),
    ("cold process, times imports and the one pass", "<=", 1.25, over_limit),
    ("warm process over imports, seconds", "<=", 3, warm_over_imports),
    ("last 2 stages, 20 epochs: plain loop, times ours cold", ">=", 4, times("partial", "plain")),
    ("125 models, times one cold run", "<=", 1.5, grid),
    ("seconds an image, most images against fewest", "<=", 1.1, growth(lambda r: r["phases"]["total"] / r["images"])),
    ("peak memory, most images against fewest", "<=", 1.1, growth(lambda r: r["peak_mb"])),
    ("peak memory on 2,624 images, times torch, model and one batch", "<=", 1.5, memory),
    (
        "scan, baselines, evaluation, saving and report, share of a cold run",
        "<=",
        0.15,
        lambda r: others(of(r, "loops")),
    ),
    ("probe: ROC AUC, ours less the plain loop's", ">=", 0, ahead("accuracy", "auroc")),
    (
        "last 2 stages: accuracy, ours less the plain loop's (test side: 0.03 either way)",
        ">=",
        -0.03,
        ahead("accuracy of partial", "accuracy"),
    ),
)
"""What, how, goal, measured."""


def picture(rows: Rows) -> str:
    """Bars of the whole set's probe, seconds for 20 epochs."""
    mine = of(rows, "loops")
    names = {"plain": "plain loop", "tuned": "tuned loop", "ours, cold": "ours, cold", "ours, warm": "ours, warm"}
    title = "A linear probe, 20 epochs on 1,968 images: seconds, whole process"
    return bars(title, "s", {label: loops.least(mine, runner) for runner, label in names.items()})


if __name__ == "__main__":
    main()
