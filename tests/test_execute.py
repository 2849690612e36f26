"""What `make notebooks` leaves behind: nothing, where it is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "notebooks.py"


def started(folder, count):
    """The tool at work on notebooks that say that they run, and then sleep; all that it starts has its output."""
    paths = [folder / f"{number}.ipynb" for number in range(count)]
    for path in paths:
        source = f"import pathlib, time\npathlib.Path({str(path.with_suffix('.runs'))!r}).touch()\ntime.sleep(60)"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    process = subprocess.Popen(
        [sys.executable, TOOL, *paths], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    until = time.monotonic() + 60
    while not all(path.with_suffix(".runs").exists() for path in paths):
        assert process.poll() is None and time.monotonic() < until, "the notebooks did not start"
        time.sleep(0.1)
    return process


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_workers_and_kernels_end_with_a_tool_that_is_killed(tmp_path):
    process = started(tmp_path, 2)
    process.kill()
    try:
        process.communicate(timeout=30)  # until nobody holds the output open any more
        assert process.returncode == -signal.SIGKILL
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
