"""`models.yaml`: LiteLLM's own file, read so that nothing in it is swallowed.

A deployment whose `os.environ/NAME` is unset or empty is left out: with an empty key, LiteLLM would send the call, be
refused, and land on the fallback group with nobody noticing. What is left out, and which aliases that leaves without a
deployment, stands in the result. What Holdfast does not use is warned of. Retries are forced to 0 wherever they stand:
one layer retries, and that is Temporal.

The values of variables are secrets: no repr and no message here shows one, and the log is told which they are.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from holdfast.config.messages import Key, configuration_error, did_you_mean
from holdfast.config.models_shape import (
    Fallbacks,
    ListedFile,
    LitellmSettings,
    RouterSettings,
    Usable,
    UsableFile,
)
from holdfast.config.shape import OpenShape, fit
from holdfast.config.yaml_source import YamlSource, read_yaml
from holdfast.domain.errors import ConfigurationError
from holdfast.secrecy.redaction import learn_named

#: The model of the demo server, which `holdfast dev` starts and nothing else may use.
DEMO_MODEL = "openai/holdfast-demo"

_REFERENCE = "os.environ/"
_RETRIES = frozenset({"num_retries", "max_retries"})
_SECTIONS_WITH_RETRIES = frozenset({"litellm_params", "default_litellm_params", "router_settings", "litellm_settings"})
_SPECIAL_FALLBACKS = ("context_window_fallbacks", "content_policy_fallbacks")
_FALLBACKS = ("fallbacks", *_SPECIAL_FALLBACKS)

_SETTINGS: dict[str, type[OpenShape]] = {"router_settings": RouterSettings, "litellm_settings": LitellmSettings}


@dataclass(frozen=True)
class Deployment:
    """One model at one provider. `params` is LiteLLM's `litellm_params`, secrets included: never log it.

    `name` says it in logs and records: `quality#2`, the second of its alias in the file, or the `id` of its model_info.
    """

    name: str
    alias: str
    model: str
    order: int | None
    params: dict[str, Any] = field(repr=False)
    model_info: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class LeftOut:
    """A deployment that can't be used, and the unset variable for which it can't."""

    name: str
    alias: str
    model: str
    order: int | None
    variable: str
    line: int

    def __str__(self) -> str:
        return f"{self.alias}: {self.model} is left out, since {self.variable} is not set"


@dataclass(frozen=True)
class ModelsFile:
    """What a file says, resolved.

    `fallbacks` are the generic ones; `router_settings` holds all of them, ready for `Router(**router_settings)`, and
    may hold secrets. `unusable` names the aliases without any usable deployment, and the variables that would help.
    """

    path: Path
    deployments: tuple[Deployment, ...]
    fallbacks: dict[str, tuple[str, ...]]
    router_settings: dict[str, Any] = field(repr=False)
    litellm_settings: dict[str, Any] = field(repr=False)
    left_out: tuple[LeftOut, ...]
    unusable: dict[str, tuple[str, ...]]
    warnings: tuple[str, ...]

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases that have a usable deployment, in the order of the file."""
        return tuple(dict.fromkeys(deployment.alias for deployment in self.deployments))

    def for_router(self) -> list[dict[str, Any]]:
        """LiteLLM's `model_list`. A copy each time: the Router writes into what it is given."""
        return [
            {
                "model_name": deployment.alias,
                "litellm_params": deepcopy(deployment.params),
                "model_info": {**deepcopy(deployment.model_info), "id": deployment.name},
            }
            for deployment in self.deployments
        ]


def load_models(path: Path, environ: Mapping[str, str], *, allow_demo: bool) -> ModelsFile:
    """Read `models.yaml` and put in the variables that it names.

    Args:
        path: the file.
        environ: where `os.environ/NAME` is looked up.
        allow_demo: whether the demo model may be used; only `holdfast dev` says yes.

    Raises:
        ConfigurationError: the file is wrong, a fallback names an unknown alias, no deployment at all can be used, or
            the demo model is to be used where it may not.
    """
    source = read_yaml(path)
    listed = fit(source, ListedFile)
    _check_references(source)
    names = _names(source, listed)
    left_out = _left_out(source, environ, listed, names)
    usable = fit(source, UsableFile, _resolved(source, environ, left_out))
    deployments = tuple(_deployment(names[position], entry) for position, entry in usable.model_list.items())
    unusable = _unusable(left_out.values(), {deployment.alias for deployment in deployments})
    if not deployments:
        raise _nothing_usable(source, unusable)
    if not allow_demo:
        _refuse_demo(source, usable)
    _check_fallbacks(source, usable.router_settings, [entry.model_name for entry in listed.model_list])
    settings = _router_settings(usable.router_settings, unusable)
    return ModelsFile(
        path=path,
        deployments=deployments,
        fallbacks={alias: tuple(targets) for entry in settings["fallbacks"] for alias, targets in entry.items()},
        router_settings=settings,
        litellm_settings={**_said(usable.litellm_settings), "num_retries": 0},
        left_out=tuple(entry for entries in left_out.values() for entry in entries),
        unusable=unusable,
        warnings=(*_unused_keys(source, usable), *_without_order(source, usable), *_retries(source)),
    )


