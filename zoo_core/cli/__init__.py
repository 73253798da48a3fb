"""The command line: a table of commands, each imported when it is asked for."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import Any

import click

from zoo_core.errors import UsageError, ZooError, near, printable

COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("registry", "List backbones."),
    "ls": ("registry", "List backbones (short for list)."),
    "show": ("registry", "Show one backbone's card."),
    "register": ("register", "Add a backbone of your own: a weights file, a folder, a run."),
    "unregister": ("register", "Remove a backbone that you registered."),
    "pull": ("carry", "Download a backbone's weights."),
    "verify": ("carry", "Read weights again and compare their digests."),
    "bundle": ("carry", "Carry backbones to a machine without network."),
    "plugins": ("plugins", "Show installed plugins, and what is wrong with broken ones."),
    "strategies": ("plugins", "Show freeze strategies, heads and regimes with their options."),
    "audit": ("audit", "Look at every image of a data set and say what is in it."),
    "plan": ("plan", "Show what finetune would do, stage by stage, and how long it would take."),
    "compare": ("compare", "Which backbone suits the data? Cheap scores, then the best few fine-tuned."),
    "probe": ("probe", "Try many heads, rates and seeds on the frozen features of one pass."),
    "finetune": ("train", "Fine-tune a backbone on labelled images."),
    "eval": ("use", "Score a run on labelled images."),
    "predict": ("use", "Predict images with a run."),
    "chat": ("chat", "Talk with a chat model that a run made."),
    "export": ("export", "Write a run for another library: ONNX, timm, transformers, torch."),
    "cache": ("cache", "List, verify and prune what is kept on this machine."),
    "runs": ("use", "List and show runs."),
    "report": ("report", "Make a run's page again, and open it."),
    "demo": ("demo", "Images, texts or sounds, start to end."),
    "doctor": ("doctor", "Check this installation."),
}
"""Command to (module of this package, one-line help)."""


class Commands(click.Group):
    """A group that imports a command's module only when that command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if name != "ls"]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"zoo_core.cli.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, f"{'list' if name == 'ls' else name}_command")
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = near(args[0], COMMANDS)
            raise click.UsageError(f"no command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table alone, so that `zoo --help` imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zoo-core", prog_name="zoo")
@click.option("-q", "--quiet", is_flag=True, help="Results and errors only: no progress, no remarks.")
@click.option("-v", "--verbose", is_flag=True, help="The traceback of an error, too.")
def cli(quiet: bool, verbose: bool) -> None:
    """Fine-tune a pretrained model on your own data, with the evidence for every choice.

    \b
    Examples:
      zoo list lite
      zoo finetune photos/ -b cnn/tf_efficientnet_lite0.in1k --freeze last:2
      zoo predict runs/photos-last-1a2b3c4d more_photos/
    """
    os.environ |= {name: "1" for name, given in (("ZOO_QUIET", quiet), ("ZOO_VERBOSE", verbose)) if given}


def main() -> None:
    """Run the command line. Exit code 0, 1 for a failure, 2 for a mistake in what was asked, 130 for Ctrl-C."""
    # torch's threads spin while they wait for one another: beside other work on the same cores that made a run
    # five times slower (54 s against 10 s), and on a quiet machine it gains nothing here. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    gc.set_threshold(50_000)  # cards are many small objects, none of them garbage: a tenth of `zoo list` was collection
    try:
        code = cli.main(prog_name="zoo", standalone_mode=False, auto_envvar_prefix="ZOO")
    except click.exceptions.Abort:
        _fail("stopped.", 130)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "zoo"
        _fail(f"{error.format_message()} Type '{command} --help'.", 2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except UsageError as error:
        _fail(str(error), error.exit_code)
    except ZooError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped.", 130)
    except MemoryError:
        _fail("this machine's memory is full. Close something, or give a smaller --batch-size or backbone.", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    if os.environ.get("ZOO_VERBOSE"):
        import traceback

        traceback.print_exc()
    print("zoo: " + printable(" ".join(message.split())), file=sys.stderr)
    sys.exit(code)
