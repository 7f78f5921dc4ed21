"""The examples of launching a run on many hosts: what they start, and that its parts fit."""

import shlex
import subprocess
from pathlib import Path

import yaml

from jaxlm.cli.train import read_arguments
from jaxlm.config import load_config
from tests.parallel.test_processes import VARIABLES

LAUNCH = Path(__file__).parents[2] / "docs" / "launch"


def check_command(words):
    """The training command's words make a config."""
    place = next(i for i, word in enumerate(words) if word.endswith("train.py"))
    assert load_config(*read_arguments(words[place + 1 :])).run.dir == "runs/gpt2_124m"


def test_the_script_for_slurm_starts_the_training_command():
    script = LAUNCH / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    lines = script.read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    check_command(shlex.split(next(line for line in lines if line.startswith("srun"))))


def test_the_job_set_names_each_of_its_processes():
    job_set = yaml.safe_load((LAUNCH / "jobset.yaml").read_text(encoding="utf-8"))
    name = job_set["metadata"]["name"]
    (jobs,) = job_set["spec"]["replicatedJobs"]
    job = jobs["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    check_command(container["command"] + container["args"])
    environment = {entry["name"]: entry for entry in container["env"]}
    assert set(environment) == set(VARIABLES)
    number = int(environment["JAX_NUM_PROCESSES"]["value"])
    assert jobs["replicas"] * job["parallelism"] == job["completions"] == number
    assert job["completionMode"] == "Indexed"  # which numbers the processes
    host, port = environment["JAX_COORDINATOR_ADDRESS"]["value"].split(":")
    assert host == f"{name}-{jobs['name']}-0-0.{name}"  # the first pod, by JobSet's own names
    assert [{"containerPort": int(port)}] == container["ports"]
