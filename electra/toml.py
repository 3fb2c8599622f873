"""Configurations as TOML, both ways, and where two of them differ.

Works on any frozen dataclass of `config.py`: sections are nested dataclasses, and every value is checked against its
annotation, so that a mistake in a file ends in one sentence that names file and key.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w

from electra.files import atomic_file

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain values that TOML can hold; None is left out."""
    out: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            out[item.name] = to_dict(value)
        elif isinstance(value, Path):
            out[item.name] = str(value)
        elif isinstance(value, tuple):
            out[item.name] = [to_dict(part) if dataclasses.is_dataclass(part) else part for part in value]
        elif value is not None:
            out[item.name] = value
    return out


def from_dict(kind: type[Config], values: dict[str, Any], base: Config | None = None, where: str = "") -> Config:
    """Build a config from plain values over the defaults of `base`; unknown keys and wrong types are ValueErrors."""
    hints = typing.get_type_hints(kind)
    names = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    chosen: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{where}{key}"
        if key not in names:
            known = ", ".join(sorted(names))
            raise ValueError(f"unknown key {path!r}: the keys here are {known}")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise ValueError(f"{path} must be a table of keys, not {value!r}")
            nested = typing.cast(type[Any], hints[key])
            chosen[key] = from_dict(nested, value, getattr(base, key, None), f"{path}.")
        else:
            chosen[key] = coerce(value, hints[key], path)
    if base is not None:
        return typing.cast(Config, dataclasses.replace(typing.cast(Any, base), **chosen))
    return kind(**chosen)


def coerce(value: Any, hint: Any, path: str) -> Any:
    """The TOML value as the annotated type, or a ValueError that names the key."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{path} must be a table of keys, not {value!r}")
        return from_dict(typing.cast(type[Any], hint), value, where=f"{path}.")
    if origin is Annotated:
        return coerce(value, choices[0], path)
    if origin in (typing.Union, types.UnionType):
        options = [choice for choice in choices if choice is not type(None)]
        return coerce(value, options[0], path)
    if origin is Literal:
        if value not in choices:
            raise ValueError(f"{path} must be one of {', '.join(map(str, choices))}, not {value!r}")
        return value
    if origin is tuple:
        if isinstance(value, str) and choices[0] is str:
            value = [value]
        if not isinstance(value, list):
            raise ValueError(f"{path} must be a list, not {value!r}")
        return tuple(coerce(item, choices[0], f"{path}[{index}]") for index, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{path} must be of type {hint.__name__}, not {value!r}")
    return value


def read_toml(kind: type[Config], path: Path, base: Config | None = None) -> Config:
    """Read a config file over the defaults of `base`."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"config file {path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"config file {path} is not valid TOML: {error}") from None
    try:
        return from_dict(kind, values, base)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def write_toml(config: Any, path: Path) -> None:
    with atomic_file(path) as file:
        tomli_w.dump(to_dict(config), file)


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Sentences such as 'optimizer.learning_rate is 0.001 there, 0.002 now' for every field that differs."""
    found = []
    for item in dataclasses.fields(old):
        before, now = getattr(old, item.name), getattr(new, item.name)
        if dataclasses.is_dataclass(before):
            found += differences(before, now, f"{where}{item.name}.")
        elif before != now:
            found.append(f"{where}{item.name} is {before} there, {now} now")
    return found
