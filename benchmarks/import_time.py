"""What `import margins.losses` costs on top of `import torch`, in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys

from recording import Row, compared, record

NUM_PROCESSES = 9
LIMIT_MS = 100.0
PROBE = """
import json, time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import margins.losses
print(json.dumps([middle - start, time.perf_counter() - middle]))
"""


def import_times() -> tuple[float, float]:
    """Seconds of `import torch`, and of `import margins.losses` after it, in one fresh process."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    torch_seconds, margins_seconds = json.loads(done.stdout)
    return torch_seconds, margins_seconds


def main() -> int:
    """Measures, records, and says by the exit code whether the limit holds."""
    import_times()  # fills the caches of the file system and of compiled modules
    torch_times, margins_times = zip(*(import_times() for _ in range(NUM_PROCESSES)), strict=True)
    row = Row(
        name="import margins.losses", size="after import torch", peer="import torch",
        limit=LIMIT_MS, limit_of="ms", **compared(margins_times, torch_times),
    )  # fmt: skip
    record([row])
    return 0 if row.holds else 1


if __name__ == "__main__":
    sys.exit(main())
