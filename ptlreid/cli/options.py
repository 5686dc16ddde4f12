"""Options generated from settings: every field of a command's model is an option, with its help, default and range.

    @from_settings(FinetuneSettings, recipe=True)
    def finetune(settings: FinetuneSettings, *, name: Name = None, json: Json = False) -> None: ...

The command gets the validated settings and its own parameters, which Typer parses as usual. An option that is not given
is None, so that recipe, file or model set its value. A new option is a new field of the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic.fields import FieldInfo

from ptlreid.errors import OptionError
from ptlreid.progress import Progress
from ptlreid.settings import DataSettings, GraphSettings, Settings
from ptlreid.settings.fields import Kind, find_kind, find_option

if TYPE_CHECKING:
    from ptlreid.runs import RunFolder

S = TypeVar("S", bound=Settings)

MORE = "More settings"
ALL_OPTIONS = "ptlreid.all_options"  # in a context's `meta`: --help-all was given
_LONGEST_CHOICES = 34  # characters, to fit the column of a help page

Runs = Annotated[Path, typer.Option("--runs", envvar="PTLREID_RUNS", metavar="DIR", help="Folder of the runs.")]
Model = Annotated[Path | None, typer.Option("--model", metavar="FILE", help="ONNX model of any program.")]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Run folder.", show_default="data-backbone-method-seed"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run, without running it.")]


def _show_all(ctx: typer.Context, requested: bool) -> None:
    if requested:
        ctx.meta[ALL_OPTIONS] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


_CONFIG = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file of settings; options override it.")
]
_RECIPE = Annotated[
    str | None,
    typer.Option("--recipe", metavar="NAME", help="Named settings; see `ptlreid recipes`."),
]
_VERIFY = Annotated[bool, typer.Option("--verify", help="Do not trust the index of image digests.")]
_HELP_ALL = Annotated[
    bool, typer.Option("--help-all", help="Show every setting and exit.", is_eager=True, callback=_show_all)
]


@dataclass(frozen=True)
class Given:
    """The settings given to a command. `origins`: what messages call each of them, such as `--metric cos`."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    config: Path | None
    recipe: str | None

    def resolve(self, model: type[S], *, config: bool = True, progress: Progress | None = None, **more: Any) -> S:
        """The settings of one model, with `more` values. `config`: whether to read the --config file.

        `progress` gets a note if a recipe applies that was not named.

        Raises `OptionError` for a device that is not available.
        """
        values = {name: value for name, value in self.values.items() if name in model.model_fields}
        origins = {name: self.origins[name] for name in values}
        file = self.config if config else None
        settings = model.resolve(file, recipe=self.recipe, origins=origins, progress=progress, **(values | more))
        if getattr(settings, "device", "cpu") not in ("auto", "cpu"):
            from ptlreid.devices import choose_device  # torch

            choose_device(settings.device)  # type: ignore[attr-defined]  # before any work, and if none needs it
        return settings


def find_source(run: str | None, model: Path | None, runs: Path, given: Given) -> RunFolder:
    """The run, or the ONNX model that is given instead; `OptionError` for settings of models without one."""
    if model is not None:
        from ptlreid.models.graph_folder import find_model

        return find_model(runs, model, given.resolve(GraphSettings, config=False), _reporter())
    from ptlreid.runs import find_run

    if any(name in given.values for name in GraphSettings.model_fields):
        refuse_graph_settings(given)
    return find_run(runs, run or "")


def refuse_graph_settings(given: Given) -> None:
    """Raise `OptionError` for settings of models, where there is none."""
    options = [given.origins[name].split()[0] for name in GraphSettings.model_fields if name in given.values]
    if options:
        raise OptionError(f"{', '.join(options)}: for a --model only. Leave it out.")


