"""Values of a verb by name, as a table or as JSON."""

import argparse
import json
from collections.abc import Mapping
from typing import Any


def show(args: argparse.Namespace, title: str, values: Mapping[str, Any]) -> None:
    """One JSON object with `--json`, else a table of all that fits in a cell."""
    if args.json:
        print(json.dumps(values, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", "", title=title, show_header=False)
    for name, value in values.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
        elif not isinstance(value, list):
            table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    Console().print(table)
