"""Files of a word a line."""

import pytest

from jaxlm.data import DataError
from jaxlm.data.rows import read_rows

TREEBANK = """# text = vámonos ya
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\tv\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\tp\t_\t1\tobj\t_\t_
2.1\tnada\t_\tPRON\t_\t_\t_\t_\t_\t_
3\tya\tya\tADV\tr\t_\t1\tadvmod\t_\t_

# a comment alone

1\tNew York\tNew York\tPROPN\tx\t_\t0\troot\t_\t_
"""


def test_a_treebank_is_read_word_by_word(tmp_path):
    file = tmp_path / "es.conllu"
    file.write_text(TREEBANK, encoding="utf-8")
    (where, first), (_, second) = read_rows(str(file), None)
    assert where == f"{file} line 1"
    assert first["tokens"] == first["form"] == ["vamos", "nos", "ya"]
    assert first["tags"] == first["upos"] == ["VERB", "PRON", "ADV"]
    assert first["deprel"] == ["root", "obj", "advmod"]
    assert second["tokens"] == ["New York"]
    file.write_text("1\tya\tADV\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 1 has 3 fields between tabs where CoNLL-U has 10"):
        list(read_rows(str(file), None))
