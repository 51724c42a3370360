"""The documentation: what it names exists, and what is generated is up to date."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

from asyncsentry.control.syscalls import as_json, as_markdown, coverage, summary

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MADE_BY_BENCH = (ROOT / "bench/results.md", ROOT / "bench/comparison.svg")
"""Written by `make bench`; a checkout may be without them."""
_SPAN = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"((?:[\w.-]+/)*[\w.-]+\.(?:py|c|h|sh|toml|md|svg)|(?:[\w.-]+/)+)(?::([\w.]+))?")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@cache
def python_names(path: Path) -> frozenset[str]:
    """Gives what a module defines: functions, classes, methods, and names it assigns."""
    names: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")
            if isinstance(node, ast.Assign):
                names.update(prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(prefix + node.target.id)

    collect(ast.parse(path.read_text()).body, "")
    return frozenset(names)


@cache
def c_names(path: Path) -> frozenset[str]:
    """Gives the functions a C file defines, and the macros."""
    text = path.read_text()
    return frozenset(re.findall(r"^\w[\w\s*]*?\b(\w+)\([^;{]*\) ?\{", text, re.MULTILINE)) | frozenset(
        re.findall(r"^#define (\w+)", text, re.MULTILINE))


def test_the_name_finders_find() -> None:
    assert "Blocker.wait" in python_names(ROOT / "asyncsentry/tasks/block.py")
    assert "handler" in c_names(ROOT / "asyncsentry/platforms/systrap/stub.c")
    assert "no_such" not in c_names(ROOT / "asyncsentry/platforms/systrap/stub.c")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_function_named_exists(page: Path) -> None:
    wrong = []
    for span in _SPAN.findall(_FENCE.sub("", page.read_text())):
        match = _PATH.fullmatch(span)
        if match is None:
            continue
        name, function = match.groups()
        path = ROOT / name
        if not path.exists():
            wrong.append(span)
        elif function is not None:
            known = python_names(path) if path.suffix == ".py" else c_names(path)
            if function not in known:
                wrong.append(span)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = [(page.parent / target).resolve() for target in _LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not target.exists() and target not in MADE_BY_BENCH] == []


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {target for page in PAGES for target in re.findall(r"\bmake ([a-z-]+)\b`", page.read_text())}
    assert {"run", "test"} <= named
    assert [target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_the_list_of_system_calls_is_up_to_date() -> None:
    assert (ROOT / "docs/syscalls.md").read_text() == as_markdown(coverage()), (
        "write it anew: asyncsentry syscalls --format markdown > docs/syscalls.md")


def test_the_forms_of_the_list_agree() -> None:
    rows = coverage()
    assert [tuple(item.values()) for item in json.loads(as_json(rows))] == [tuple(row) for row in rows]
    assert sum(map(int, re.findall(r"\d+ (?=supported|partial|unsupported)", summary(rows)))) == len(rows)


def test_decisions_are_numbered_without_gaps_and_listed() -> None:
    decisions = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    index = (ROOT / "docs/adr/README.md").read_text()
    assert [path.name for path in decisions if f"]({path.name})" not in index] == []
    for path in decisions:
        headings = re.findall(r"^## (.*)$", path.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Evidence", "Consequences"], path.name
