"""A YAML file that remembers on which line each of its keys stands.

PyYAML gives either data or positions. Here the file is composed into nodes first, which have positions; the nodes are
walked once for lines and duplicate keys (which PyYAML would drop without a word), and then made into data. Error texts
are built from PyYAML's own sentences, never from its excerpts: those quote the line, and the line may hold a secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from holdfast.config.messages import Key, Mistake, configuration_error, did_you_mean

_DATE_TAG = "tag:yaml.org,2002:timestamp"
_MERGE_TAG = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class YamlSource:
    """What a file says (`data`), and where. Its repr shows the path only: the data may hold secrets."""

    path: Path
    data: Any = field(repr=False)
    lines: Mapping[tuple[str, ...], int] = field(repr=False)

    def line(self, key: Key) -> int:
        """The line of a key; for one that is not there, the line of what it is missing from."""
        # As text: a position in a list is a number, and so may a key be that ought to be text.
        way = tuple(map(str, key))
        while way and way not in self.lines:
            way = way[:-1]
        return self.lines.get(way, 1)

    def mistake(self, key: Key, what: str, mend: str = "") -> Mistake:
        """Something wrong at a key of this file."""
        return Mistake(str(self.path), what, mend, self.line(key), key)


class _Loader(yaml.SafeLoader):
    """YAML without dates: no key here wants one, and an impossible date would raise a bare ValueError."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute, replaced and not changed
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE_TAG]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(path: Path) -> YamlSource:
    """Read a file of one YAML document.

    Raises:
        ConfigurationError: it can't be read, is empty, is not YAML, or says a key twice.
    """
    text = _read_text(path)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise configuration_error([Mistake(str(path), "is empty")])
        walk = _Walk(loader, path)
        walk.visit(root, ())
        data = loader.construct_document(root)
    except yaml.YAMLError as error:
        _refuse(path, text, error)
    except (RecursionError, ValueError):
        raise configuration_error([Mistake(str(path), "is nested too deeply, or holds a malformed number")]) from None
    if walk.mistakes:
        raise configuration_error(walk.mistakes)
    return YamlSource(path, data, walk.lines)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        mend = did_you_mean(path.name, siblings)
        raise configuration_error([Mistake(str(path), f"can't be read: {error.strerror}", mend)]) from None
    except UnicodeDecodeError:
        raise configuration_error([Mistake(str(path), "is not UTF-8 text", "save it as UTF-8")]) from None


class _Walk:
    """Visits every node, in the order of the file."""

    def __init__(self, loader: _Loader, path: Path) -> None:
        self.lines: dict[tuple[str, ...], int] = {}
        self.mistakes: list[Mistake] = []
        self._loader = loader
        self._path = path
        self._open: list[Node] = []
        self._flattened: set[int] = set()

    def visit(self, node: Node, key: Key) -> None:
        """Note the lines of everything in `node`, which stands at `key`."""
        # `a: &x [*x]` is legal YAML. Nothing here can use it, and every walk over the data would be endless.
        if node in self._open:
            raise yaml.constructor.ConstructorError(None, None, "a value contains itself", node.start_mark)
        self._open.append(node)
        if isinstance(node, MappingNode):
            self._visit_mapping(node, key)
        elif isinstance(node, SequenceNode):
            for position, item in enumerate(node.value):
                self._note((*key, position), item)
                self.visit(item, (*key, position))
        self._open.pop()

    def _visit_mapping(self, node: MappingNode, key: Key) -> None:
        # Once a node: an alias leads here again, and keys that `<<` merged in would then look like duplicates.
        if id(node) not in self._flattened:
            self._flattened.add(id(node))
            self._find_duplicates(node, key)
            self._loader.flatten_mapping(node)
        for name, value in node.value:
            if isinstance(name, ScalarNode):
                self._note((*key, name.value), name)
                self.visit(value, (*key, name.value))

    def _find_duplicates(self, node: MappingNode, key: Key) -> None:
        first: dict[str, int] = {}
        for name, _ in node.value:
            if not isinstance(name, ScalarNode) or name.tag == _MERGE_TAG:
                continue
            line = name.start_mark.line + 1
            if name.value in first:
                what = f"duplicate key, first on line {first[name.value]}"
                self.mistakes.append(Mistake(str(self._path), what, "remove one", line, (*key, name.value)))
            first.setdefault(name.value, line)

    def _note(self, key: Key, node: Node) -> None:
        self.lines[tuple(map(str, key))] = node.start_mark.line + 1


def _refuse(path: Path, text: str, error: yaml.YAMLError) -> NoReturn:
    line, problem = None, "it can't be parsed"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        problem = (error.problem or problem).removeprefix("but ")
    elif isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        problem = f"the character #x{ord(text[error.position]):02x} is not allowed"
    mend = "look at the indentation and the quotes there"
    # `from None`: PyYAML's error quotes the line.
    raise configuration_error([Mistake(str(path), f"not YAML: {problem}", mend, line)]) from None
