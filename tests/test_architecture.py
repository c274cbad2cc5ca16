"""The rules that keep the stages apart."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ["preprocessing", "search", "ensemble", "serve"]
MAY_IMPORT_RAY = {
    "ensemble/score.py",
    "preprocessing/__main__.py",
    "preprocessing/cluster.py",
    "search/adapters.py",
    "search/tensorboard.py",
    "search/tuning.py",
    "serve/deployments.py",
    "serve/replicas.py",
    "serve/applications.py",
    "serve/keeper.py",
    "serve/keeping.py",
    "serve/service.py",
}


def imported_packages(path: Path) -> set[str]:
    """Top-level names that a module imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_only_stages_to_its_left(stage: str) -> None:
    to_the_right = set(STAGES[STAGES.index(stage) + 1 :])
    for path in (ROOT / stage).rglob("*.py"):
        assert not imported_packages(path) & to_the_right, path


def test_ray_is_imported_in_the_named_modules_only() -> None:
    found = {
        str(path.relative_to(ROOT))
        for stage in STAGES
        for path in (ROOT / stage).rglob("*.py")
        if "ray" in imported_packages(path)
    }
    assert found == MAY_IMPORT_RAY


@pytest.mark.parametrize("stage", STAGES)
def test_importing_a_stage_runs_nothing(stage: str) -> None:
    body = ast.parse((ROOT / stage / "__init__.py").read_text()).body
    assert [type(node) for node in body] == [ast.Expr]  # its docstring


@pytest.mark.parametrize("stage", STAGES)
def test_the_readme_has_every_module_of_a_stage_in_its_tree(stage: str) -> None:
    """Those of its sub-folders stand behind the folder's name."""
    readme = (ROOT / "README.md").read_text()
    found = re.search(rf"^    {stage}/ .*?(?=^    [a-z]+/ )", readme, re.MULTILINE | re.DOTALL)
    assert found
    modules = [path.name for path in (ROOT / stage).glob("*.py") if not path.name.startswith("__")]
    assert [name for name in modules if not re.search(rf"(?<!\w){re.escape(name)}", found.group())] == []
