"""What `jaxlm plan` counts, beside what the compiled step takes, and what it prints."""

import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxlm.cli import main
from jaxlm.cli.plan import lines
from jaxlm.config import JaxlmError, load_config
from jaxlm.models import make_model
from jaxlm.parallel import device_chip
from jaxlm.training import counting
from jaxlm.training.counting import count_memory, count_seconds, count_sent, divisions, suggest
from jaxlm.training.plan import count_step, make_plan, resolve_or_stand_in
from jaxlm.training.programs import compile_and_start
from tests.cli.verbs import refused
from tests.training.runs import tiny

LARGE = ["--config", "gpt2_124m", "--device", "h100"]


@pytest.fixture(scope="module")
def counted():
    """The counts of a step of the recipe gpt2_124m, in bfloat16."""
    config = load_config("gpt2_124m", ["--model.compute_dtype", "bfloat16"])
    resolved, _ = resolve_or_stand_in(config)
    batch = resolved.task.train_batch(0)
    return count_step(resolved.config, resolved.task, batch, resolved)


def test_a_plan_for_this_machine_is_that_of_the_step_it_runs(tmp_path):
    config = tiny(tmp_path)
    plan = make_plan(config)
    resolved, _ = resolve_or_stand_in(config)
    task = resolved.task
    parts = resolved.config, make_model(resolved.config.model), task.objective
    state, _ = compile_and_start(*parts, task.train_batch(0), None, {})
    sizes = [x.nbytes for x in jax.tree.leaves(state)]
    assert plan.num_params == sum(x.size for x in jax.tree.leaves(state.params))
    assert plan.checkpoint == sum(sizes)
    assert plan.state_memory == pytest.approx(sum(sizes), rel=0.02)  # and the batch
    assert (plan.source, plan.fits, plan.devices) == ("compiled", True, 1)
    assert plan.step_tokens == 64
    assert plan.tokens == 24 * 64
    assert plan.seconds == pytest.approx(24 * plan.probe.step_seconds)
    said = lines(plan)
    assert said[-1].startswith("this machine (1 x cpu): ")
    assert not any("\n" in line for line in said)


def test_counts_of_gpt2_are_near_those_of_its_compiled_step(counted):
    """As scripts/compile_for.py found for 8 rows: 3.1 GB on a v5e and 3.9 GB on an H100, 47 GB
    moved."""
    one = {"data": 1, "fsdp": 1, "tensor": 1}
    memory = count_memory(counted, one, 64)
    work = memory.activations + memory.gradients / 2  # one micro-batch: nothing is added up
    assert counted.num_params == 124_475_904
    assert 3.1e9 < work < 3.9e9
    moved = counting.count_moved(counted, one, 64) / 64
    assert moved == pytest.approx(47e9, rel=0.1)
    assert counted.flops / 512 / 1024 == pytest.approx(6 * 124e6 + 12 * 12 * 768 * 1024, rel=0.01)


def test_memory_a_device_falls_under_fsdp_and_tensor(counted):
    whole = count_memory(counted, {"data": 8, "fsdp": 1, "tensor": 1}, 16)
    fsdp = count_memory(counted, {"data": 1, "fsdp": 8, "tensor": 1}, 16)
    tensor = count_memory(counted, {"data": 4, "fsdp": 1, "tensor": 2}, 16)
    assert fsdp.state == pytest.approx(whole.state / 8, rel=0.02)
    assert whole.state / 2 < tensor.state < 0.52 * whole.state
    assert fsdp.activations == pytest.approx(whole.activations)


def test_what_devices_send_is_what_their_axes_exchange(counted):
    gradients = 4 * counted.num_params
    sent = count_sent(counted, {"data": 8, "fsdp": 1, "tensor": 1}, 16)
    assert sent == {"data": 2 * 7 / 8 * gradients, "fsdp": 0, "tensor": 0}
    sent = count_sent(counted, {"data": 1, "fsdp": 8, "tensor": 1}, 16)
    assert sent == {"data": 0, "fsdp": 3 * 7 / 8 * gradients * 16, "tensor": 0}


def test_more_hosts_of_gpus_exchange_over_the_network(counted):
    h100, v5p = device_chip("h100"), device_chip("v5p")
    for chip, slower in ((h100, True), (v5p, False)):
        one, two = ({"data": n, "fsdp": 1, "tensor": 1} for n in (8, 16))
        times = [count_seconds(counted, chip, sizes, 16).links for sizes in (one, two)]
        assert (times[1] > 5 * times[0]) == slower


def test_the_mesh_suggested_has_the_memory_and_is_the_simplest(counted):
    assert {math.prod(sizes.values()) for sizes in divisions(12)} == {12}
    sizes, accumulate = suggest(counted, device_chip("h100"), 8)
    assert sizes == {"data": 8, "fsdp": 1, "tensor": 1}
    assert accumulate == 1
    sizes, accumulate = suggest(counted, device_chip("v5e"), 8)
    memory = count_memory(counted, sizes, accumulate).total
    assert memory < device_chip("v5e").memory < count_memory(counted, sizes, accumulate // 2).total


def test_a_model_too_large_is_told_and_a_mesh_that_holds_it_suggested(capsys):
    words = ["--model.d_model", "8192", "--model.num_heads", "64", "--model.num_layers", "8"]
    assert main(["plan", *LARGE, *words, "--devices", "8", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not plan["fits"]
    assert plan["largest_micro_batch"] is None
    assert plan["suggested"]["fsdp"] * plan["suggested"]["tensor"] > 1
    assert main(["plan", *LARGE, *words]) == 0
    said = capsys.readouterr().out
    assert "IT DOES NOT FIT" in said
    assert "suggested: more devices, or model.remat full" in said


def test_figures_of_a_device_that_cannot_be_compiled_for_are_counted_and_say_so(
    monkeypatch, capsys
):
    monkeypatch.setattr("jaxlm.parallel.chips.find_spec", lambda name: None)
    assert main(["plan", *LARGE, "--devices", "8"]) == 0
    said = capsys.readouterr().out
    assert "8 x h100 (data 8)" in said
    assert "(counted: jax[cuda13] is not installed)" in said
    assert "assumed: products at 60% of the peak" in said
    assert "sample:tinyshakespeare stands in" in said
    assert "this machine (cpu): not probed, as a row alone takes" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--device", "h1000"], "it is one of h100, h200, a100, v5e, v5p, v6e"),
        (["--devices", "0"], "takes a whole number above 0"),
        (["--devic", "h100"], "did you mean --device"),
        (["--train.stps", "1"], "did you mean train.steps?"),
        (["--device", "h100", "--devices", "6", "--parallel.fsdp", "4"], "a multiple of 4 devices"),
    ],
)
def test_a_mistake_is_one_sentence(capsys, words, sentence):
    assert sentence in refused(capsys, "plan", "--config", "gpt_tiny", *words)


def test_the_script_that_compiles_for_other_chips_says_a_mistake_in_one_sentence():
    script = Path(__file__).parents[2] / "scripts/compile_for.py"
    words = ["--config", "gpt2_124m", "--train.stps", "1"]
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: train.stps is not a known field; did you mean train.steps?\n"


def test_a_vocabulary_that_only_the_hub_could_tell_is_asked_for():
    config = load_config("gpt2_124m", ["--model.vocab_size", "null"])
    with pytest.raises(JaxlmError, match=r"give model\.vocab_size"):
        make_plan(config, "h100")
