"""A command of the command line: a short and a full help page, and errors as one message with an exit code."""

from __future__ import annotations

import inspect
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

import typer
from typer.core import TyperCommand

from ptlreid import distributed
from ptlreid.cli import console
from ptlreid.cli.options import ALL_OPTIONS
from ptlreid.errors import PtlreidError, Stopped, is_out_of_memory
from ptlreid.settings.base import RENAMED


class Command(TyperCommand):
    """A command whose --help shows the common options and whose --help-all shows every setting."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`[OPTIONS]`, then the arguments."""
        arguments = [param for param in self.get_params(ctx) if param.param_type_name == "argument"]
        return ["[OPTIONS]", *(metavar(one) if one.required else f"[{metavar(one)}]" for one in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and options by heading; only --help-all shows options under other headings."""
        shown = [param for param in self.get_params(ctx) if not getattr(param, "hidden", False)]
        for heading, params in group_params(shown).items():
            if heading in ("Arguments", "Options") or ctx.meta.get(ALL_OPTIONS):
                # The heading explains the brackets, so that most options fit on one line.
                with formatter.section("Options [and their defaults]" if heading == "Options" else heading):
                    formatter.write_dl([(_first_column(param), describe_param(param)) for param in params], col_max=28)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reject an option of version 0.1 that was renamed, with its new name."""
        options = {flag for param in self.params for flag in param.opts}
        for word in args:
            new = RENAMED.get(word.partition("=")[0].removeprefix("--").replace("-", "_"), "").replace("_", "-")
            if word.startswith("--") and f"--{new}" in options:
                ctx.fail(f"{word.partition('=')[0]} was renamed in version 0.2: use --{new} instead.")
        return super().parse_args(ctx, args)


def group_params(params: Iterable[Any]) -> dict[str, list[Any]]:
    """The parameters by the heading under which help lists them."""
    groups: dict[str, list[Any]] = {}
    for param in params:
        kind = "Arguments" if param.param_type_name == "argument" else "Options"
        groups.setdefault(getattr(param, "rich_help_panel", None) or kind, []).append(param)
    return {name: groups[name] for name in sorted(groups, key=lambda name: (name != "Arguments", name != "Options"))}


def describe_param(param: Any) -> str:
    """The help of a parameter, with its default and its environment variable in brackets."""
    notes = [note for note in (default_text(param), f"${param.envvar}" if param.envvar else "") if note]
    return " ".join([param.help or "", *([f"[{'; '.join(notes)}]"] if notes else [])])


def default_text(param: Any) -> str:
    """The default of a parameter as text; empty for none."""
    if isinstance(param.show_default, str):
        return str(param.show_default)
    if param.default is None or isinstance(param.default, bool):
        return ""
    return str(param.default)


def metavar(param: Any) -> str:
    """The placeholder of an option's value or of an argument: `TEXT`, `[euclidean|cosine]`; empty for a switch."""
    if param.param_type_name == "argument":
        return str(param.metavar or param.name.upper())
    return "" if param.is_flag else str(param.metavar or "TEXT")


def _first_column(param: Any) -> str:
    if param.param_type_name == "argument":
        return metavar(param)
    if param.secondary_opts:
        return f"--[no-]{param.opts[0].removeprefix('--')}"
    return f"{', '.join(sorted(param.opts, key=len))} {metavar(param)}".rstrip()


def build_command(name: str, function: Callable[..., None]) -> TyperCommand:
    """The command called `name`; its docstring is its help, with the part after "Examples:" at the end."""
    text, _, examples = inspect.cleandoc(function.__doc__ or "").partition("\n\nExamples:\n")
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(
        name,
        cls=Command,
        help=text,
        epilog=f"\b\nExamples:\n{examples}" if examples else None,
    )(_report_errors(function))
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand)
    return command


def _report_errors(function: Callable[..., None]) -> Callable[..., None]:
    """The command with errors and interruptions reported as one message with an exit code."""

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except Stopped as stop:
            console.show_error(f"{stop} To resume: {_command_line()}")
            raise typer.Exit(stop.code) from None
        except PtlreidError as error:
            if distributed.is_main() or not error.on_all:
                console.show_error(str(error))
            raise typer.Exit(1) from None
        except (OSError, RuntimeError, ImportError, MemoryError) as error:
            if is_out_of_memory(error):
                console.show_error(_describe_lack_of_memory(error, options))
            elif isinstance(error, OSError):
                reason = (
                    f"{error.filename or 'a file'}: {error.strerror or error}. Check permissions and free disk space"
                )
                console.show_error(f"{reason}, then run the same command again: {_command_line()}")
            else:
                raise
            raise typer.Exit(1) from None
        except KeyboardInterrupt as stop:
            code = 128 + (stop.args[0] if stop.args else signal.SIGINT)
            console.show_error(f"stopped. To resume: {_command_line()}")
            raise typer.Exit(code) from None

    return run


def _describe_lack_of_memory(error: BaseException, options: Mapping[str, Any]) -> str:
    """The message, with the options of the command that reduce what it needs."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    remedies = {
        "batch_size": "a smaller --batch-size",
        "accumulate": "more --accumulate for as many images per update",
        "memory_budget": "a smaller --memory-budget",
        "workers": "fewer --workers",
    }
    shown = [text for name, text in remedies.items() if name in options] or ["a machine with more memory"]
    estimate = " --dry-run estimates what is needed." if options.get("dry_run") is False else ""
    return (
        f"out of memory ({reason}): expected more free memory. Choose {' or '.join(shown)}, and run the command "
        f"again: completed work is kept.{estimate}"
    )


def _command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["ptlreid", *sys.argv[1:]])
