"""`jaxlm generate`, run as a user runs it."""

import json
import re
from dataclasses import replace

import pytest

import jaxlm
from jaxlm.cli import generate, main, parse
from jaxlm.cli.generate import read_prompts
from jaxlm.tokenizer import train_tokenizer


def output(capsys, *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


TOLD = (
    r"int8: ([\d.]+) MB of weights instead of ([\d.]+); "
    r"over \d+ tokens KL divergence (\S+) nats a token, perplexity [\d.]+ -> [\d.]+\n"
)
GENERATE = ("--max-new-tokens", "12", "--seed", "3")


def test_a_stream_prints_what_generate_prints(run, capsys):
    words = ["generate", run, "--prompt", "今天", "--prompt", "fox", *GENERATE]
    assert output(capsys, *words, "--stream") == output(capsys, *words)


def test_prompts_come_from_a_file(run, capsys, tmp_path):
    lines, objects = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    lines.write_text("今天\nfox\n\n", encoding="utf-8")
    objects.write_text('"今天"\n{"prompt": "fox"}\n', encoding="utf-8")
    expected = output(capsys, "generate", run, "--prompt", "今天", "--prompt", "fox", *GENERATE)
    for file in (lines, objects):
        words = ["generate", run, "--prompts-file", str(file), *GENERATE]
        assert output(capsys, *words) == expected


def test_each_token_is_shown_with_its_probability_and_the_runners_up(run, capsys):
    words = ["generate", run, "--prompt", "今天", *GENERATE, "--temperature", "0"]
    shown = output(capsys, *words, "--show-probabilities").splitlines()
    assert shown[0] == "今天"
    for line in shown[1:]:
        choices = [choice.rsplit(" ", 1) for choice in line.strip().split(" / ")]
        probabilities = [float(p) for _, p in choices]
        assert len(choices) == 4
        assert probabilities == sorted(probabilities, reverse=True)
    row = json.loads(output(capsys, *words, "--show-probabilities", "--json"))
    (text,) = jaxlm.generate(jaxlm.load(run), ["今天"], max_new_tokens=12, temperature=0.0)
    assert "".join(token["text"] for token in row["tokens"]).startswith(text)


def test_speculation_and_stops_leave_the_text_what_it_is(run, capsys):
    words = ["generate", run, "--prompt", "fox fox fox", *GENERATE, "--temperature", "0"]
    plain = output(capsys, *words)
    assert output(capsys, *words, "--lookup") == plain
    assert output(capsys, *words, "--draft", run) == plain
    stop = plain[len("fox fox fox") + 4]
    stopped = output(capsys, *words, "--stop", stop)
    assert stopped == "fox fox fox" + plain[len("fox fox fox") :].split(stop)[0] + "\n"


def test_the_best_beams_come_with_their_scores(run, capsys):
    words = ["generate", run, "--prompt", "fox", "--max-new-tokens", "6", "--num-beams", "3"]
    rows = output(capsys, *words, "--num-samples", "2", "--json").splitlines()
    first, second = map(json.loads, rows)
    assert first["score"] >= second["score"]
    assert output(capsys, *words) == f"fox{first['text']}\n"


def test_int8_continues_the_text_and_tells_what_it_costs(run, capsys, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("今天天气真好 fox", encoding="utf-8")
    words = ["generate", run, "--prompt", "fox fox", *GENERATE, "--weights", "int8"]
    assert main(words) == 0
    assert re.fullmatch(r"int8: [\d.]+ MB of weights instead of [\d.]+\n", capsys.readouterr().err)
    beams = ["--num-beams", "2", "--seed", "0", "--max-new-tokens", "9"]
    for more in ([], beams):
        assert main([*words, "--quality-text", str(file), *more]) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith("fox fox")
        told = re.fullmatch(TOLD, captured.err)
        assert told is not None
        after, before, divergence = map(float, told.groups())
        assert after < 0.6 * before  # of so small a model much stays in fp32
        assert 0 <= divergence < 0.01


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--stream", "--show-probabilities"], "--stream and --show-probabilities do not go"),
        (["--lookup", "--num-beams", "2"], "--lookup and --num-beams do not go together"),
        (["--num-beams", "2", "--num-samples", "3"], "2 beams do not give 3 samples"),
        (["--num-beams", "0"], "num_beams must be at least 1"),
        (["--num-beams", "2", "--temperature", "2"], "--temperature does not go with --num-beams"),
        (["--num-beams", "2", "--stop", "a"], "--stop does not go with --num-beams"),
        (["--num-beams", "2", "--past-context", "refuse"], "--past-context does not go with"),
        (["--num-beams", "2", "--length-penalty", "nan"], "length_penalty must be finite"),
        (["--num-beams", "2", "--regex", ""], "--num-beams and --regex do not go together"),
        (["--length-penalty", "1"], "--length-penalty is for --num-beams"),
        (["--quality-text", "nowhere.txt"], "--quality-text is for --weights int8"),
        (["--max-new-tokens", "9999999999"], "max_new_tokens must be below 2**31"),
        (["--temp", "0"], "knows no --temp; did you mean --temperature?"),
        (["--min-p", "2"], "min_p must be in [0, 1]"),
        (["--json-schema", "nowhere.json"], "nowhere.json"),
        (["--prompts-file", "nowhere.txt"], "nowhere.txt"),
        (["--regex", "(a", "--weights", "int8"], "'(a' cannot be read: unclosed group"),
        (["--draft", "nowhere"], "nowhere"),
        (["--weights", "int8", "--quality-text", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(run, capsys, words, sentence):
    assert main(["generate", run, "--prompt", "fox", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert sentence in captured.err


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("p.txt", b"fox\xff\n", "p.txt is not UTF-8 text: byte 3 is wrong"),
        ("p.jsonl", b'"\xff"\n', "p.jsonl is not UTF-8 text: byte 1 is wrong"),
        ("p.jsonl", b"[" * 100_000, "p.jsonl holds a line that is not JSON"),
        ("p.jsonl", b'{"prompt": null}', "p.jsonl holds a line that is neither a string nor"),
        ("p.txt", b"\n  \n", "there is nothing to continue"),
    ],
)
def test_a_file_that_holds_no_prompts_is_refused(run, capsys, tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    assert main(["generate", run, "--prompts-file", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("option", ["--json-schema", "--quality-text"])
def test_a_file_of_other_bytes_than_utf_8_is_refused(run, capsys, tmp_path, option):
    (tmp_path / "file").write_bytes(b"{\xff}")
    words = ["generate", run, "--prompt", "fox", "--weights", "int8", option]
    assert main([*words, str(tmp_path / "file")]) == 2
    assert "file is not UTF-8 text: byte 1 is wrong" in capsys.readouterr().err


def test_a_schema_is_a_file_or_written_out(run, capsys, tmp_path):
    schema = '{"enum": [1]}'
    (tmp_path / "schema.json").write_text(schema, encoding="utf-8")
    for given in (schema, str(tmp_path / "schema.json")):
        assert main(["generate", run, "--prompt", "fox", "--json-schema", given]) == 2
        # Read as a schema, which this vocabulary without digits cannot follow.
        assert "can go on as the JSON schema asks" in capsys.readouterr().err


def test_what_a_models_files_suggest_is_told_and_taken_on_request(run, capsys, tmp_path):
    folder = tmp_path / "exported"
    jaxlm.export(jaxlm.load(run), folder)
    suggested = {"do_sample": True, "temperature": 1e-7, "max_new_tokens": 5, "top_k": 0}
    (folder / "generation_config.json").write_text(json.dumps(suggested), encoding="utf-8")
    words = ["generate", str(folder), "--prompt", "fox", "--seed", "3"]
    assert main([*words, "--max-new-tokens", "7"]) == 0
    told = capsys.readouterr().err
    assert "suggests --temperature 1e-07, --max-new-tokens 5; --suggested takes that" in told
    text = output(capsys, *words, "--suggested")
    assert text == output(capsys, *words, "--temperature", "0", "--max-new-tokens", "5")
    longer = output(capsys, *words, "--suggested", "--max-new-tokens", "7")
    assert longer == output(capsys, *words, "--temperature", "0", "--max-new-tokens", "7")


def test_texts_shorter_than_asked_for_are_explained(run, capsys):
    words = ["generate", run, "--prompt", "fox", "--temperature", "0", "--max-new-tokens", "9"]

    def ends(*more: str) -> tuple[str, str]:
        assert main([*words, *more]) == 0
        told = capsys.readouterr().err
        return json.loads(output(capsys, *words, *more, "--json"))["reason"], told

    assert ends() == ("length", "")
    text = json.loads(output(capsys, *words, "--json"))["text"]
    at_stop = "1 of 1 texts ended before 9 tokens at a --stop text\n"
    assert ends("--stop", text[4]) == ("stop_string", at_stop)
    assert main([*words, "--stop", text[4], "--stream"]) == 0
    assert capsys.readouterr().err == at_stop
    matched = "1 of 1 texts ended before 9 tokens, as nothing can follow what matches\n"
    assert ends("--regex", "[a-z]{3}") == ("match", matched)
    reason, told = ends("--regex", "[a-z]{30}")
    assert (reason, told[:47]) == ("length", "1 of 1 texts cut at 9 tokens before the match w")


def test_beams_at_temperature_0_are_beams(run, capsys):
    words = ["generate", run, "--prompt", "fox", "--max-new-tokens", "6", "--num-beams", "2"]
    assert output(capsys, *words, "--temperature", "0") == output(capsys, *words)


def test_lines_of_prompts_end_at_newlines_alone(tmp_path):
    def read(name: str, content: str) -> list[str]:
        (tmp_path / name).write_bytes(content.encode())
        words = ["generate", "run", "--prompts-file", str(tmp_path / name)]
        return read_prompts(parse(words))

    assert read("p.txt", "\ufeff今天\r\n \t\r\na\x0cb\u2028c\r") == ["今天", "a\x0cb\u2028c\r"]
    assert read("p.jsonl", '"a\u2028b"\r\n\r\n{"prompt": "c"}') == ["a\u2028b", "c"]


def test_a_draft_of_another_vocabulary_is_refused(run, capsys, monkeypatch):
    loaded = jaxlm.load(run)
    other = replace(loaded, tokenizer=train_tokenizer("char", ["other letters"], specials=[]))
    models = {run: loaded, "elsewhere": other}
    monkeypatch.setattr(generate, "load_model", models.__getitem__)
    assert main(["generate", run, "--prompt", "fox", "--draft", "elsewhere"]) == 2
    assert "elsewhere has another vocabulary than" in capsys.readouterr().err


def test_beams_are_shown_as_far_as_they_exist(run, capsys):
    words = ["generate", run, "--prompt", "fox", "--max-new-tokens", "1", "--json"]
    rows = output(capsys, *words, "--num-beams", "200", "--num-samples", "200").splitlines()
    assert len(rows) < 200
    assert all(json.loads(row)["score"] > -100 for row in rows)
