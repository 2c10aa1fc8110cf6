"""The demo's corpus: documentation of the machine's own Python standard library.

Modules are parsed, never imported, except for a few written in C that are part
of every interpreter; for those the docstrings they carry are read.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SKIPPED_FOLDERS: Final = (
    "test tests idlelib idle_test site-packages dist-packages lib2to3 __pycache__ turtledemo"
    " ensurepip pydoc_data config lib-dynload"
)
#: In C, in every interpreter, and without side effects when imported.
_IN_C: Final = ("builtins", "itertools", "math", "time", "sys", "errno", "gc", "marshal")
#: Packages of general use come first, so that the bound cuts the odd ones.
_FIRST: Final = """
    argparse array ast asyncio base64 bisect calendar collections concurrent configparser
    contextlib copy csv ctypes dataclasses datetime decimal difflib dis email enum fnmatch
    fractions functools getpass gettext glob graphlib gzip hashlib heapq hmac html http imaplib
    importlib inspect io ipaddress json keyword linecache locale logging lzma mailbox mimetypes
    multiprocessing numbers operator os pathlib pdb pickle pkgutil platform plistlib poplib
    pprint profile pstats queue quopri random re reprlib sched secrets selectors shelve shlex
    shutil signal smtplib socket socketserver sqlite3 ssl stat statistics string struct
    subprocess tabnanny tarfile tempfile textwrap threading timeit token tokenize tomllib trace
    traceback tracemalloc types typing unicodedata unittest urllib uuid venv warnings wave
    weakref webbrowser wsgiref xml xmlrpc zipapp zipfile zipimport zoneinfo