def from_settings(
    *models: type[Settings], config: bool = True, recipe: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that adds the settings of these models as options, and --config and --recipe as requested.

    The first parameter of the command receives them: resolved if it is called `settings`; as a `Given`, to be resolved
    by the command, if it is called `given`. If models share a setting's name, the first model's option is shown. In
    help, parameters before the `*` of the command come first, the others after its common settings.
    """
    fields = {
        name: (model, field)
        for model in reversed(models)
        for name, field in model.model_fields.items()
        if find_kind(field) and name not in model.NO_OPTION
    }
    shared: dict[str, Any] = ({"config": _CONFIG} if config else {}) | ({"recipe": _RECIPE} if recipe else {})
    shared |= {"verify": _VERIFY} if any(issubclass(model, DataSettings) for model in models) else {}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        first, *own = inspect.signature(command, eval_str=True).parameters.values()
        names = {parameter.name for parameter in own}
        assert not names & set(fields), f"{command.__name__} has a parameter with a setting's name"

        @wraps(command)
        def run(ctx: typer.Context, **arguments: Any) -> None:
            given = _read(ctx, {name: field for name, (_, field) in fields.items()}, arguments)
            rest = {name: value for name, value in arguments.items() if name in names}
            settings = given if first.name == "given" else given.resolve(models[0], progress=_reporter())
            with _verify_images() if arguments.get("verify") else nullcontext():
                command(settings, **rest)

        parameters = [
            inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *_order(fields, own, shared),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def _reporter() -> Progress:
    from ptlreid.cli import console

    return console.Reporter()


def _verify_images() -> AbstractContextManager[None]:
    """A context in which no image digest is read from a dataset's index: see `contents`."""
    from ptlreid import contents
    from ptlreid.cli import console

    return contents.verify_all(console.Reporter())


def _order(
    fields: Mapping[str, tuple[type[Settings], FieldInfo]], own: list[inspect.Parameter], shared: Mapping[str, Any]
) -> list[inspect.Parameter]:
    """The parameters as help shows them: common settings among the command's own options, then all other settings."""
    options = {
        name: _keyword(name, _option(name, field, model.SHOWN_DEFAULTS.get(name)))
        for name, (model, field) in fields.items()
    }
    common = [name for name, (_, field) in fields.items() if find_option(field).common]
    place = [name for name in common if find_option(fields[name][1]).machine]
    more = [options[name] for name in fields if name not in common]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        *(one.replace(kind=keyword) for one in own if one.kind is not keyword),
        *(options[name] for name in common if name not in place),
        *(_keyword(name, annotation) for name, annotation in shared.items() if name != "verify"),
        *(options[name] for name in place),
        *(one for one in own if one.kind is keyword),
        *([_keyword("verify", _VERIFY).replace(default=False)] if "verify" in shared else []),
        *more,
        *([_keyword("help_all", _HELP_ALL).replace(default=False)] if more else []),
    ]


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _option(name: str, field: FieldInfo, default: str | None) -> Any:
    """The Typer option of one setting. `default`: the text in help, if not the field's."""
    kind, option = find_kind(field), find_option(field)
    assert kind is not None
    flag = "--" + (field.alias or name).replace("_", "-")
    flags = f"{flag}/--no-{flag[2:]}" if kind.type is bool else flag
    info = typer.Option(
        flags,
        help=field.description,
        metavar=None if kind.type is bool else option.metavar or _metavar(kind),
        envvar=option.env,
        show_default=default or option.default or _default(field.default),
        rich_help_panel=None if option.common else option.panel or MORE,
        autocompletion=(lambda incomplete: [one for one in kind.choices if one.startswith(incomplete)])
        if kind.choices
        else None,
    )
    # Typer only parses numbers; the settings validate values, wherever they come from.
    return Annotated[list[str] | None if kind.many else kind.type | None, info]


def _metavar(kind: Kind) -> str:
    """The placeholder of an option's value in help: its choices, or its type and range."""
    choices = f"[{'|'.join(kind.choices)}]"
    if kind.choices and len(choices) <= _LONGEST_CHOICES:
        return choices
    word = {int: "INT", float: "FLOAT"}.get(kind.type, "NAME" if kind.choices else "TEXT")
    return f"{word},..." if kind.many else f"{word} {kind.limits}".rstrip()


def _default(value: Any) -> str | bool:
    """A field's default as help shows it; False for none."""
    if value is None or value == []:
        return False
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _read(ctx: typer.Context, fields: Mapping[str, FieldInfo], arguments: Mapping[str, Any]) -> Given:
    """The settings among the `arguments` of a command, with their names in messages."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, field in fields.items():
        if (value := arguments[name]) is None or value == []:
            continue
        kind, option = find_kind(field), find_option(field)
        assert kind is not None
        shown = ",".join(value) if kind.many else value
        values[name] = [_number(part, kind.type) for part in shown.split(",") if part] if kind.many else value
        flag = "--" + (field.alias or name).replace("_", "-")
        source = ctx.get_parameter_source(name)
        if option.env and source is not None and source.name == "ENVIRONMENT":
            origins[name] = f"environment variable {option.env} = {shown!r}"
        elif kind.type is bool:
            origins[name] = flag if value else f"--no-{flag[2:]}"
        else:
            origins[name] = f"{flag} {shown}"
    return Given(values, origins, arguments.get("config"), arguments.get("recipe"))


def _number(text: str, kind: type) -> Any:
    """An item of a list as a number, or unchanged if it is none: the settings then report what was expected."""
    try:
        return kind(text)
    except ValueError:
        return text
