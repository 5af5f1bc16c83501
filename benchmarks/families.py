"""`python -m benchmarks.families`: `curvlab.analyze` on a small random network of every family that transformers has.

Every family runs in a process of its own with a limit of time and memory. The table says what came of it: analysed,
with the part of the parameters that data reached; an error that explains what is the matter with the model; a fault of
curvlab's; or a family whose small network does not even run without curvlab. Exit code 1 after any fault.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import re
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import curvlab
from benchmarks.small_families import small_inputs, small_models
from curvlab.capture.output import output_tensor
from curvlab.errors import CurvlabError, out_of_memory

TASKS = (
    "SEQ_TO_SEQ_CAUSAL_LM",
    "SPEECH_SEQ_2_SEQ",
    "CAUSAL_LM",
    "MASKED_LM",
    "IMAGE_CLASSIFICATION",
    "SEQUENCE_CLASSIFICATION",
    "AUDIO_CLASSIFICATION",
    "IMAGE_TEXT_TO_TEXT",
)
SECONDS, MEMORY = 60, 8 * 2**30
ROAD = "its per-example gradients alone"


def families(tasks: list[str]) -> dict[str, str]:
    """Type of model -> name of its class, of the first task that it has a class for."""
    from transformers.models.auto import modeling_auto

    found: dict[str, str] = {}
    for task in tasks:
        for kind, name in getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES").items():
            found.setdefault(kind, name if isinstance(name, str) else name[0])
    return found


def outcome(kind: str, name: str, tell: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """What `curvlab.analyze` makes of one family: "status" and what belongs to it.

    Args:
        kind: the type of model.
        name: its class.
        tell: told what holds should the process end on the way.
    """
    import transformers

    tell({"status": "not built", "said": f"its network takes more than {SECONDS} s or {MEMORY // 2**30} GiB"})
    try:
        model, inputs = running(transformers.CONFIG_MAPPING[kind], getattr(transformers, name))
    except Exception as error:
        return {"status": "not built", "said": _said(error), "trace": traceback.format_exc()}
    tell({"status": "fault", "said": f"no end within {SECONDS} s, or killed"})
    started = time.perf_counter()
    try:
        found = curvlab.analyze(model, inputs, loss="cross-entropy", device="cpu")
    except CurvlabError as error:
        return {"status": "error", "said": str(error), "trace": traceback.format_exc()}
    except Exception as error:
        if out_of_memory(error):
            return {"status": "too large", "said": f"it takes more than {MEMORY // 2**30} GiB"}
        return {"status": "fault", "said": _said(error), "trace": traceback.format_exc()}
    return {
        "status": "analysed",
        "part": found.coverage.analyzed / max(1, found.coverage.parameters),
        "parameters": found.coverage.parameters,
        "gradients_alone": sum(b.parameters for b in found.coverage.blocks if ROAD in (b.reason or "")),
        "seconds": time.perf_counter() - started,
        "reached": _reached(model, inputs),
        "missed": {b.name: b.reason for b in found.coverage.blocks if b.status in ("skipped", "weights-only")},
        "loaded": _loaded(model),
    }


def running(config_class: type[Any], model_class: type[nn.Module]) -> tuple[nn.Module, dict[str, Tensor]]:
    """The first small network of the family that runs without curvlab, and its inputs."""
    failed: Exception = ValueError("its forward takes no input known here")
    for model in small_models(config_class, model_class):
        if isinstance(model, Exception):
            failed = model
            continue
        for inputs in small_inputs(model):
            try:
                with torch.no_grad():
                    model(**inputs)
            except Exception as error:
                failed = error
            else:
                return model, inputs
    raise failed


def _reached(model: nn.Module, inputs: Mapping[str, Tensor]) -> float:
    """Share of the parameters that these inputs run: the output has a gradient with respect to them."""
    named = [p.requires_grad_() for p in model.parameters() if p.is_floating_point()]
    z = output_tensor(model(**inputs))
    found = torch.autograd.grad(z.sum(), named, allow_unused=True)
    reached = sum(p.numel() for p, g in zip(named, found, strict=True) if g is not None)
    return reached / max(1, sum(p.numel() for p in named))


def _loaded(model: Any) -> str:
    """Whether the network comes back from its folder: "network", or the note that says why only weights do."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.save_pretrained(folder)
        except Exception as error:
            return f"not saved: {_said(error)}"
        try:
            found = curvlab.load(folder)
        except CurvlabError as error:
            return f"error: {error}"
        except Exception as error:
            return f"fault: {_said(error)}"
    return "network" if found.module is not None else next(iter(found.notes), "weights only")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _child(kind: str, name: str, path: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))  # computing, whatever else the machine does
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.filterwarnings("ignore")

    def tell(found: dict[str, Any]) -> None:
        Path(path).write_text(json.dumps(found))

    tell(outcome(kind, name, tell))


def run(kind: str, name: str) -> dict[str, Any]:
    """The outcome of one family in a process of its own."""
    with tempfile.NamedTemporaryFile("w+") as file:
        process = multiprocessing.get_context("fork").Process(target=_child, args=(kind, name, file.name))
        process.start()
        process.join()
        return dict(json.loads(Path(file.name).read_text()))


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Family, share of the parameters that were analysed and of those that the inputs run, by which road, and why not
    the rest, in Markdown."""
    lines = ["| family | class | analysed | run | by gradients alone | the rest |", "|---|---|---|---|---|---|"]
    for kind, one in sorted(found.items()):
        if "part" not in one:
            continue
        alone = one["gradients_alone"] / max(1, one["parameters"])
        share = "" if not alone else f"{alone:.1%}"
        reasons = Counter(_plain(why) for why in one["missed"].values() if why)
        rest = "; ".join(f"{why} ({count})" for why, count in reasons.most_common(2)) if one["part"] < 1 else ""
        run = f"{one['reached']:.1%}" if "reached" in one and one["reached"] < 1 else ""
        lines.append(f"| {kind} | {one['class']} | {one['part']:.1%} | {run} | {share} | {rest} |")
    return "\n".join([*lines, ""])


def _plain(why: str) -> str:
    """A reason without names, so that equal ones can be counted."""
    return re.sub(r"(the uses of|no adapter for) [\w.]+", r"\1 …", why.split(":")[0]).replace("|", "/")


def main() -> int:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("--only", action="append", help="type of model, such as gemma2; repeatable")
    parser.add_argument("--task", choices=TASKS, action="append", help="repeatable; all by default")
    parser.add_argument("--table", type=Path, help="write the table in Markdown to this file")
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    arguments = parser.parse_args()
    import transformers

    transformers.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    chosen = {k: n for k, n in families(arguments.task or list(TASKS)).items() if k in (arguments.only or [k])}
    for kind, name in chosen.items():
        found[kind] = one = {"class": name, **run(kind, name)}
        shown = f"{one['part']:.1%} of {one['parameters']}, {one['loaded']}" if "part" in one else one["said"][:200]
        print(f"{kind:30} {one['status']:10} {shown}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1))
    if arguments.table:
        arguments.table.write_text(table(found))
    counts = Counter(one["status"] for one in found.values())
    whole = sum(one.get("part", 0) >= 0.99 for one in found.values())
    of_run = sum(one.get("part", 0) >= 0.99 * one.get("reached", 1) for one in found.values())
    print(f"\n{len(found)} families:", ", ".join(f"{count} {status}" for status, count in counts.items()))
    print(f"{whole} with at least 99 % of the parameters analysed, {of_run} with that of those that the inputs run")
    return 1 if counts["fault"] else 0


if __name__ == "__main__":
    sys.exit(main())
