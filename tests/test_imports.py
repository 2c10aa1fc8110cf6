"""Who may import whom, and what nobody may call. Read from the sources, then run."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ragschema", "coordinator", "llm_node", "retrieval_node")
NODES = frozenset({"coordinator", "llm_node", "retrieval_node"})
MODELS = frozenset({"torch", "transformers", "tokenizers", "sentence_transformers", "safetensors"})
HEAVY = MODELS | {"faiss"}
FORBIDDEN: dict[str, frozenset[str]] = {
    "ragschema": NODES | HEAVY | {"fastapi", "uvicorn"},
    "coordinator": frozenset({"llm_node", "retrieval_node", "faiss"}) | MODELS,
    "llm_node": frozenset({"coordinator", "retrieval_node", "faiss", "fastapi"}),
    "retrieval_node": frozenset({"coordinator", "llm_node", "fastapi"}) | MODELS,
}
UNSAFE_MODULES = frozenset({"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "imp"})
UNSAFE_CALLS = frozenset(
    {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
     "torch.load", "yaml.unsafe_load", "yaml.full_load", "np.load", "numpy.load",
     "asyncio.create_subprocess_shell"}
)  # fmt: skip
GENERATED = ("_pb2.py", "_pb2_grpc.py")


@dataclass(frozen=True)
class Import:
    """One imported module; ``top`` when it happens as the importer is loaded."""

    module: str
    line: int
    top: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def sources(package: str) -> list[Path]:
    return sorted(p for p in (ROOT / package).rglob("*.py") if not p.name.endswith(GENERATED))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> list[Import]:
    return list(_imports(parse(path), path, top=True))


def _imports(node: ast.AST, path: Path, top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = _absolute(child, path)
            yield from (Import(f"{base}.{a.name}", child.lineno, top) for a in child.names)
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            yield from (Import(i.module, i.line, False) for i in _imports(child, path, False))
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, path, top and not inside)


def _absolute(node: ast.ImportFrom, path: Path) -> str:
    if node.level == 0:
        return node.module or ""
    package = path.relative_to(ROOT).parts[: -node.level]
    return ".".join((*package, node.module or "")).rstrip(".")


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{found.line} imports {found.module}"
        for path in sources(package)
        for found in imports(path)
        if found.package in FORBIDDEN[package]
    ]
    assert broken == []


def test_there_is_something_to_check() -> None:
    assert all(len(sources(package)) > 3 for package in PACKAGES)


@pytest.mark.parametrize("package", [*PACKAGES, "bench", "scripts"])
def test_nothing_unsafe_is_imported(package: str) -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{found.line} imports {found.module}"
        for path in sources(package)
        for found in imports(path)
        if found.package in UNSAFE_MODULES
    ]
    assert broken == []


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(parse(path)) if isinstance(node, ast.Call)]


def keyword_is(call: ast.Call, name: str, value: object) -> bool:
    return any(
        k.arg == name and isinstance(k.value, ast.Constant) and k.value.value is value
        for k in call.keywords
    )


def unsafe(call: ast.Call) -> str | None:
    name = ast.unparse(call.func)
    if keyword_is(call, "shell", True):
        return "a shell string"
    if name in ("np.load", "numpy.load"):
        return None if keyword_is(call, "allow_pickle", False) else "np.load with pickle"
    if name == "torch.load" and keyword_is(call, "weights_only", True):
        return None
    if name == "yaml.load":
        return None if "Loader" in {k.arg for k in call.keywords} else "yaml.load"
    return name if name in UNSAFE_CALLS else None


@pytest.mark.parametrize("package", [*PACKAGES, "bench", "scripts"])
def test_nothing_unsafe_is_called(package: str) -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{call.lineno} calls {unsafe(call)}"
        for path in sources(package)
        for call in calls(path)
        if unsafe(call)
    ]
    assert broken == []


def test_the_rules_see_what_they_forbid(tmp_path: Path) -> None:
    """The checks above pass on a clean tree; here they meet an unclean one."""
    path = ROOT / "coordinator" / "x.py"
    tree = ast.parse(
        "import torch\n"
        "def f():\n    from llm_node.embed import encoder\n"
        "from ..retrieval_node import index\n"
    )
    found = list(_imports(tree, path, top=True))
    assert [(i.package, i.top) for i in found] == [
        ("torch", True),
        ("llm_node", False),
        ("retrieval_node", True),
    ]
    bad = "eval('1'); os.system('x'); run(a, shell=True); np.load(p); yaml.load(t)"
    nodes = [n for n in ast.walk(ast.parse(bad)) if isinstance(n, ast.Call)]
    assert len([n for n in nodes if unsafe(n)]) == 5
    good = "np.load(p, allow_pickle=False); run(a, shell=False); model.eval()"
    nodes = [n for n in ast.walk(ast.parse(good)) if isinstance(n, ast.Call)]
    assert [n for n in nodes if unsafe(n)] == []


@pytest.mark.parametrize("package", sorted(NODES))
def test_a_nodes_command_line_starts_without_heavy_libraries(package: str) -> None:
    """`--help` and a wrong option answer at once; models load when serving."""
    path = ROOT / package / "__main__.py"
    heavy = [i.module for i in imports(path) if i.top and i.package in HEAVY | {"pydantic_core"}]
    assert heavy == []


def test_no_module_starts_work_on_import() -> None:
    """Only definitions, constants and guarded mains at module level."""
    broken = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in (*PACKAGES, "bench")
        for path in sources(package)
        for node in parse(path).body
        if isinstance(node, ast.For | ast.While | ast.With | ast.Delete)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
    ]
    assert broken == []


PROBE = """
import importlib, json, sys
for name in sys.argv[1].split(","):
    importlib.import_module(name)
print(json.dumps(sorted({m.partition(".")[0] for m in sys.modules})))
"""


def loaded_by(*modules: str) -> frozenset[str]:
    """Top-level packages in memory after importing these in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, ",".join(modules)],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return frozenset(json.loads(done.stdout.splitlines()[-1]))


def modules_of(package: str) -> list[str]:
    """Every module that is meant to be imported rather than run."""
    names = []
    for path in sources(package):
        if path.name == "__main__.py":
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def test_the_whole_coordinator_runs_without_models() -> None:
    """Every module of it, and what those bring along."""
    loaded = loaded_by(*modules_of("coordinator"))
    assert "fastapi" in loaded
    assert loaded & (HEAVY | {"llm_node", "retrieval_node", "ray"}) == frozenset()


def test_ray_is_imported_in_one_place_and_only_when_it_is_asked_for() -> None:
    found = {
        (str(path.relative_to(ROOT)), i.top)
        for package in PACKAGES
        for path in sources(package)
        for i in imports(path)
        if i.package == "ray"
    }
    assert found == {("coordinator/ray_engine/library.py", False)}


def test_the_shared_package_is_light() -> None:
    loaded = loaded_by(*modules_of("ragschema"))
    assert "grpc" in loaded
    assert loaded & (HEAVY | NODES | {"fastapi"}) == frozenset()


@pytest.mark.parametrize("package", sorted(NODES))
def test_a_nodes_command_line_module_is_light(package: str) -> None:
    loaded = loaded_by(f"{package}.__main__")
    assert loaded & HEAVY == frozenset()


def test_a_retrieval_node_never_loads_models() -> None:
    loaded = loaded_by(*modules_of("retrieval_node"))
    assert loaded & MODELS == frozenset()


def test_benchmarks_do_nothing_on_import() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, ",".join(modules_of("bench"))],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1  # the probe's own line
    assert done.stderr == ""
