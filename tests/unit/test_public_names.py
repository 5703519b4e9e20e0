"""The public names: `import fastfit_watch` is light, and each name leads to its class."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fastfit_watch
from fastfit_watch.domain.look import SamplingOptions
from fastfit_watch.engine.tryon import TryOnResult
from fastfit_watch.worker.local_engine import FastFitEngine


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_loads_no_module_of_it() -> None:
    loaded = "print([name for name in sys.modules if name.startswith('fastfit_watch.') or name == 'torch'])"
    assert run(f"import sys, fastfit_watch; fastfit_watch.__version__; {loaded}") == "[]\n"


def test_every_public_name_leads_to_its_class() -> None:
    assert fastfit_watch.FastFitEngine is FastFitEngine
    assert fastfit_watch.SamplingOptions is SamplingOptions
    assert fastfit_watch.TryOnResult is TryOnResult
    assert set(fastfit_watch.__all__) <= set(dir(fastfit_watch))
    with pytest.raises(AttributeError, match="no attribute 'FastFit'"):
        fastfit_watch.FastFit  # noqa: B018


def test_a_checkout_that_was_never_installed_has_a_version() -> None:
    hidden = "import importlib.metadata as m\ndef gone(name): raise m.PackageNotFoundError(name)\nm.version = gone\n"
    assert run(f"{hidden}import fastfit_watch; print(fastfit_watch.__version__)") == "0+unknown\n"
