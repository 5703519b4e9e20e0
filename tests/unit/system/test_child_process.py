"""A child that ends with its parent, in real processes."""

from __future__ import annotations

import os
import select
import subprocess
import sys

from fastfit_watch.system.child_process import end_with_parent

CHILD = f"""
import time
from {end_with_parent.__module__} import end_with_parent
end_with_parent()
print("tied", flush=True)
time.sleep(600)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
PATIENCE_S = 120.0


def test_a_child_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        ended, _, _ = select.select([child], [], [], PATIENCE_S)  # a pidfd is readable once its process has ended
        assert ended, "the child outlives its parent"
    finally:
        os.close(child)
