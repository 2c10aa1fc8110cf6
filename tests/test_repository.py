"""The repository keeps its own promises: stubs, targets, sizes, pins."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ragschema", "coordinator", "llm_node", "retrieval_node", "bench", "scripts")
GENERATED = ("_pb2.py", "_pb2_grpc.py")
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400


def sources() -> list[Path]:
    return sorted(
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if not path.name.endswith(GENERATED)
    )


def test_generated_stubs_are_fresh(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/generate_wire.py", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    fresh = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*_pb2*.py*")}
    assert len(fresh) == 4 * len(list((ROOT / "proto").rglob("*.proto")))
    stale = [str(p) for p, text in fresh.items() if (ROOT / p).read_bytes() != text]
    assert stale == [], "run `make proto`"
    committed = {p.relative_to(ROOT) for p in (ROOT / "ragschema").rglob("*_pb2*.py*")}
    committed = {p for p in committed if p.suffix in (".py", ".pyi")}
    assert committed == set(fresh)


def make_targets() -> dict[str, str]:
    """Every phony target and its line."""
    text = (ROOT / "Makefile").read_text()
    names = [n for line in re.findall(r"^\.PHONY:(.*)$", text, re.M) for n in line.split()]
    return {
        name: next(line for line in text.splitlines() if line.startswith(f"{name}:"))
        for name in names
    }


def test_every_make_target_has_help() -> None:
    targets = make_targets()
    assert {"setup", "demo", "test", "help", "lint"} <= targets.keys()
    assert [n for n, line in targets.items() if not re.search(r"## \w", line)] == []


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    listed = {line.split()[1] for line in done.stdout.splitlines() if "make " in line}
    assert listed == set(make_targets())


def test_ci_runs_what_a_user_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "not executable"
    lines = [line.strip() for line in script.read_text().splitlines()]
    assert "make test" in lines
    assert any(line.startswith("set -e") for line in lines)


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_no_function_is_too_long() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{f.lineno} {f.name} has {f.end_lineno - f.lineno + 1} lines"
        for path in sources()
        for f in functions(path)
        if f.end_lineno is not None and f.end_lineno - f.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_no_file_is_too_long() -> None:
    sizes = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in sources()}
    assert [f"{p.relative_to(ROOT)}: {n}" for p, n in sizes.items() if n > MAX_FILE_LINES] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert silent == []


def project() -> dict[str, object]:
    loaded: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return loaded


def requirement_names() -> list[str]:
    table = project()
    extras = table["optional-dependencies"]
    assert isinstance(extras, dict)
    lines = [*table["dependencies"], *(r for group in extras.values() for r in group)]  # type: ignore[misc]
    return sorted({canonical(re.split(r"[<>=!~;\[ ]", line)[0]) for line in lines})


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, version in found}


def test_every_dependency_is_pinned() -> None:
    assert [name for name in requirement_names() if name not in pins()] == []


def test_pins_are_exact_versions() -> None:
    assert [v for v in pins().values() if not re.fullmatch(r"[0-9][0-9A-Za-z.+]*", v)] == []


@pytest.mark.parametrize("name", PACKAGES[:4])
def test_packages_are_typed(name: str) -> None:
    assert (ROOT / name / "py.typed").exists()


TRACKED_SUFFIXES = {".py", ".md", ".proto", ".toml", ".yaml", ".yml", ".txt", ".sh", ".json"}


def tracked() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [p for p in paths if p.suffix in TRACKED_SUFFIXES and p.exists()]


def test_no_file_promises_work_that_is_not_there() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")
    broken = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert broken == []


def test_no_large_file_is_committed() -> None:
    large = [str(p.relative_to(ROOT)) for p in tracked() if p.stat().st_size > 1 << 20]
    assert large == []


def test_links_of_the_documentation_lead_somewhere() -> None:
    link = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
    broken = [
        f"{path.relative_to(ROOT)} -> {target}"
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
        for target in link.findall(path.read_text(encoding="utf-8"))
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []
