"""`jaxlm chat`, run as a user runs it."""

import io
import json

import jaxlm
from jaxlm.cli import main


def converse(capsys, monkeypatch, run: str, lines: list[str], *more: str) -> tuple[list[str], str]:
    said = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(said), encoding="utf-8"))
    assert main(["chat", run, "--max-new-tokens", "9", "--temperature", "0", *more]) == 0
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err


def test_a_chat_answers_line_by_line_forgets_and_saves(run, capsys, monkeypatch, tmp_path):
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    patch_template(monkeypatch, template)
    saved = tmp_path / "talk.json"
    lines = ["fox", "fox", "/reset", "fox", f"/save {saved}", "/what", "/exit", "fox"]
    _, errors = converse(capsys, monkeypatch, run, lines)
    assert "/reset, /save FILE and /exit" in errors
    messages = json.loads(saved.read_text(encoding="utf-8"))["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"]
    (reply,) = jaxlm.generate(jaxlm.load(run), ["fox"], max_new_tokens=9, temperature=0.0)
    assert messages == [
        {"role": "user", "content": "fox"},
        {"role": "assistant", "content": reply.strip()},
    ]


def test_a_chat_goes_on_after_a_line_that_cannot_be_answered(run, capsys, monkeypatch):
    patch_template(monkeypatch, "{% for m in messages %}{{ m.content }}{% endfor %}")
    answers, errors = converse(capsys, monkeypatch, run, ["\udcff\udcfe", "\x07", "fox"])
    first, second = errors.splitlines()
    assert first == "error: the line is not UTF-8 text"
    assert second.startswith("error: the tokenizer's vocabulary has no '\\x07'")
    alone, none = converse(capsys, monkeypatch, run, ["fox"])
    assert answers == alone
    assert none == ""


def patch_template(monkeypatch, template: str) -> None:
    """Every tokenizer that is loaded has this chat template."""
    from jaxlm.tokenizer import Tokenizer

    start = Tokenizer.__init__

    def with_template(self, backend, config=None):
        start(self, backend, {**(config or {}), "chat_template": template})

    monkeypatch.setattr(Tokenizer, "__init__", with_template)


def test_a_chat_in_int8_answers(run, capsys, monkeypatch):
    patch_template(monkeypatch, "{% for m in messages %}fox{{ m.content }}{% endfor %}")
    answers, told = converse(capsys, monkeypatch, run, ["fox"], "--weights", "int8")
    assert len(answers) >= 1
    assert told.startswith("int8: ")


def test_a_chat_shows_tools_of_a_file(run, capsys, monkeypatch, tmp_path):
    template = "{{ tools[0].name }}{% for m in messages %}{{ m.content }}{% endfor %}"
    patch_template(monkeypatch, template)
    file = tmp_path / "tools.json"
    file.write_text('[{"name": "fox "}]', encoding="utf-8")
    answers, _ = converse(capsys, monkeypatch, run, ["fox"], "--tools", str(file))
    (reply,) = jaxlm.generate(jaxlm.load(run), ["fox fox"], max_new_tokens=9, temperature=0.0)
    assert "\n".join(answers).strip() == reply.strip()
    for content, told in [("{", "is not JSON"), ('{"name": 1}', "tools must be a list of JSON")]:
        file.write_text(content, encoding="utf-8")
        assert main(["chat", run, "--tools", str(file)]) == 2
        assert told in capsys.readouterr().err


def test_a_chat_without_a_template_is_refused(run, capsys):
    assert main(["chat", run]) == 2
    assert "no chat template" in capsys.readouterr().err
