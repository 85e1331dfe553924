"""Reports of measurements: a table on stdout, and a JSON file that says where the numbers were taken. Impure."""

import json
import math
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from o2o_jax.runtime import provenance

BUSY = 0.5  # load average above which other programs are worth a warning


class Report:
    """A JSON file that says where its numbers were taken. Made before any of them: it warns where others are at work.

    Args:
      benchmark: its name, and that of the file.
      settings: what it runs with; no paths of this machine.
    """

    def __init__(self, benchmark: str, settings: Mapping[str, Any]) -> None:
        self._benchmark, self._settings, self._load = benchmark, settings, os.getloadavg()[0]
        self._commit = provenance.commit()  # that which is measured, not what follows meanwhile
        if self._load > BUSY:
            print(
                f"note: load average {self._load:.1f}: other programs are running, and these numbers suffer",
                file=sys.stderr,
            )

    def write(self, out: str | Path, **result: Any) -> None:
        """Writes `<out>/<benchmark>.json` and says so.

        Args:
          out: folder, made where it is missing; a file of the same benchmark is replaced.
          **result: what was measured; "rows" is a list with a dictionary for every line of the table.
        """
        path = Path(out) / f"{self._benchmark}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "benchmark": self._benchmark,
            "settings": self._settings,
            "commit": self._commit,
            **provenance.environment(),
            "load_average_before": self._load,
            **result,
        }
        path.write_text(json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n")
        print(f"written to {path}")


def resident_megabytes() -> float:
    """Memory of this process that is resident now, in MB (1e6 bytes); its maximum so far where /proc is missing."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_resident_megabytes()
    return pages * resource.getpagesize() / 1e6


def peak_resident_megabytes() -> float:
    """The most memory that was ever resident in this process, in MB (1e6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]) -> str:
    """Rows as a markdown table.

    Args:
      rows: a dictionary each.
      columns: heading -> (key of the rows, format such as ".1f"); what a row lacks or has as NaN shows as "–".
    """
    cells = [list(columns), *([_cell(row.get(key), form) for key, form in columns.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in cells]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any, form: str) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "–" if missing else format(value, form)


def _finite(value: Any) -> Any:
    """The value with numbers that JSON doesn't know as null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
