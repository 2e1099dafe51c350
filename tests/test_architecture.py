"""The walls of the house: who may import whom, and what the pure rooms must not know.

Read from the source by `ast`, imports inside functions included, so that nothing hides. The rules are functions of
a table module -> source; the last tests plant a fault in such a table and see it found.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"fedprune": "common", "fedprune_server": "server", "fedprune_client": "client", "fedprune_lab": "lab"}
MAY_IMPORT = {
    "fedprune": {"fedprune"},
    "fedprune_server": {"fedprune", "fedprune_server"},
    "fedprune_client": {"fedprune", "fedprune_client"},
    "fedprune_lab": set(ROOMS),
}
PURE = (
    "fedprune.codec",
    "fedprune.csr",
    "fedprune.framing",
    "fedprune.mask",
    "fedprune.pruning",
    "fedprune.tensor",
    "fedprune_server.aggregation",
    "fedprune_server.proposal",
    "fedprune_server.pruner",
    "fedprune_server.readjusting",
    "fedprune_server.rounds",
    "fedprune_client.feedback",
    "fedprune_client.session",
)
WORLDLY = {"asyncio", "datetime", "google", "grpc", "os", "random", "secrets", "socket", "sqlite3"}
WORLDLY |= {"time", "torch", "uuid"}
SEEDED = {"Generator", "default_rng", "BitGenerator", "PCG64", "Philox", "SeedSequence"}

Sources = Mapping[str, str]


def sources() -> dict[str, str]:
    """Every module of the four rooms by its import name; generated code is left out."""
    found = {}
    for package, folder in ROOMS.items():
        for path in (ROOT / folder / package).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if not name.startswith("fedprune.v1"):
                found[name] = path.read_text(encoding="utf-8")
    return found


def imported(source: str) -> Iterator[str]:
    """Names a module imports: "a.b" for `import a.b`, and both "a" and "a.b" for `from a import b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "relative imports hide where a name comes from"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def edges(code: Sources) -> dict[str, set[str]]:
    """Which of our modules each of our modules imports, itself and its own packages left out."""
    return {
        name: {i for i in imported(text) if i in code and i != name and not name.startswith(i + ".")}
        for name, text in code.items()
    }


def broken_walls(code: Sources) -> list[str]:
    return [
        f"{name} imports {other}"
        for name, text in code.items()
        for other in imported(text)
        if top(other) in ROOMS and top(other) not in MAY_IMPORT[top(name)]
    ]


def impurities(code: Sources) -> list[str]:
    """What a pure module imports of the outer world, itself or by way of another module of ours."""
    graph = edges(code)
    found = []
    for name in code:
        if any(name == p or name.startswith(p + ".") for p in PURE):
            reach, todo = set(), [name]
            while todo:
                if (module := todo.pop()) not in reach:
                    reach.add(module)
                    todo.extend(graph[module])
            found += [
                f"{name} reaches {i} in {m}" for m in sorted(reach) for i in imported(code[m]) if top(i) in WORLDLY
            ]
            found += [f"{name} uses {use}" for use in unseeded(code[name])]
    return found


def unseeded(source: str) -> Iterator[str]:
    """Uses of numpy's global random state, and generators made without a seed."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"np.random", "numpy.random"}:
            if node.attr not in SEEDED:
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("default_rng") and not node.args:
            yield ast.unparse(node)


def circle(code: Sources) -> list[str]:
    try:
        TopologicalSorter(edges(code)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_the_rooms_are_there() -> None:
    assert {top(name) for name in sources()} == set(ROOMS)
    for module in ("fedprune.mask", "fedprune_server.rounds", "fedprune_client.session"):
        assert module in sources()


def test_server_and_client_stand_on_common_only() -> None:
    assert broken_walls(sources()) == []


def test_pure_modules_know_no_outer_world() -> None:
    assert impurities(sources()) == []


def test_no_import_circles() -> None:
    assert circle(sources()) == []


def test_the_library_knows_no_grpc_and_one_module_knows_messages() -> None:
    library = {name: set(imported(text)) for name, text in sources().items() if top(name) == "fedprune"}
    assert [name for name, names in library.items() if "grpc" in map(top, names)] == []
    assert [name for name, names in library.items() if {"google.protobuf", "fedprune.v1"} & names] == ["fedprune.wire"]


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("fedprune.mask", "import fedprune_server"),
        ("fedprune.mask", "from fedprune_client import session"),
        ("fedprune_server.rounds", "import fedprune_client.session as s"),
        ("fedprune_client.session", "def f():\n    from fedprune_server.rounds import x"),
        ("fedprune_server.app", "import fedprune_lab"),
    ],
)
def test_a_planted_import_breaks_a_wall(module: str, line: str) -> None:
    assert len(broken_walls({module: line})) >= 1
    assert broken_walls({"fedprune_lab.demo": line}) == []


@pytest.mark.parametrize(
    "line",
    [
        "import grpc.aio",
        "from time import monotonic",
        "def f():\n    import torch",
        "from fedprune import clock",
        "import fedprune.clock",
        "import numpy as np\nnp.random.rand(3)",
        "import numpy as np\nnp.random.default_rng()",
    ],
)
def test_a_planted_impurity_is_seen(line: str) -> None:
    code = {"fedprune": "", "fedprune.clock": "import time", "fedprune.codec.gap": line}
    assert impurities(code) != []


@pytest.mark.parametrize("line", ["import numpy as np\nnp.random.default_rng(seed)", "from math import log2"])
def test_what_pure_modules_may_use(line: str) -> None:
    assert impurities({"fedprune.codec.gap": line}) == []


def test_a_planted_circle_is_seen() -> None:
    code = {"fedprune": "", "fedprune.a": "import fedprune.b", "fedprune.b": "def f():\n    from fedprune import a"}
    assert set(circle(code)) == {"fedprune.a", "fedprune.b"}


# Certificates and what is told to people. Deadlines, retries and limits go by clocks that nobody sets.
MAY_READ_THE_DATE = {
    "common/fedprune/checkup/machine.py",
    "common/fedprune/checkup/papers.py",
    "client/fedprune_client/probing.py",
    "client/fedprune_client/renewing.py",
    "client/fedprune_client/start.py",
    "client/fedprune_client/tls_check.py",
    "server/fedprune_server/admission.py",
    "server/fedprune_server/audit.py",
    "server/fedprune_server/authority/app.py",
    "server/fedprune_server/enrolment.py",
    "server/fedprune_server/page/watching.py",
    "server/fedprune_server/probing.py",
    "server/fedprune_server/security.py",
    "server/fedprune_server/standing.py",
}
DATES = re.compile(r"\btime\.time(_ns)?\(|\b(datetime|date)\.(now|utcnow|today)\(")


def test_nothing_that_counts_goes_by_the_date() -> None:
    """P8: clocks that are a day off, or jump back, lose nothing and refuse nobody, because the protocol asks none."""
    files = [path for room in ("common", "server", "client") for path in (ROOT / room).rglob("*.py")]
    reads = {str(path.relative_to(ROOT)) for path in files if DATES.search(path.read_text(encoding="utf-8"))}
    assert reads == MAY_READ_THE_DATE