# Variables


def _check_references(source: YamlSource) -> None:
    nameless = [key for key, leaf in _leaves(source.data, ()) if _variable(leaf) == ""]
    if nameless:
        mend = f"write it like {_REFERENCE}OPENAI_API_KEY"
        raise configuration_error([source.mistake(key, "names no variable", mend) for key in nameless])


def _left_out(
    source: YamlSource, environ: Mapping[str, str], listed: ListedFile, names: list[str]
) -> dict[int, list[LeftOut]]:
    """The deployments that name an unset variable, by their place in the list; a `LeftOut` for each such variable."""
    found: dict[int, list[LeftOut]] = {}
    for position, entry in enumerate(listed.model_list):
        at = ("model_list", position)
        for key, variable in _unset(source.data["model_list"][position], at, environ):
            params = entry.litellm_params
            left_out = LeftOut(
                names[position], entry.model_name, params.model, params.order, variable, source.line(key)
            )
            found.setdefault(position, []).append(left_out)
    return found


def _resolved(source: YamlSource, environ: Mapping[str, str], left_out: Iterable[int]) -> dict[str, Any]:
    """The file's data without what is left out or not used, with the variables' values, and without retries."""
    skipped = set(left_out)
    data: dict[str, Any] = {name: _known(source.data.get(name, {}), model) for name, model in _SETTINGS.items()}
    data["model_list"] = {place: entry for place, entry in enumerate(source.data["model_list"]) if place not in skipped}
    unset = list(_unset(data, (), environ))
    if unset:
        raise configuration_error([source.mistake(key, f"{variable} is not set", "set it") for key, variable in unset])

    def value_of(key: Key, leaf: Any) -> Any:
        if _is_retries(key):
            return 0
        variable = _variable(leaf)
        value = leaf if variable is None else environ[variable].strip()
        if isinstance(value, str):
            learn_named([(str(key[-1]), value), (variable or "", value)])
        return value

    return {name: _with_leaves(value, (name,), value_of) for name, value in data.items()}


def _known(section: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name in model.model_fields}


def _unset(value: Any, at: Key, environ: Mapping[str, str]) -> Iterator[tuple[Key, str]]:
    for key, leaf in _leaves(value, at):
        variable = _variable(leaf)
        # An empty variable is how docker-compose passes one that is not set.
        if variable is not None and not environ.get(variable, "").strip():
            yield key, variable


def _variable(leaf: Any) -> str | None:
    return leaf.removeprefix(_REFERENCE) if isinstance(leaf, str) and leaf.startswith(_REFERENCE) else None


def _leaves(value: Any, at: Key) -> Iterator[tuple[Key, Any]]:
    for part, inner in _parts(value):
        yield from _leaves(inner, (*at, part))
    if not isinstance(value, dict | list):
        yield at, value


def _with_leaves(value: Any, at: Key, replace: Callable[[Key, Any], Any]) -> Any:
    if isinstance(value, dict):
        return {part: _with_leaves(inner, (*at, part), replace) for part, inner in value.items()}
    if isinstance(value, list):
        return [_with_leaves(inner, (*at, part), replace) for part, inner in enumerate(value)]
    return replace(at, value)


