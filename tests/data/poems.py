"""Poems as rows of a file, and how tests read it."""

import csv
import gzip
import json

from jaxlm.config import DataConfig
from jaxlm.data import read_corpus

POEMS = ["明月几时有？\n把酒问青天。", 'He said "no",\tand left.', "大江东去，浪淘尽。"]


def read(source, **settings):
    return read_corpus(DataConfig(source=str(source), **settings))


def write_rows(file, texts=POEMS, column="text"):
    rows = [{"id": i, column: text} for i, text in enumerate(texts)]
    match "".join(file.suffixes):
        case ".jsonl":
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            file.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
        case ".jsonl.gz":
            file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
        case ".csv":
            with file.open("w", encoding="utf-8", newline="") as out:
                writer = csv.DictWriter(out, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        case ".tsv":
            lines = ["\t".join(rows[0]), *(f"{row['id']}\t{row[column]}" for row in rows)]
            file.write_text("\n".join(lines), encoding="utf-8")
        case ".parquet":
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(rows), file)
