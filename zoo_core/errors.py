"""Every mistake a user can make, one class each. The command line prints `str(error)` as one line.

A message says what was given, what was expected, and ends with what to type next.
"""

from __future__ import annotations

from collections.abc import Iterable


class ZooError(Exception):
    """Base of all errors that `zoo` raises on purpose; `exit_code` is the command line's."""

    exit_code = 1


class UsageError(ZooError):
    """What was asked cannot be understood (exit code 2)."""

    exit_code = 2


class UnknownBackbone(UsageError):
    """No card of that name in any layer of the registry."""


class UnknownStrategy(UsageError):
    """No freeze strategy, head or regime of that name, or a field it does not have."""


class AmbiguousName(UsageError):
    """Two installed packages supply the same name."""


class BadOption(UsageError):
    """An option or recipe value of the wrong type or outside its range."""


class BadRecipe(UsageError):
    """A recipe file that cannot be read, or that has unknown fields."""


class BadStage(UsageError):
    """A depth or stage name that the backbone does not have."""


class RunExists(UsageError):
    """The output folder is already there."""


class RunNotFound(UsageError):
    """No finished run in that folder."""


class ResumeRefused(UsageError):
    """An unfinished run that cannot be gone on with: another recipe, other data or weights, or nothing was kept."""


class NoData(UsageError):
    """The data path is missing, or holds no example."""


class BadManifest(UsageError):
    """A table or shard without the columns, damaged, or with rows that cannot be used."""


class OldDataMissing(UsageError):
    """A regime needs the old task's data or model, and there is none."""


class LabelClash(UsageError):
    """Labels of an old and a new task do not fit into one label space."""


class TooMuchForgotten(ZooError):
    """A finished run lost more of the old task than `--max-forgetting` allows."""


class TooFewExamples(ZooError):
    """One class only, or a class too small to be split."""


class BadExample(ZooError):
    """A file that cannot be read as the image, text or sound that it should be."""


class ExampleLost(BadExample):
    """A file that could be read when the run began, and cannot be read now, or has another content."""


class BadImage(BadExample):
    """An image that cannot be decoded."""


class BadText(BadExample):
    """A text that is empty or no UTF-8."""


class BadSound(BadExample):
    """A sound that is empty, too long, or cannot be decoded."""


class MissingExtra(ZooError):
    """An optional package that this kind of file needs is not installed."""


class DiskFull(ZooError):
    """A file cannot be written: no space, or no permission."""


class DeviceFull(ZooError):
    """A device's memory has no room for one example, or for a batch that may not be cut."""


class ClosedModel(ZooError):
    """A card lists a model whose weights nobody can load; its fields say what is missing and what is open instead."""


class PullFailed(ZooError):
    """The hub did not give a file: gated, not there, or not reachable."""


class NotOnHub(PullFailed):
    """A repository of the hub has no file of that name."""


class LinkRefused(ZooError):
    """A file of a store or a bundle that is a link to somewhere else."""


class NotAModelFolder(UsageError):
    """A folder in which no known layout of weights and configuration is found."""


class BadBundle(ZooError):
    """A folder that `zoo bundle` did not write, or that has changed since."""


class CardExists(UsageError):
    """The registry's layer has an entry of that name already."""


class BadCard(ZooError):
    """A registry entry that does not fit the schema."""


class BadJson(ZooError):
    """A JSON file that is not strict JSON (duplicate keys, NaN, too large, too deep)."""


class WeightsMissing(ZooError):
    """None of the card's weight sources is on this machine."""


class DigestMismatch(ZooError):
    """A file is not the file that its card or name promises."""


class WeightsMismatch(ZooError):
    """Weights whose names or shapes do not fit the architecture."""


class UnstagedTensor(ZooError):
    """A parameter or buffer that belongs to no stage, or to two."""


class NotAChain(ZooError):
    """A model that cannot be cut into stages, with the reason."""


class BadPluginName(UsageError):
    """A name that a new plugin cannot have."""


class FolderExists(UsageError):
    """The folder of a new plugin, or of a bundle, is already there."""


class PluginBroken(ZooError):
    """What was asked for is supplied by a plugin that failed to load."""


class NotExportable(UsageError):
    """A run that has no such form: another library's models cannot hold its head, or read its kind of example."""


class ExportFailed(ZooError):
    """An export answers differently from its run, or has changed since."""


class FreezeBroken(ZooError):
    """A frozen stage changed during training: never expected, never ignored."""


class RunDamaged(ZooError):
    """A run folder whose files contradict one another."""


class TrainingFailed(ZooError):
    """Training produced numbers that are not finite."""


class Collapsed(TrainingFailed):
    """Training went wrong in a way that a smaller learning rate may mend; `sign` is what was seen.

    `rows` are the examples of the batch where it was seen, if it was one.
    """

    def __init__(self, sign: str, lr: float, rows: Iterable[str] = ()):
        self.sign, self.lr, self.rows = sign, lr, tuple(rows)
        super().__init__(f"{sign} at learning rate {lr:g}. Try --lr {lr / 3:.2g}")


def shown(value: object) -> str:
    """A value from a file as one short line, for messages: control characters escaped, long ones cut in the middle.

    >>> shown("\x1b[2J" + "a" * 2000)[:12]
    "'\\x1b[2Jaaaa"
    """
    import reprlib

    short = reprlib.Repr()
    short.maxstring = short.maxother = 100
    try:
        return short.repr(value)
    except ValueError:  # an integer of over 4,300 digits
        return f"an endless {type(value).__name__}"


def printable(text: str) -> str:
    """Text from a file for a terminal: what would move the cursor or turn the line around is escaped.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def near(name: str, names: Iterable[str]) -> str:
    """`Did you mean ...?` with at most three near names, or nothing.

    >>> near("linaer", ["linear", "mlp"])
    'Did you mean linear?'
    """
    import difflib

    found = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(found)}?" if found else ""
