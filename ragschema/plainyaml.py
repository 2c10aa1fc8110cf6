"""YAML for configuration: no aliases, no repeated keys, text keys only.

Aliases let a short text expand without end; of a repeated key all but the last
value would be lost in silence. Neither has a use in a configuration file.
"""

from __future__ import annotations

from typing import Any

import yaml

from ragschema.errors import InvalidInput


class _PlainLoader(yaml.SafeLoader):
    """Builds dict, list and scalars; refuses everything else."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "aliases are not supported", self.get_mark()
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                self._refuse(node, f"the key {key.value!r} is not text", key.start_mark)
            if key.value in seen:
                self._refuse(node, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def _refuse(self, node: yaml.Node, what: str, mark: yaml.Mark) -> None:
        raise yaml.constructor.ConstructorError(None, node.start_mark, what, mark)


def load_plain_yaml(text: str, source: str) -> Any:
    """Parses one YAML document.

    Args:
        source: what to call the text in messages, such as the file's path.

    Raises:
        InvalidInput: not YAML, nested too deeply, or beyond the plain subset.
    """
    hint = "check the indentation and quotes; write every value out, without & and *"
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506  a subclass of SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidInput(f"{source} is not YAML: {error}", field="config", hint=hint) from error
    except RecursionError as error:
        raise InvalidInput(f"{source} is nested too deeply", field="config", hint=hint) from error
