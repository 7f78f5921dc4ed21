"""`jaxlm plan`: what a run will take, on this machine or on devices that are not here."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from jaxlm.cli.evaluate import positive
from jaxlm.cli.output import Verb
from jaxlm.config import load_config
from jaxlm.runtime import expect_described_devices, set_up

if TYPE_CHECKING:
    from jaxlm.training.plan import Plan


def declare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", required=True, metavar="NAME_OR_PATH", help="as for train, fields included")
    add("--device", metavar="NAME", help="such as h100, a100, v5e or v5p; default: this machine")
    add(
        "--devices", type=positive, metavar="N", help="how many; default: 1, or all of this machine"
    )
    add("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> None:
    config = load_config(args.config, args.fields)
    if args.device is not None:
        expect_described_devices(tpu=args.device.startswith("v"))
    set_up()
    from jaxlm.training.plan import make_plan

    plan = make_plan(config, args.device, args.devices)
    print(json.dumps(asdict(plan)) if args.json else "\n".join(lines(plan)))


def lines(plan: "Plan") -> list[str]:
    """The plan in words, a line each."""
    from jaxlm.training.console import duration
    from jaxlm.training.counting import ASSUMED

    def gb(size: float) -> str:
        return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"

    axes = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1)
    part = "all" if plan.num_trained == plan.num_params else f"{plan.num_trained:,}"
    told = [
        f"{plan.name} on {plan.devices} x {plan.device}{f' ({axes})' if axes else ''}",
        f"parameters: {plan.num_params:,}, {part} trained",
    ]
    if plan.stands_in:
        told.append(f"data: {plan.stands_in} stands in for the run's, which is not read for this")
    micro = f" in {plan.accumulate_steps} micro-batches" if plan.accumulate_steps > 1 else ""
    told.append(
        f"a step: {plan.rows:,} rows{micro}, {plan.step_tokens:,.0f} tokens, "
        f"{plan.flops / 1e12:,.3g} TFLOP, {gb(plan.moved)} moved in each device's memory "
        f"({plan.moved_source})"
    )
    how = "the compiled step" if plan.source == "compiled" else f"counted: {plan.why_counted}"
    told.append(
        f"memory: {gb(plan.state_memory)} for weights and optimizer and {gb(plan.working_memory)} "
        f"for gradients and activations, of {gb(plan.device_memory)} a device ({how})"
        + ("" if plan.fits else "; IT DOES NOT FIT")
    )
    if plan.devices > 1:
        found = ", ".join(f"{n} {name}" for name, n in (plan.collectives or {}).items())
        sent = ", ".join(f"{gb(size)} along {axis}" for axis, size in plan.sent.items())
        told.append(f"exchange: a device sends {sent} a step{f'; {found}' if found else ''}")
    if plan.kernels:
        told.append(f"kernels: {', '.join(f'{n} {name}' for name, n in plan.kernels.items())}")
    most = plan.largest_micro_batch
    told.append(f"largest micro-batch: {f'{most:,} rows' if most else 'not a row a device fits'}")
    if plan.suggested:
        words = [f"--parallel.{axis} {size}" for axis, size in plan.suggested.items()]
        words.append(f"--train.accumulate_steps {plan.suggested_accumulate_steps}")
        told.append(f"suggested: {' '.join(words)}")
    elif plan.limited_by != "the probe" and plan.step_seconds is not None:
        told.append("suggested: more devices, or model.remat full, as no mesh has the memory")
    if plan.step_seconds is not None and plan.limited_by != "the probe":
        told.append(
            f"speed: {plan.tokens_per_second:,.0f} tokens/s, {plan.step_seconds * 1e3:,.1f} ms a "
            f"step, limited by {plan.limited_by}"
        )
        told.append(ASSUMED)
    told.append(
        f"to the end: {plan.steps:,} steps, {plan.tokens:,.0f} tokens"
        + ("" if plan.seconds is None else f", {duration(plan.seconds)} without evaluations")
        + f"; a checkpoint takes {gb(plan.checkpoint)}"
    )
    probe = plan.probe
    if probe.tokens_per_second is None:
        told.append(f"this machine ({probe.device}): not probed, as {probe.skipped}")
    else:
        told.append(
            f"this machine (1 x {probe.device}): {probe.tokens_per_second:,.0f} tokens/s in a "
            f"probe with {probe.rows} rows, {duration(plan.tokens / probe.tokens_per_second)} to "
            "the end"
        )
    return told


PLAN = Verb("what a run will take: memory, time, a mesh", declare, run, takes_fields=True)
