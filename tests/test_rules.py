"""Rules about the code itself: which way imports point, sizes, state, and that every system call is accounted for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from asyncsentry import syscalls
from asyncsentry.syscalls.registry import ROWS, Support
from asyncsentry.syscalls.stubs import STUBS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "asyncsentry"
MODULES = sorted(PACKAGE.rglob("*.py"))
LINES_MAX = 600
HIGHEST_CALL = 469

LAYERS = (
    {"errnos", "waiter", "clock", "gate", "abi", "loop", "bootlog"},
    {"memory", "platforms", "sysctl"},
    {"fs", "net"},
    {"tasks", "kernel"},
    {"syscalls"},
    {"boot", "sandbox", "streams", "__init__"},
    {"oci", "control", "testing", "cli", "__main__"},
)
"""Lowest first: a module imports from its own layer or a lower one."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def layer_of(module: str) -> int:
    """Gives the layer of ``asyncsentry.part.…`` or of ``asyncsentry`` itself."""
    part = module.split(".")[1] if "." in module else "__init__"
    for number, parts in enumerate(LAYERS):
        if part in parts:
            return number
    raise AssertionError(f"asyncsentry.{part} is in no layer: name it in LAYERS")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def module_meant(module: str, name: str) -> str:
    """Gives the module ``from module import name`` takes something from: ``name`` may be one itself."""
    path = ROOT.joinpath(*module.split("."), name)
    return f"{module}.{name}" if path.is_dir() or path.with_suffix(".py").exists() else module


def imports_at_run_time(node: ast.AST) -> Iterator[str]:
    """Gives every module of ours that is imported, but for ``if TYPE_CHECKING`` blocks."""
    for child in ast.iter_child_nodes(node):
        if is_for_types_only(child):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, "imports name their module in full"
            yield from (module_meant(str(child.module), alias.name) for alias in child.names)
        yield from imports_at_run_time(child)


def test_imports_point_one_way() -> None:
    upward = []
    for path in MODULES:
        layer = layer_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        upward += [f"{name_of(path)} imports {module}" for module in imports_at_run_time(tree_of(path))
                   if module.split(".")[0] == "asyncsentry" and layer_of(module) > layer]  # fmt: skip
    assert not upward, "these point upward in LAYERS"


def test_a_long_module_says_why() -> None:
    without_reason = []
    for path in MODULES:
        lines = len(path.read_text().splitlines())
        if lines > LINES_MAX and not re.search(r"\blong\b", ast.get_docstring(tree_of(path)) or ""):
            without_reason.append(f"{name_of(path)}: {lines} lines")
    assert not without_reason, "split them, or say in their docstring why they are that long"


def test_nothing_is_left_to_do() -> None:
    sources = [path for path in (*MODULES, *PACKAGE.rglob("*.[ch]")) if not path.name.startswith("_native")]
    assert not [name_of(path) for path in sources if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", path.read_text())]


def is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).split(".")[-1] in ("dict", "list", "set", "deque", "defaultdict", "bytearray",
                                                          "WeakSet", "WeakKeyDictionary", "WeakValueDictionary")
    return isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp | ast.SetComp)


def mutable_globals(tree: ast.Module) -> Iterator[str]:
    """Gives names at module level that hold something mutable and are not spelt as constants."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign):
            targets, value = [node.target], node.value
        else:
            continue
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if is_mutable(value):
            yield from (name for name in names if name.upper() != name and name != "__all__")


def test_no_state_at_module_level() -> None:
    state = []
    for path in MODULES:
        state += [f"{name_of(path)}: {name}" for name in mutable_globals(tree_of(path))]
        state += [f"{name_of(path)}: global" for node in ast.walk(tree_of(path)) if isinstance(node, ast.Global)]
    assert not state, "state hangs from the Kernel object; tables are in capitals"


# System calls ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def calls_are_loaded() -> None:
    syscalls.load()


def test_every_number_is_answered_or_has_a_reason_not_to_be() -> None:
    expected = {*range(335), *range(424, HIGHEST_CALL + 1)}  # x86-64 leaves 335 to 423 out
    answered = {number for number, row in ROWS.items() if row.support is not Support.NONE}
    absent = {stub.number for stub in STUBS}
    assert not answered & absent, "both a handler and a row in stubs.py"
    assert not expected - answered - absent, "neither a handler nor a row in stubs.py"
    assert all(stub.reason for stub in STUBS)


def test_every_handler_says_what_it_is() -> None:
    for row in ROWS.values():
        if row.support is Support.NONE:
            continue
        words = row.handler.__doc__ or ""
        assert words.startswith(f"{row.name}(2)"), f"the docstring of {row.name} begins with `{row.name}(2):`"


def test_a_partial_call_says_what_is_missing() -> None:
    for row in ROWS.values():
        assert bool(row.missing) == (row.support is not Support.FULL), row.name


def test_errnos_of_a_call_are_linux_names() -> None:
    from asyncsentry import errnos

    for row in ROWS.values():
        unknown = [name for name in row.errnos if not hasattr(errnos, name)]
        assert not unknown, f"{row.name} may return {unknown}"


# Prose -------------------------------------------------------------------------------------------


def tracked_files() -> list[Path]:
    """Gives the files a reader sees: sources, scripts and pages."""
    found = [path for pattern in ("*.md", "*.toml", "Makefile") for path in ROOT.glob(pattern)]
    for folder in ("asyncsentry", "tests", "docs", "scripts", "examples", "bench", ".ci"):
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    made = {"__pycache__", "build"}
    return [path for path in found if not made & set(path.parts) and not path.name.startswith("_native")]


def test_no_place_of_one_machine_is_named() -> None:
    places = re.compile(r"(?<![\w.])/(work|root/\.pyenv|home/\w+)/")
    named = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        if places.search(text) and path != Path(__file__):
            named.append(name_of(path))
    assert not named
