"""Run every ``bench_*.py`` in turn; arguments are passed on (``--quick``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

for script in sorted(Path(__file__).parent.glob("bench_*.py")):
    subprocess.run([sys.executable, "-m", f"benchmarks.{script.stem}", *sys.argv[1:]], check=True)
