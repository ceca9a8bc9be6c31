"""Recipes: YAML files that say what to prepare (prep/) or what to train (train/).

A recipe is looked for as a path, then as `./KIND/NAME.yaml` in the current folder, then among those that are shipped with
the package. `extends: NAME` takes another recipe of the same kind and overrides only what is written. `--set key.sub=value`
overrides on the command line; the value is read as YAML.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from vidpipe.errors import UsageError, one_line

Kind = Literal["prep", "train"]
M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """A part of a recipe: fixed once it is read, without keys that it doesn't know, and with numbers that are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Settings(Section):
    """A section that users of the package make too, outside of recipes: with a wrong value that is a `UsageError`."""

    @model_validator(mode="wrap")
    @classmethod
    def _refused(cls, values: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            if info.context is _RECIPE:  # whose reader names the whole key
                raise
            raise UsageError(f"{cls.__name__}: {_explained(cls, error)}") from error


_RECIPE = object()


def _width_and_height(value: object) -> object:
    if isinstance(value, str):
        width, x, height = value.lower().partition("x")
        if not x or not width.isdecimal() or not height.isdecimal():
            raise ValueError("expected WIDTHxHEIGHT, for instance 320x240")
        return int(width), int(height)
    return value


SpelledSize = BeforeValidator(_width_and_height)
"""For fields of (width, height): a recipe may spell it 320x240."""

PixelSize = Annotated[tuple[int, int], SpelledSize]
"""Width and height in pixels."""

Displaced = Callable[[Mapping[str, Any]], Iterable[str]]
"""Which inherited keys, `key` or `key.sub`, give way to those that are written over them, for fields that exclude each other."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def shipped_folder(kind: Kind) -> Path:
    """The folder of recipes that come with the package: inside it when installed, at the top of a checkout otherwise."""
    package = Path(__file__).resolve().parent
    installed = package / "_recipes" / kind
    return installed if installed.is_dir() else package.parent / kind


def list_recipes(kind: Kind) -> dict[str, Path]:
    """Name to file of every recipe of a kind; a user's own in `./KIND/` hides a shipped one of the same name."""
    found: dict[str, Path] = {}
    for folder in (shipped_folder(kind), Path(kind)):
        if folder.is_dir():
            found.update({path.stem: path for path in sorted(folder.glob("*.yaml"))})
    return dict(sorted(found.items()))


def find_recipe(kind: Kind, name: str) -> Path:
    """Path of the recipe `name`, which may be a path to a YAML file.

    Raises:
        UsageError: there is none; the message names the nearest ones.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        if Path(name).is_file():
            return Path(name)
        raise UsageError(f"recipe {name!r}: no such file")
    recipes = list_recipes(kind)
    if _NAME.fullmatch(name) and name in recipes:
        return recipes[name]
    raise UsageError(f"no {kind} recipe {name!r}{nearest(name, recipes)}; `vidpipe list recipes` shows all")


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean a, b?` for an error message, or, when nothing is near, the known names if they are few."""
    names = sorted(known)
    return _did_you_mean(name, names) or (f"; known: {', '.join(names)}" if 0 < len(names) <= 24 else "")


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"; did you mean {', '.join(close)}?" if close else ""


def _none_displaced(_: Mapping[str, Any]) -> Iterable[str]:
    return ()


def load_recipe(
    kind: Kind, name: str, overrides: Sequence[str] = (), *, displaced: Displaced = _none_displaced
) -> dict[str, Any]:
    """The recipe as a plain mapping: file, what it extends, and `key.sub=value` overrides applied in order.

    Args:
        displaced: given what a recipe writes over the one that it extends, or all overrides together over the file, the keys
            of the lower layer that are dropped for it.
    """
    raw = _read(kind, find_recipe(kind, name), seen=(), displaced=displaced)
    written: dict[str, Any] = {}
    for item in overrides:
        _override(written, item)
    raw = _without(raw, displaced(written))
    for item in overrides:
        _override(raw, item)
    return raw


def _read(kind: Kind, path: Path, *, seen: tuple[Path, ...], displaced: Displaced) -> dict[str, Any]:
    if path.resolve() in seen:
        raise UsageError(f"recipe {path}: extends itself by way of {' -> '.join(p.stem for p in seen)}")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path}: not valid YAML: {one_line(error)}") from error
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise UsageError(f"recipe {path}: expected `key: value` lines, got {type(raw).__name__}")
    parent = raw.pop("extends", None)
    if parent is None:
        return raw
    try:
        extended = find_recipe(kind, str(parent))
    except UsageError as error:
        raise UsageError(f"recipe {path}: extends: {error}") from error
    base = _read(kind, extended, seen=(*seen, path.resolve()), displaced=displaced)
    return _merged(_without(base, displaced(raw)), raw)