"""
#: About 1 900 chunks of up to 200 tokens: a minute or so of embedding on one core.
_MAX_CHARS: Final = 700_000
#: Some modules could fill the corpus alone.
_MAX_MODULE_CHARS: Final = 6_000
_MIN_MODULE_CHARS: Final = 120
_MAX_DOC_CHARS: Final = 6000


@dataclass(frozen=True)
class CorpusInfo:
    """What was written: one Markdown file per module."""

    documents: int
    characters: int
    bounded: bool


@dataclass(frozen=True)
class _Module:
    name: str
    path: Path | None


def write_corpus(target: Path) -> CorpusInfo:
    """Writes ``<module>.md`` files into ``target``; the same machine gives the same files.

    Well-known modules come first, then their submodules, then the rest, within
    each the better documented before the others; writing stops near 1 900 chunks
    of 200 tokens. Files of an earlier corpus that are no longer part of it go.
    """
    target.mkdir(parents=True, exist_ok=True)
    written: set[str] = set()
    characters = 0
    documents = _documents()
    for name, text in documents:
        if characters + len(text) <= _MAX_CHARS:
            (target / f"{name}.md").write_text(text, encoding="utf-8")
            written.add(f"{name}.md")
            characters += len(text)
    for old in sorted(target.glob("*.md")):
        if old.name not in written:
            old.unlink()
    return CorpusInfo(len(written), characters, len(written) < len(documents))


def _documents() -> list[tuple[str, str]]:
    """(module, Markdown) in the order of usefulness."""
    first = frozenset(_FIRST.split())
    found: list[tuple[tuple[bool, bool, int], str, str]] = []
    for module in _modules():
        text = _document(module)
        if text is not None:
            inner = "." in module.name
            found.append(((_is_odd(module, first), inner, -len(text)), module.name, text))
    return [(name, text) for _, name, text in sorted(found)]


def _is_odd(module: _Module, first: frozenset[str]) -> bool:
    return module.path is not None and module.name.split(".")[0] not in first


def _modules() -> Iterator[_Module]:
    """Public modules of the library; names with a leading underscore are private."""
    for name in _IN_C:
        yield _Module(name, None)
    skipped = frozenset(_SKIPPED_FOLDERS.split())
    root = Path(sysconfig.get_path("stdlib"))
    pending = [root]
    while pending:
        folder = pending.pop()
        for path in sorted(folder.iterdir()):
            if path.name.startswith(("_", ".")) and path.name != "__init__.py":
                continue
            if path.is_dir():
                if path.name not in skipped and (path / "__init__.py").is_file():
                    pending.append(path)
            elif path.suffix == ".py" and path != root / "__init__.py":
                parts = path.relative_to(root).with_suffix("").parts
                name = ".".join(p for p in parts if p != "__init__")
                yield _Module(name, path)


def _document(module: _Module) -> str | None:
    """The Markdown of a module; None when there is too little to say."""
    body = _of_source(module.path) if module.path else _of_builtin(module.name)
    if body is None:
        return None
    text = "\n\n".join(itertools.chain((f"# {module.name}",), body)).strip()
    if len(text) < _MIN_MODULE_CHARS:
        return None
    package = module.name.split(".")[0]
    cut = _cut(text, _MAX_MODULE_CHARS)
    return f"---\ntitle: {module.name}\nmodule: {module.name}\npackage: {package}\n---\n{cut}\n"


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return text[: text.rfind("\n", 0, most)].rstrip()


def _of_source(path: Path) -> list[str] | None:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return None
    parts = [_plain(ast.get_docstring(tree))]
    for node in tree.body:
        parts.extend(_described(node, ""))
    return [part for part in parts if part]


def _described(node: ast.stmt, owner: str) -> Iterator[str]:
    """A heading, the signature and the docstring of a public class or function.

    A class is described with its public methods below it; what has no
    docstring is left out, for there is nothing to read about it.
    """
    if isinstance(node, ast.ClassDef):
        if node.name.startswith("_"):
            return
        inner = [part for child in node.body for part in _described(child, f"{owner}{node.name}.")]
        doc = _plain(ast.get_docstring(node))
        if doc or inner:
            bases = ", ".join(ast.unparse(base) for base in node.bases)
            signature = f"class {node.name}({bases})" if bases else f"class {node.name}"
            yield f"## class {owner}{node.name}\n\n`{signature}`"
            yield doc
        yield from inner
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        doc = _plain(ast.get_docstring(node))
        if doc and not node.name.startswith("_"):
            level = "###" if owner else "##"
            yield f"{level} {owner}{node.name}\n\n`{_signature(node)}`\n\n{doc}"


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    prefix = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    arguments = " ".join(ast.unparse(node.args).split())
    return f"{prefix} {node.name}({arguments})"


def _of_builtin(name: str) -> list[str]:
    module = importlib.import_module(name)
    parts = [_plain(inspect.getdoc(module))]
    for member_name, member in sorted(vars(module).items()):
        doc = _own_doc(member)
        if member_name.startswith("_") or not doc:
            continue
        if inspect.isclass(member):
            if issubclass(member, BaseException) or member.__module__ != name:
                continue
            parts.append(f"## class {member_name}\n\n{doc}")
            parts.extend(_methods(member_name, member))
        elif inspect.isroutine(member):
            parts.append(f"## {member_name}\n\n{_builtin_signature(member_name, member)}{doc}")
    return [part for part in parts if part]


def _methods(owner: str, cls: type) -> Iterable[str]:
    for name, member in sorted(vars(cls).items()):
        doc = _own_doc(member)
        if not name.startswith("_") and doc and inspect.isroutine(member):
            yield f"### {owner}.{name}\n\n{_builtin_signature(name, member)}{doc}"


def _own_doc(member: object) -> str:
    doc = getattr(member, "__doc__", None)
    return _plain(inspect.cleandoc(doc)) if isinstance(doc, str) else ""


def _builtin_signature(name: str, member: object) -> str:
    try:
        return f"`{name}{inspect.signature(member)}`\n\n"  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return ""


def _plain(doc: str | None) -> str:
    """A docstring that cannot be mistaken for headings of ours."""
    if not doc:
        return ""
    lines = (f" {line}" if line.startswith("#") else line for line in doc.splitlines())
    return _cut("\n".join(lines).strip(), _MAX_DOC_CHARS)
