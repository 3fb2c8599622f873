"""The pages of the documentation that are made from the code: the command line, the configuration, the presets.

A page has a place `<!-- generated: NAME -->...<!-- end -->`, which `fill` replaces when the site is built, so nothing
of it is written twice. Verbs are asked for their settings by calling them with --help while tyro's parser is replaced
by one that takes notes; fields, types and defaults are those of the dataclasses, and the text of a field is the
docstring under it, which is its `--help` text as well.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import tomli_w
from contents import contents, measured
from tyro.conf import Fixed, FlagCreatePairsOff, Positional

from electra.cli import VERBS, help_text
from electra.cli.launching import LAUNCHERS
from electra.config import FinetuneConfig, PhaseConfig, PretrainConfig, TaskConfig
from electra.presets import PRESETS
from electra.toml import to_dict

PAGES = ["docs/index", "docs/results", "docs/cli", "docs/configuration", "docs/presets"]


def fill(page: str) -> str:
    """The text of a page with its generated parts; the navigation of the site is one (contents.py)."""
    parts = {"cli": cli, "configuration": configuration, "presets": presets, "contents": contents, "measured": measured}
    return re.sub(r"<!-- generated: (\w+) -->.*?<!-- end -->", lambda found: parts[found[1]](), page, flags=re.DOTALL)


# ------------------------------------------------------------------------------------------- fields of dataclasses


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of a settings class, as the command line and a file know it."""

    section: str
    """Name of the dataclass within the verb's own that it belongs to; empty: none."""
    name: str
    kind: Any
    """Its annotation, without what tyro reads from it."""
    default: Any
    """dataclasses.MISSING if it has to be given."""
    text: str
    positional: bool

    def flags(self, pairs: bool = True) -> list[str]:
        """What is typed: the name of a place, --NAME, or for a switch --NAME and, in `pairs`, --no-NAME."""
        if self.positional:
            return [self.name.upper()]
        flag = f"--{self.name.replace('_', '-')}"
        return [flag, flag.replace("--", "--no-", 1)] if self.kind is bool and pairs else [flag]