def _parts(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


# Deployments


def _names(source: YamlSource, listed: ListedFile) -> list[str]:
    """What each deployment is called, by its place in the list; one that is left out keeps its number."""
    of_alias: Counter[str] = Counter()
    names: list[str] = []
    for position, entry in enumerate(listed.model_list):
        of_alias[entry.model_name] += 1
        name = str(entry.model_info.get("id") or f"{entry.model_name}#{of_alias[entry.model_name]}")
        if name in names:
            key = ("model_list", position, "model_info", "id")
            raise configuration_error(
                [source.mistake(key, f"there is another deployment {name!r}", "choose another id")]
            )
        names.append(name)
    return names


def _deployment(name: str, entry: Usable) -> Deployment:
    params = entry.litellm_params
    return Deployment(name, entry.model_name, params.model, params.order, _said(params), dict(entry.model_info))


def _said(shape: OpenShape) -> dict[str, Any]:
    """What the file says, and no defaults of ours: LiteLLM has its own."""
    return shape.model_dump(exclude_unset=True)


def _unusable(left_out: Iterable[list[LeftOut]], usable: set[str]) -> dict[str, tuple[str, ...]]:
    variables: dict[str, dict[str, None]] = {}
    for entries in left_out:
        for entry in entries:
            if entry.alias not in usable:
                variables.setdefault(entry.alias, {})[entry.variable] = None
    return {alias: tuple(names) for alias, names in variables.items()}


def _nothing_usable(source: YamlSource, unusable: Mapping[str, tuple[str, ...]]) -> ConfigurationError:
    variables = dict.fromkeys(variable for names in unusable.values() for variable in names)
    mistake = source.mistake(("model_list",), "no model can be used", f"set {' or '.join(variables)}")
    return configuration_error([mistake])


def _refuse_demo(source: YamlSource, usable: UsableFile) -> None:
    mistakes = [
        source.mistake(
            ("model_list", position, "litellm_params", "model"),
            f"the demo model {DEMO_MODEL!r} is only for `holdfast dev`",
            f"in production, {_without(source, position)}",
        )
        for position, entry in usable.model_list.items()
        if entry.litellm_params.model == DEMO_MODEL
    ]
    if mistakes:
        raise configuration_error(mistakes)


def _without(source: YamlSource, position: int) -> str:
    """How a deployment is got rid of."""
    leaves = _leaves(source.data["model_list"][position], ())
    variables = [variable for _, leaf in leaves if (variable := _variable(leaf))]
    return f"leave {variables[0]} unset, or remove the deployment" if variables else "remove the deployment"


# Settings


def _check_fallbacks(source: YamlSource, settings: RouterSettings, known: list[str]) -> None:
    """Refuse fallbacks that name an alias which the file does not have: LiteLLM would find out when it needs them."""
    mistakes = [
        source.mistake(key, f"there is no alias {alias!r}", did_you_mean(alias, known))
        for key, alias in _named_aliases(settings)
        if alias not in known
    ]
    if mistakes:
        raise configuration_error(mistakes)


def _named_aliases(settings: RouterSettings) -> Iterator[tuple[Key, str]]:
    for position, alias in enumerate(settings.default_fallbacks):
        yield ("router_settings", "default_fallbacks", position), alias
    for name in _FALLBACKS:
        for position, entry in enumerate(getattr(settings, name)):
            for alias, targets in entry.items():
                at: Key = ("router_settings", name, position, alias)
                # LiteLLM reads `*` as "any alias without an entry of its own".
                yield from [] if alias == "*" else [(at, alias)]
                yield from (((*at, place), target) for place, target in enumerate(targets))


def _router_settings(settings: RouterSettings, unusable: Iterable[str]) -> dict[str, Any]:
    gone = set(unusable)
    said = _said(settings)
    said["fallbacks"] = generic = _usable_fallbacks(settings.fallbacks, gone)
    for name in _SPECIAL_FALLBACKS:
        if name in said:
            special = _usable_fallbacks(getattr(settings, name), gone)
            named = {alias for entry in special for alias in entry}
            # LiteLLM leaves an alias without an entry here without any fallback, whatever the generic ones say.
            said[name] = special + [entry for entry in generic if not entry.keys() & named]
    if "default_fallbacks" in said:
        said["default_fallbacks"] = [alias for alias in settings.default_fallbacks if alias not in gone]
    return {**said, "num_retries": 0}


def _usable_fallbacks(fallbacks: Fallbacks, gone: set[str]) -> Fallbacks:
    """One entry an alias, and one alias an entry: LiteLLM looks no further than the first of either."""
    left: dict[str, list[str]] = {}
    for alias, targets in (pair for entry in fallbacks for pair in entry.items()):
        usable = [target for target in targets if target not in gone]
        if usable and alias not in gone:
            left.setdefault(alias, []).extend(usable)
    return [{alias: targets} for alias, targets in left.items()]


def _unused_keys(source: YamlSource, usable: UsableFile) -> Iterator[str]:
    sections: list[tuple[Key, Iterable[Any], Iterable[str]]] = [((), source.data, UsableFile.model_fields)]
    for name, model in _SETTINGS.items():
        sections.append(((name,), source.data.get(name, ()), model.model_fields))
    for position, entry in usable.model_list.items():
        sections.append((("model_list", position), entry.model_extra or (), Usable.model_fields))
    for at, names, known in sections:
        for name in map(str, names):
            if name not in known:
                yield str(source.mistake((*at, name), "is not used by Holdfast", _place_for(name, known)))


def _place_for(name: str, known: Iterable[str]) -> str:
    # LiteLLM's proxy also takes fallbacks and the like from litellm_settings.
    elsewhere = "put it under router_settings" if name in RouterSettings.model_fields else ""
    return elsewhere or did_you_mean(name, known)


def _without_order(source: YamlSource, usable: UsableFile) -> Iterator[str]:
    # The Router asks the lowest order there is, and then the next; what has none is asked when all others are cooling.
    ordered = {entry.model_name for entry in usable.model_list.values() if entry.litellm_params.order is not None}
    for position, entry in usable.model_list.items():
        if entry.litellm_params.order is None and entry.model_name in ordered:
            key = ("model_list", position, "litellm_params")
            what = f"has no order, but others of {entry.model_name!r} have: it is hardly ever asked"
            yield str(source.mistake(key, what, "give it an order"))


def _retries(source: YamlSource) -> Iterator[str]:
    for key, leaf in _leaves(source.data, ()):
        if _is_retries(key) and leaf not in (0, None):
            yield str(source.mistake(key, "is taken as 0", "Temporal retries, and two layers would multiply"))


def _is_retries(key: Key) -> bool:
    return len(key) > 1 and key[-1] in _RETRIES and key[-2] in _SECTIONS_WITH_RETRIES
