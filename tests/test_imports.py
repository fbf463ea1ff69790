"""Imports point one way: no room of sg3 reaches up, and no modules import one another in a circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

SG3 = Path(__file__).parent.parent / "sg3"
# From the bottom up: a room imports itself and what stands before it. Rooms of one line know nothing of each other.
ROOMS = """kernels | _version extras terminal | errors cpu_sharing resources
    canvas durations environment limits portable shortage threads transparency | pickle_scan | pickle_size
    atomic plain_files | cache device invocation local_ranks named_paths progress published randomness
    plotting processes run_folder
    models side_by_side | sampling
    data formats | metrics | train | tools | viewer | api | sg3 | cli | __main__ | compat"""
LEVEL = {room: level for level, rooms in enumerate(ROOMS.replace("\n", "|").split("|")) for room in rooms.split()}
FILES = {".".join(path.relative_to(SG3.parent).with_suffix("").parts).removesuffix(".__init__"): path
         for path in SG3.rglob("*.py") if SG3 / "compat" / "modules" not in path.parents}  # fmt: skip


def imports(tree: ast.AST) -> set[str]:
    """The modules of sg3 that a module imports, wherever in it, but for those that only the type checker sees."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{ast.unparse(node)}: write the module's full name"
            modules = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name in FILES else str(node.module) for name in modules}
        found |= imports(node)
    return {name for name in found if name in FILES}


def test_imports_point_one_way() -> None:
    graph = {name: imports(ast.parse(path.read_text())) for name, path in FILES.items()}
    room = {name: (name + ".sg3").split(".")[1] for name in graph}
    assert [f"{name} imports {other}" for name, others in graph.items() for other in others
            if room[name] != room[other] and LEVEL[room[name]] <= LEVEL[room[other]]] == []  # fmt: skip
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules
