"""The import directions of the packages, executed: who may import whom, and who may import what is heavy.

As a program (`python tests/test_imports.py`) it prints the counts of the layout.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fastfit_watch"

# Each package may import only what stands beside it here: nothing else of ours, lazily or not.
MAY_IMPORT: dict[str, set[str]] = {
    "domain": set(),
    "system": {"domain"},
    "imaging": {"domain", "system"},
    "config": {"domain", "system"},
    "storage": {"domain", "system"},
    "bundles": {"domain", "system"},
    "engine": {"domain", "system"},
    "mini": {"domain", "engine"},
    "intake": {"domain", "system", "imaging", "config", "storage"},
    "reporting": {"domain", "system", "imaging", "config", "storage"},
    "worker": {"domain", "system", "imaging", "config", "bundles", "engine"},
    "daemon": {"domain", "system", "imaging", "config", "storage", "intake", "reporting"},
    "bench": {"domain", "system", "engine"},
    "cli": {"domain", "system", "imaging", "config", "storage", "bundles", "engine", "mini", "intake", "reporting"}
    | {"worker", "daemon", "bench"},
}
MOST_PACKAGES, MOST_FLOORS = 14, 9
# Only these packages, or modules of them, may import these, at any depth.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "torch": ("engine", "mini", "worker", "bench"),
    "diffusers": ("engine", "mini", "bench"),
    "onnxruntime": ("engine",),
    "transformers": ("engine",),
    "accelerate": ("engine",),
    "huggingface_hub": ("bundles/hub",),
    "watchdog": ("intake/watcher",),
    "sqlite3": ("storage",),
    "yaml": ("config/safe_yaml",),
    "pydantic": ("config/settings", "intake/manifest", "domain/limits", "domain/worker_protocol"),
    "c2pa": ("imaging/content_credentials",),
    "pillow_heif": ("imaging/codec",),
    "jinja2": ("reporting/gallery/templates",),
    "markupsafe": ("reporting/gallery",),
    "prometheus_client": ("reporting/metrics",),
    "rich": ("cli/progress_bar",),
    "loguru": ("daemon", "intake", "reporting"),
}
LIGHT = ("cli.main", "cli.check", "cli.status.view", "daemon.daemon", "reporting.report", "intake.loop")


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "fastfit_watch":
                yield from (f"fastfit_watch.{alias.name}" for alias in node.names)


SOURCES = sorted(path for path in PACKAGE.glob("*/**/*.py"))


def _arrows() -> set[tuple[str, str]]:
    """Every pair of packages of which the first imports the second."""
    found = set()
    for path in SOURCES:
        package = path.relative_to(PACKAGE).parts[0]
        imported = {name.split(".")[1] for name in _imports(path) if name.startswith("fastfit_watch.")}
        # Of the package itself only what its public face offers, such as __version__: no package of a stage.
        found |= {(package, each) for each in imported - {package} if (PACKAGE / each).is_dir()}
    return found


def _floors(arrows: set[tuple[str, str]]) -> dict[str, int]:
    """The floor of each package: one above the highest that it imports. Raises AssertionError on a circle."""
    floors: dict[str, int] = {}
    while len(floors) < len(MAY_IMPORT):
        ready = [
            each
            for each in MAY_IMPORT
            if each not in floors and all(to in floors for package, to in arrows if package == each)
        ]
        assert ready, f"a circle among {sorted(set(MAY_IMPORT) - set(floors))}"
        for each in ready:
            floors[each] = 1 + max((floors[to] for package, to in arrows if package == each), default=0)
    return floors


def test_one_package_for_each_stage_and_nothing_beside_them() -> None:
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages == set(MAY_IMPORT)
    assert len(packages) <= MOST_PACKAGES
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_each_package_says_why_it_exists(package: str) -> None:
    text = ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text(encoding="utf-8")))
    assert text
    assert text.rstrip().endswith(".")


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_point_down(package: str) -> None:
    wrong = {to for source, to in _arrows() if source == package} - MAY_IMPORT[package]
    assert not wrong, f"{package} may not import {wrong}"


def test_no_circles_and_few_floors() -> None:
    assert max(_floors(_arrows()).values()) <= MOST_FLOORS


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_and_special_libraries_stay_where_they_belong(path: Path) -> None:
    place = path.relative_to(PACKAGE).with_suffix("").as_posix()
    for name in _imports(path):
        library = name.split(".")[0]
        if library in ONLY_IN:
            allowed = any(place == each or place.startswith(f"{each}/") for each in ONLY_IN[library])
            assert allowed, f"{place} may not import {library}"


def test_the_engine_knows_failpoints_alone_of_the_system() -> None:
    for path in (PACKAGE / "engine").rglob("*.py"):
        ours = {name for name in _imports(path) if name.startswith("fastfit_watch.system")}
        assert ours <= {"fastfit_watch.system.failpoints"}, f"{path.name} imports {ours}"


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'cv2', 'numpy', 'onnxruntime', 'accelerate'}"
    program = f"import sys, fastfit_watch.{module}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def print_counts() -> None:
    """Print what the layout is judged by."""
    arrows = _arrows()
    floors = _floors(arrows)
    tests = {path.name for path in (PACKAGE.parent / "tests").rglob("test_*.py")}
    modules = [path for path in SOURCES if path.name not in {"__init__.py", "__main__.py"}]
    untested = [str(each.relative_to(PACKAGE)) for each in modules if f"test_{each.stem}.py" not in tests]
    print(f"packages {len(MAY_IMPORT)}, modules {len(modules)}, arrows between packages {len(arrows)}")
    print(f"floors {max(floors.values())}, circles 0, upward imports 0")
    print(f"modules without a test file of their name: {len(untested)}")
    print("\n".join(f"  {each}" for each in untested))


if __name__ == "__main__":
    print_counts()