def docstrings(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def settings(kind: type, base: Any = None, section: str = "") -> Iterator[Setting]:
    """The fields of a dataclass and of those within it; defaults are those of `base` if there is one."""
    hints, texts = typing.get_type_hints(kind, include_extras=True), docstrings(kind)
    for field in dataclasses.fields(kind):
        marks = getattr(hints[field.name], "__metadata__", ())
        plain = hints[field.name].__origin__ if marks else hints[field.name]
        default = _default(field) if base is None else getattr(base, field.name)
        if dataclasses.is_dataclass(plain):
            yield from settings(plain, None if base is None else default, field.name)
        elif Fixed not in marks:
            yield Setting(section, field.name, plain, default, texts.get(field.name, ""), Positional in marks)


def sections(found: Iterable[Setting]) -> Iterator[tuple[str, Iterator[Setting]]]:
    """Settings by section, those without one first."""
    return itertools.groupby(sorted(found, key=lambda setting: setting.section != ""), lambda setting: setting.section)


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _words(kind: Any) -> str:
    """A type as it is typed on the command line."""
    if kind == Path | str:  # a Location
        return "PATH|URL"
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if origin is tuple:
        return f"{_words(inner[0])} [{_words(inner[0])} ...]"
    if origin in (types.UnionType, typing.Union):
        (kept,) = (part for part in inner if part is not type(None))
        return "{True,False}" if kept is bool else _words(kept)
    return {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", bool: "{True,False}"}[kind]


def _toml(kind: Any) -> str:
    """A type as a TOML file has it."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " or ".join(f'`"{choice}"`' for choice in inner)
    if origin is tuple:
        return f"list of {_toml(inner[0])}s"
    if origin in (types.UnionType, typing.Union):
        return _toml(next(part for part in inner if part is not type(None)))
    return {int: "integer", float: "number", str: "string", Path: "string", bool: "`true` or `false`"}[kind]


def _shown(value: Any) -> str:
    """A default as it would be typed; empty for those that stand for nothing."""
    if value in (None, dataclasses.MISSING, "", (), Path()):
        return ""
    return " ".join(map(str, value)) if isinstance(value, tuple) else f"{value}"


# ---------------------------------------------------------------------------------------------------- the command line


@dataclasses.dataclass(frozen=True)
class Verb:
    """What a verb told its parser."""

    command: str
    kind: type
    usage: str
    example: str
    default: Any
    pairs: bool
    """Whether a switch --NAME has its --no-NAME."""


class _Noted(Exception):
    pass


def verbs() -> list[Verb]:
    """Every verb; `launch` has one for each kind of place."""
    launchers = {f"launch {name}": launcher for name, launcher in LAUNCHERS.items()}
    calls = {name: verb for name, verb in VERBS.items() if name != "launch"} | launchers
    return [_ask(name, call) for name, call in calls.items()]


def _ask(name: str, call: Any) -> Verb:
    def note(kind: type, *, prog: str, description: str, config: Any, default: Any = None, **_: Any) -> None:
        raise _Noted(kind, prog, description, default, FlagCreatePairsOff not in config)

    with mock.patch("tyro.cli", note):
        try:
            call(["--help"])
        except _Noted as noted:
            kind, usage, description, default, pairs = noted.args
            example = description.split("Example: ", 1)[1]
            return Verb(name, kind, usage, example, default if dataclasses.is_dataclass(default) else None, pairs)
    raise AssertionError(f"{name} --help parses nothing")


def cli() -> str:
    """Every verb with its arguments and flags."""
    parts = [f"```text\n{help_text()}\n```"]
    for verb in verbs():
        commands, _, remark = verb.example.partition("\n")
        commands, _, more = commands.partition(" (")
        remark = f"{remark} {more.removesuffix(')')}".strip()
        sentence = inspect.cleandoc(verb.kind.__doc__ or "")
        parts += [f"## electra {verb.command}", sentence, "```sh\n" + "\n".join(commands.split("    or    ")) + "\n```"]
        if verb.usage != f"electra {verb.command}":  # arguments that no dataclass knows
            parts.append(f"Usage: `{verb.usage} ...`")
        parts += [_escaped(remark[:1].upper() + remark[1:]), f"```{{program}} electra {verb.command}\n```"]
        for section, group in sections(settings(verb.kind, verb.default)):
            if section:
                parts.append(f"### {section} ({verb.command})")
            parts += [_option(setting, verb.pairs) for setting in group]
    return "\n\n".join(parts)


def _option(setting: Setting, pairs: bool) -> str:
    flags = ", ".join(setting.flags(pairs)) + ("" if setting.kind is bool else f" {_words(setting.kind)}")
    remark = ""
    if setting.default is dataclasses.MISSING:
        remark = "Required."
    elif setting.kind is bool:
        remark = "On by default." if setting.default else ""
    elif shown := _shown(setting.default):
        remark = f"Default: `{shown}`."
    return f"````{{option}} {flags}\n{_escaped(setting.text)} {remark}\n````"


def _escaped(text: str) -> str:
    """Docstrings are Markdown, except that [UNK] is no link, and that a flag is code without being marked."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"(?<![\w-])--[a-z][a-z0-9-]*", r"`\g<0>`", part.replace("[", "\\[")) for part in parts[::2]]
    return "`".join(parts)


# --------------------------------------------------------------------------------------------------- the configuration


def configuration() -> str:
    """The keys of the files that --config and --task read."""
    parts = ["## Pre-training", "`electra pretrain --config FILE`, and `config.toml` in a run folder."]
    parts += _keys(PretrainConfig)
    parts += ["### \\[\\[phases\\]\\]", inspect.cleandoc(PhaseConfig.__doc__ or "")]
    parts += [_key(setting, "phases.") for setting in settings(PhaseConfig)]
    parts += ["## Fine-tuning", "`electra finetune --config FILE`, and `config.toml` in the folder of a fine-tuning."]
    parts += _keys(FinetuneConfig, index=False)
    parts += ["## A task of one's own", "`electra finetune --task FILE.toml`."]
    parts += [_key(setting, "", index=False) for setting in settings(TaskConfig)]
    return "\n\n".join(parts)


def _keys(kind: type, index: bool = True) -> list[str]:
    parts = []
    hints = typing.get_type_hints(kind)
    for section, group in sections(settings(kind)):
        if section:
            parts += [f"### \\[{section}\\]", inspect.cleandoc(hints[section].__doc__ or "")]
        parts += [_key(setting, f"{section}." if section else "", index) for setting in group]
    return parts


def _key(setting: Setting, prefix: str, index: bool = True) -> str:
    value = setting.default
    lines = [f"````{{confval}} {prefix}{setting.name}", ":no-contents-entry:"]
    if not index:  # the name is that of a key of the file before it
        lines.append(":no-index:")
    kind = _toml(setting.kind)
    if value is dataclasses.MISSING:
        kind += ", has to be given"
    elif value is not None:
        plain = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        kind += f", default `{tomli_w.dumps({'x': plain}).removeprefix('x = ').strip()}`"
    return "\n".join([*lines, "", f"{kind[:1].upper()}{kind[1:]}. {_escaped(setting.text)}", "````"])


# ------------------------------------------------------------------------------------------------------------- presets


def presets() -> str:
    """A table of all presets, and of each its source and what it sets."""
    lines = [
        "| preset | layers x width | generator | rows x tokens | steps | optimizer, rate |",
        "|---|---|---|---|---|---|",
    ]
    details = []
    for number, (name, make) in enumerate(PRESETS.items()):
        config = make()
        model, loop = config.model, config.loop
        plan = [(loop.batch_size, config.rows.seq_len)]
        if config.phases:
            plan = [(part.batch_size or plan[0][0], part.seq_len or plan[0][1]) for part in config.phases]
        rate = config.optimizer.learning_rate
        if config.optimizer.optimizer == "muon":
            rate = config.optimizer.muon_learning_rate
        cells = [
            f"[`{name}`](#preset-{number})",
            f"{model.num_layers} x {model.hidden_size}",
            f"{model.num_layers * model.generator_depth:g} x {round(model.hidden_size * model.generator_width)}",
            ", ".join(f"{rows:,} x {length}" for rows, length in plan),
            " + ".join(f"{part.steps:,}" for part in config.phases) or f"{loop.steps:,}",
            f"{config.optimizer.optimizer} {rate:g}",
        ]
        lines.append("| " + " | ".join(map(_unbroken, cells)) + " |")
        details += [
            f"(preset-{number})=\n## {name}",
            inspect.cleandoc(make.__doc__ or "").replace("<", "\\<"),
            _differences(config),
        ]
    return "\n".join(lines) + "\n\n" + "\n\n".join(details)


def _unbroken(cell: str) -> str:
    """A line of a table's cell ends after commas only."""
    return cell.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")


def _differences(config: PretrainConfig) -> str:
    """What a preset sets, as a file; what is not there has its default, as in `electra-small`."""
    default, values = to_dict(PretrainConfig()), to_dict(config)
    changed: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            value = {key: part for key, part in value.items() if part != default[name][key]}
            if value:
                changed[name] = value
    phase = to_dict(PhaseConfig(steps=1))
    changed_phases = [
        {key: part for key, part in each.items() if key == "steps" or part != phase[key]} for each in values["phases"]
    ]
    if changed_phases:
        changed["phases"] = changed_phases
    return f"```toml\n{tomli_w.dumps(changed).strip()}\n```" if changed else "Every key has its default."
