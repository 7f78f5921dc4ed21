"""`jaxlm VERB`, run as a user runs it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import jaxlm
from jaxlm.checkpoint import saved_steps
from jaxlm.cli import main
from jaxlm.training import fit
from tests.cli.verbs import refused
from tests.training.runs import sections_of, tiny

MAIN = "import sys; from jaxlm.cli import main; sys.exit(main())"
COMMAND = [sys.executable, "-c", MAIN]
# The same, with a sign of when the command takes over.
READY = MAIN.replace("; sys.exit", "; print('ready', flush=True); sys.exit")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    """The directory of a run that was trained for a moment."""
    folder = tmp_path_factory.mktemp("cli")
    config = tiny(folder, train={"steps": 1}, sample={"every": 0})
    fit(config)
    return config.run.dir


def start(*words: str, main: str = MAIN, **keywords) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | keywords
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    return subprocess.Popen([sys.executable, "-c", main, *words], env=env, **pipes)


def test_an_unknown_option_is_told_with_the_nearest_one(run, capsys):
    error = refused(capsys, "generate", run, "--prompt", "x", "--temprature", "0.8")
    assert "jaxlm generate knows no --temprature; did you mean --temperature?" in error


def test_generate_prints_each_prompt_with_its_continuation(run, capsys):
    words = ["generate", run, "--prompt", "今天", "--prompt", "fox", "--max-new-tokens", "9"]
    words += ["--temperature", "0.8", "--top-k", "5", "--top-p", "0.9", "--seed", "3"]
    words += ["--num-samples", "2"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    samples = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [sample["prompt"] for sample in samples] == ["今天", "今天", "fox", "fox"]
    assert shown == "---\n".join(f"{s['prompt']}{s['text']}\n" for s in samples)
    expected = jaxlm.generate(
        jaxlm.load(run),
        ["今天", "今天", "fox", "fox"],
        max_new_tokens=9,
        temperature=0.8,
        top_k=5,
        top_p=0.9,
        seed=3,
    )
    assert [sample["text"] for sample in samples] == expected


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "required: VERB"),
        (["genrate"], "jaxlm has no verb 'genrate'; did you mean generate?"),
        (["xyz"], "the verbs are: train, generate"),
        (["generate"], "required: RUN"),
        (["generate", "nowhere"], "give --prompt or --prompts-file"),
        (["generate", "nowhere", "--prompt", "a"], "nowhere"),
        (["generate", "nowhere", "--prompt", "a", "--temperature", "abc"], "'abc'"),
        (["generate", "nowhere", "--prompt", "a", "--temperature", "-1"], "temperature must be"),
        (["generate", "nowhere", "--prompt", "a", "--top-p", "0"], "top_p must be in (0, 1]"),
        (["generate", "nowhere", "--prompt", "a", "--top-p", "2"], "top_p must be in (0, 1]"),
        (["generate", "nowhere", "--prompt", "a", "--top-k", "0"], "top_k must be at least 1"),
        (["generate", "nowhere", "--prompt", "a", "--max-new-tokens", "0"], "max_new_tokens must"),
        (["generate", "nowhere", "--prompt", "a", "--num-samples", "0"], "num_samples must be"),
        (["generate", "nowhere", "--prompt", "a", "--bogus", "1"], "--bogus"),
    ],
)
def test_a_mistake_ends_with_status_2_and_one_sentence(capsys, words, sentence):
    assert sentence in refused(capsys, *words)


@pytest.mark.parametrize(("prompt", "sentence"), [("é", "'é'"), ("", "the prompt is empty")])
def test_a_prompt_that_cannot_be_continued_is_refused(run, capsys, prompt, sentence):
    assert sentence in refused(capsys, "generate", run, "--prompt", prompt)


@pytest.mark.parametrize(
    "words", [["--help"], ["generate", "--help"], ["train", "--help"], ["--version"]]
)
def test_help_does_not_wait_for_jax(words):
    program = (
        f"import sys, jaxlm.cli\ntry: jaxlm.cli.main({words})\n"
        "except SystemExit as end: assert not end.code\n"
        "print('jax' in sys.modules, 'flax' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    *text, loaded = done.stdout.splitlines()
    assert loaded == "False False"
    assert text[0].startswith(("usage: ", f"jaxlm {jaxlm.__version__}"))


@pytest.mark.parametrize("command", [["train.py"], ["-c", MAIN, "train"]])
def test_training_is_one_command_under_two_names(tmp_path, command):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(sections_of(tmp_path), allow_unicode=True), encoding="utf-8")
    words = ["--config", str(config), "--train.steps", "1", "--sample.every", "0"]
    words += ["--optim.warmup_steps", "1"]
    for mistake, status in ([], 0), (["--train.stps", "1"], 2):
        done = subprocess.run(
            [sys.executable, *command, *words, *mistake], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
    assert "did you mean train.steps?" in done.stderr
    assert (tmp_path / "run" / "summary.json").is_file()


def test_a_character_that_the_output_cannot_write_is_spelled_out(run):
    words = ["generate", run, "--prompt", "今天", "--max-new-tokens", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONIOENCODING", "ascii")
        command = start(*words)
    out, err = command.communicate()
    assert (command.returncode, err) == (0, "")
    assert out.startswith("\\u4eca\\u5929")


def test_a_closed_pipe_is_quiet(run):
    command = start("generate", run, "--prompt", "今天")
    assert command.stdout is not None
    command.stdout.close()  # as `head` does when it has seen enough
    assert command.stderr is not None
    assert command.stderr.read() == ""
    assert command.wait() == 0


@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_help_of_which_one_line_is_read_ends_without_a_traceback(reader, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # as in a user's terminal
    line = f"set -o pipefail; {shlex.join([*COMMAND, '--help'])} | {reader}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("usage: jaxlm [-h] [--version] VERB ...\n" if reader != "true" else "")


OWN_SCRIPT = """
import sys
from jaxlm import load_config
from jaxlm.training import fit
fit(load_config(sys.argv[1]))
"""


def test_ctrl_c_in_an_own_script_saves_and_tells_where_it_goes_on(tmp_path):
    sections = sections_of(tmp_path)
    sections["train"] |= {"steps": 100_000, "eval_every": 100_000, "checkpoint_every": 100_000}
    sections["sample"] = {"every": 0}
    config = tmp_path / "long.yaml"
    config.write_text(yaml.safe_dump(sections, allow_unicode=True), encoding="utf-8")
    command = start(str(config), main=OWN_SCRIPT)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.exists():
        assert command.poll() is None, command.communicate()[1]
        time.sleep(0.05)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=60)
    (step,) = saved_steps(tmp_path / "run" / "checkpoints")
    assert f"saved at step {step}; the same command goes on from there" in out
    assert err.splitlines()[-1] == (
        f"KeyboardInterrupt: saved at step {step}; the same command goes on from there"
    )
    assert command.returncode in (130, -signal.SIGINT)


@pytest.mark.parametrize("seconds", [0.2, 4.0])
def test_interrupting_is_quiet(run, seconds):
    command = start("generate", run, "--prompt", "今天", "--max-new-tokens", "10000000", main=READY)
    assert command.stdout is not None
    assert command.stdout.readline() == "ready\n"
    time.sleep(seconds)  # while it imports JAX, and while it makes its ten million tokens
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out, err) == (130, "", "")


def test_adapters_are_written_under_the_name_that_was_given(run, tmp_path, capsys, monkeypatch):
    words = ["export", run, tmp_path / "adapter_v0.1", "--adapters"]
    assert "has no step 99; it has" in refused(capsys, *words, "--step", 99)
    away = ["export", run, tmp_path / "none" / "adapter", "--adapters"]
    assert "there is no folder" in refused(capsys, *away)
    monkeypatch.setattr(
        "jaxlm.own_weights.write_trained", lambda run, file, step: file.write_bytes(b"")
    )
    assert main([*map(str, words)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["adapter_v0.1.safetensors"]