def _without(raw: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    dropped = set(keys)
    kept = {}
    for key, value in raw.items():
        if key not in dropped:
            below = [name.removeprefix(f"{key}.") for name in dropped if name.startswith(f"{key}.")]
            kept[key] = _without(value, below) if isinstance(value, dict) else value
    return kept


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _parsed(item: str) -> tuple[list[str], Any]:
    """The key's parts and the value of a `key.sub=value` override."""
    key, equals, text = item.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {item}: expected key=value or key.sub=value")
    try:
        return parts, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {item}: the value is not valid YAML") from error


def _override(raw: dict[str, Any], item: str) -> None:
    """Set what `key.sub=value` says."""
    parts, value = _parsed(item)
    node = raw
    for part in parts[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise UsageError(f"--set {item}: {part!r} holds {child!r}, not a group of keys")
        node = child
    node[parts[-1]] = value


def validate(model: type[M], raw: Mapping[str, Any], *, where: str, extra_keys: Iterable[str] = ()) -> M:
    """`raw` as a `model`.

    Args:
        where: what the error names, for instance the recipe's file.
        extra_keys: further keys that are allowed beside the model's own, for the error's list.

    Raises:
        UsageError: one line with every wrong key, what it holds and what is allowed.
    """
    try:
        return model.model_validate(dict(raw), context=_RECIPE)
    except ValidationError as error:
        raise UsageError(f"{where}: {_explained(model, error, extra_keys)}") from error


def _explained(model: type[BaseModel], error: ValidationError, extra_keys: Iterable[str] = ()) -> str:
    return "; ".join(_explain(model, details, extra_keys) for details in error.errors(include_url=False))


def _explain(model: type[BaseModel], details: Any, extra_keys: Iterable[str]) -> str:
    location = [part for part in details["loc"] if isinstance(part, str) and "[" not in part]
    key = ".".join(location)
    if details["type"] == "extra_forbidden":
        parent = _model_at(model, location[:-1])
        allowed = sorted([*(parent.model_fields if parent else ()), *(extra_keys if len(location) == 1 else ())])
        return f"unknown key {key!r}{_did_you_mean(location[-1], allowed)} (allowed: {', '.join(allowed)})"
    if details["type"] == "missing":
        return f"{key}: required, but missing"
    message = details["msg"].removeprefix("Value error, ")
    return f"{key}: got {details['input']!r}: {message}" if key else message


def _model_at(model: type[BaseModel], location: Sequence[str]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in location:
        field = current.model_fields.get(part) if current else None
        current = _model_in(field.annotation) if field else None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if typing.get_origin(annotation) is None and isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((m for arg in typing.get_args(annotation) if (m := _model_in(arg))), None)


def describe_recipes() -> list[tuple[str, str]]:
    """`kind/name` of every recipe, and its `summary` or else the first sentence of its first comment."""
    rows = []
    for kind in typing.get_args(Kind):
        for name, path in list_recipes(kind).items():
            text = path.read_text(encoding="utf-8")
            summary = re.search(r"^summary: *(.+)$", text, flags=re.MULTILINE)
            comment = text.partition("\n")[0].removeprefix("#").strip()
            rows.append((f"{kind}/{name}", summary[1].strip() if summary else re.split(r"[.:](?: |$)", comment)[0]))
    return rows
