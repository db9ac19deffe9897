"""Data flows one way: a module imports only from those above it, and every file can be read in one sitting."""

import ast
from pathlib import Path

import pytest

import annealsubnet

PACKAGE = Path(__file__).parent.parent / "annealsubnet"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the values everything is made of down to the command. The solvers know nothing of networks.
ORDER = [
    "arguments",
    "trees",
    "progress",
    "batches",
    "networks",
    "mask_files",
    "masks",
    "parameter_files",
    "budgets",
    "patterns",
    "losses",
    "shrinking",
    "statistics",
    "evaluation",
    "neighborhoods",
    "problems",
    "solvers",
    "decompose",
    "fitting",
    "stochastic_fit",
    "refitting",
    "renormalizing",
    "gradual",
    "allocation",
    "exchanges",
    "selection",
    "frozen",
    "frozen_weights",
    "joint",
    "polishing",
    "thinning",
    "layer_costs",
    "shares",
    "pruning",
    "tickets",
    "distillation",
    "landscapes",
    "baselines",
    "report",
    "examples",
    "leap",
    "testing",
    "cli",
    "__main__",
]
# `from annealsubnet import prune` imports annealsubnet.pruning
PUBLIC = dict(annealsubnet._HOME)
INDEPENDENT = {
    "solvers": {"arguments", "solvers", "problems"},
    "decompose": {"arguments", "problems", "solvers"},
    "examples": {"examples", "progress"},
}


def part_of(module: str) -> str | None:
    """The part of the package that a dotted name belongs to; None outside it and for the package itself."""
    names = module.split(".")
    return PUBLIC.get(names[1], names[1]) if names[0] == "annealsubnet" and len(names) > 1 else None


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, module) of every import in a file, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports relatively; write the full name."
            found.append((node.lineno, node.module or ""))
            if node.module == "annealsubnet":
                found += [(node.lineno, f"annealsubnet.{alias.name}") for alias in node.names]
    return found


def own_part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_up(path):
    part = own_part(path)
    if part == "__init__":
        return
    assert part in ORDER, f"{part} has no place in the order of modules; give it one here and in CONTRIBUTING.md."
    for line, module in imported(path):
        other = part_of(module)
        if other is None or other == part:
            continue
        assert other in ORDER, f"{path}:{line} imports {module}, which has no place in the order of modules."
        assert ORDER.index(other) < ORDER.index(part), f"{path}:{line} imports {module}, which is below {part}."
        allowed = INDEPENDENT.get(part)
        assert allowed is None or other in allowed, f"{path}:{line} imports {module}; {part} stands alone."


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{path.name} has {lines} lines; split it by idea."


def test_modules_on_the_import_path_stay_light():
    """The package itself imports only the standard library; what is heavy waits until it is used."""
    heavy = {"numba", "matplotlib", "sklearn", "tyro", "dwave.system", "minorminer"}
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in top if isinstance(node, ast.ImportFrom) and node.module}
    assert not names & heavy and not any(part_of(name) for name in names)
