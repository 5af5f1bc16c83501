"""Run: everything that changes while a network is trained, and how it is saved, continued and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.capture.model_inputs import Inputs
from curvlab.capture.output import answer
from curvlab.device import pick_device
from curvlab.errors import CheckpointError, DataError
from curvlab.optim import create
from curvlab.problems.batches import batches
from curvlab.quoting import reason
from curvlab.training.clocks import Clocks
from curvlab.training.entry import Entry
from curvlab.training.evaluation import evaluate
from curvlab.training.memory import peak_device_memory, peak_memory
from curvlab.training.model_file import write_model
from curvlab.training.run_folder import RunFolder
from curvlab.training.saved_run import VERSION, run_misfit
from curvlab.training.schedule import parse_schedule
from curvlab.training.settings import TrainingSettings
from curvlab.training.state_file import write_state
from curvlab.training.state_schema import alike
from curvlab.training.task import Task, on_device

EVALUATED_AT_ONCE = 4
"""Batches that an evaluation takes at once: no graph is kept, so that it needs no more memory than a step."""
PATIENCE = 10
"""Skipped steps in a row that count as divergence; also the steps between two reads of the device."""
EXPLODED = 1000.0
"""A training loss of so many times the first batch's is divergence, even while it is finite."""
SMALLEST = 1e-3
"""A first loss below this counts as this: a network that is trained already may lose some of it again."""


class Run:
    """A network, its optimizer, and where in the data they are.

    Args:
        settings: of the run.
        used: the optimizer's settings, all sources merged.
        task: problem and examples.
        folder: where files go.
    """

    def __init__(self, settings: TrainingSettings, used: dict[str, Any], task: Task, folder: RunFolder) -> None:
        self.settings, self.used, self.task, self.folder = settings, used, task, folder
        self.device, dtype = pick_device(settings.device), getattr(torch, settings.dtype)
        self.model: nn.Module = task.problem.build(settings.seed).to(self.device, dtype).train()
        self.train_part = on_device(task.split.train, self.device, dtype)
        self.test_part = on_device(task.split.test, self.device, dtype)
        self.optimizer = create(settings.optimizer, self.model, likelihood=task.problem.likelihood, **used)
        self.batch_size = min(settings.batch_size or task.problem.batch_size, len(self.train_part))
        # Batch normalisation cannot take a batch of one.
        self.last = "drop" if len(self.train_part) % self.batch_size == 1 and self.batch_size > 1 else "keep"
        full, rest = divmod(len(self.train_part), self.batch_size)
        self.per_epoch = full + (1 if rest and self.last == "keep" else 0)
        self.total = settings.steps or (settings.epochs or task.problem.epochs) * self.per_epoch
        schedule = parse_schedule(settings.schedule)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: schedule.at(step, self.total, self.per_epoch)
        )
        self.clocks = Clocks(synchronize=self._synchronize)
        self.warm = False
        self.step = 0
        self.lr = float(self.optimizer.param_groups[0]["lr"])
        self.entry: Entry | None = None
        self.best: dict[str, Any] | None = None
        self.saved = -1
        """The step whose state is on disk."""
        self._skipped = 0
        self._unread: list[tuple[Tensor, int]] = []
        """Losses of steps, with their numbers of examples, that are still on the device."""
        self._losses: dict[str, Any] = {"sum": 0.0, "examples": 0, "first": None, "bad": None}
        """Losses: the epoch's sum weighted by examples, the first step's, and (step, loss) of the first that shows
        divergence."""

    # Steps.

    @property
    def epoch(self) -> int:
        """Complete passes over the training set."""
        return self.step // self.per_epoch

    def epochs(self) -> float:
        """Passes over the training set, a fraction in the middle of one."""
        return self.epoch if self.step % self.per_epoch == 0 else round(self.step / self.per_epoch, 6)

    def batches(self) -> Iterator[tuple[Any, Tensor]]:
        """The batches of the epoch that have not been used."""
        return islice(self.epoch_batches(self.epoch), self.step % self.per_epoch, None)

    def closures(self) -> Iterator[Callable[[], Tensor]]:
        """The first epoch's batches as closures, for a warm start."""
        for x, y in self.epoch_batches(0):
            yield lambda x=x, y=y: self.task.problem.loss(answer(self.model, x), y)  # type: ignore[misc]

    def take_step(self, x: Inputs, y: Tensor) -> None:
        """One step of optimizer and schedule; nothing is read from the device."""
        if self.step % self.per_epoch == 0:
            self._losses |= {"sum": 0.0, "examples": 0}
        self.lr = float(self.optimizer.param_groups[0]["lr"])
        loss = self.optimizer.step(lambda: self.task.problem.loss(answer(self.model, x), y))
        assert loss is not None
        self.scheduler.step()
        self._unread.append((loss, len(y)))
        self.step += 1

    def divergence(self) -> str | None:
        """One sentence when the run has diverged. Reads the device once."""
        self._read()
        if self._losses["bad"] is not None:
            step, loss = self._losses["bad"]
            return f"the training loss of step {step} was {self._exploded(loss)}"
        if self.step % PATIENCE == 0:
            skipped = self.optimizer.skipped
            in_a_row, self._skipped = skipped - self._skipped, skipped
            if in_a_row >= PATIENCE:
                return f"{PATIENCE} steps in a row, up to step {self.step}, had gradients that were not finite"
        return None

    def judged(self, entry: Entry) -> str | None:
        """One sentence when an evaluation shows divergence that no step has shown yet."""
        train, test = entry["train"]["loss"], entry["test"]["loss"]
        if how := self._exploded(train):
            return f"the loss on the training set was {how} after step {entry['step']}"
        return None if isfinite(test) else f"the test loss was not finite after step {entry['step']}"

    def _exploded(self, loss: float) -> str | None:
        """What is wrong with a training loss, in words."""
        if not isfinite(loss):
            return "not finite"
        first = self._losses["first"]
        limit = float("inf") if first is None else EXPLODED * max(first, SMALLEST)
        return f"{loss:.3g}, over {EXPLODED:g} times the first batch's" if loss > limit else None

    def _read(self) -> None:
        """Take in the losses that are on the device, in one transfer."""
        if not self._unread:
            return
        values, known = torch.stack([loss for loss, _ in self._unread]).tolist(), self._losses
        start = self.step - len(self._unread) + 1
        for step, (value, (_, examples)) in enumerate(zip(values, self._unread, strict=True), start):
            known["sum"] += value * examples
            known["examples"] += examples
            known["first"] = value if known["first"] is None else known["first"]
            if known["bad"] is None and self._exploded(value):
                known["bad"] = (step, value)
        self._unread.clear()

    # Numbers.

    def evaluation(self) -> Entry:
        """The line of metrics for now, both parts evaluated."""
        with self.clocks.measure("evaluation"):
            size, problem = EVALUATED_AT_ONCE * self.batch_size, self.task.problem
            train = evaluate(self.model, problem, self.train_part, size)
            test = evaluate(self.model, problem, self.test_part, size)
        return {**self.line(), "train": train, "test": test}

    def remember(self, entry: Entry) -> None:
        """Log an evaluation, and keep it as the last, perhaps as the best."""
        self.entry = entry
        if self.best is None or entry["test"]["loss"] < self.best["test"]["loss"]:
            self.best = {"step": entry["step"], "epoch": entry["epoch"], "test": entry["test"]}
        self.log(entry)

    def log(self, entry: Entry) -> None:
        """One more line of metrics.jsonl."""
        with self.clocks.measure("saving"):
            self.folder.log(entry)

    def line(self) -> Entry:
        """The line of metrics for now, nothing evaluated."""
        self._read()
        losses, counters = self._losses, self.optimizer.counters()
        return {
            "step": self.step,
            "epoch": self.epochs(),
            "train": None,
            "test": None,
            "batch_loss": losses["sum"] / losses["examples"] if losses["examples"] else None,
            "seconds": {name: round(value, 6) for name, value in self.clocks.seconds().items()},
            "lr": self.lr,
            "damping": self.optimizer.current_damping(),
            "failures": sum(self.optimizer.failures.values()),
            "skipped": self.optimizer.skipped,
            "memory": peak_memory(),
            "device_memory": peak_device_memory(self.device),
            **({"counters": counters} if counters else {}),
        }

    # Files.

    def save(self) -> None:
        """State and model, each complete or not at all."""
        with self.clocks.measure("saving"):
            self.folder.check()
            self.write_model()
            write_state(self.folder.state, self._state())
        self.saved = self.step

    def write_model(self) -> None:
        """The network, ready for `curvlab analyze`."""
        write_model(self.folder.model, self.model, self.task, self.optimizer)

    def snapshot(self) -> None:
        """The network of this epoch, kept."""
        with self.clocks.measure("saving"):
            path = self.folder.snapshot(self.epoch)
            self.folder.check()
            path.parent.mkdir(exist_ok=True)
            write_model(path, self.model, self.task, self.optimizer)

    def resume(self, state: dict[str, Any]) -> None:
        """Be as the saved run was, and forget the log's later lines; model.safetensors is of the saved step again.

        Raises:
            CurvlabError: the state is of other data, another network or another optimizer; nothing is written then.
        """
        if state["fingerprint"] != self.task.fingerprint:
            found = f"the data is not what the run in '{self.folder.path}' was started with"
            raise DataError(found, "its fingerprint differs", "restore the data, or start again with --force")
        again = "start again with --force"
        if not alike(state["model"], dict(self.model.state_dict())):
            found = f"the network is not the one of the run in '{self.folder.path}'"
            raise CheckpointError(found, "its weights have other names, shapes or types", again)
        if why := run_misfit(self, state):
            raise CheckpointError(f"the state in '{self.folder.path}' does not fit this run", why, again)
        self.model.load_state_dict(state["model"])
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            found = f"the state in '{self.folder.path}' does not fit this version of curvlab"
            raise CheckpointError(found, reason(error), again) from error
        self.folder.cut_log(state["logged"])
        self.write_model()

    def _restore(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["generators"]["cpu"])
        if self.device.type == "cuda" and state["generators"]["cuda"]:
            torch.cuda.set_rng_state_all(state["generators"]["cuda"])
        self.warm, self.step, self.saved, self.lr = state["warm"], state["step"], state["step"], state["lr"]
        self.entry, self.best, self._skipped = state["entry"], state["best"], state["skipped"]
        self._losses = dict(state["losses"])
        self.clocks = Clocks(state["seconds"], self._synchronize)

    def _state(self) -> dict[str, Any]:
        self._read()
        cuda = torch.cuda.get_rng_state_all() if self.device.type == "cuda" else []
        return {
            "version": VERSION,
            "settings": self.settings.to_dict(),
            "used": dict(self.used),
            "fingerprint": self.task.fingerprint,
            "logged": self.folder.logged(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generators": {"cpu": torch.get_rng_state(), "cuda": cuda},
            "warm": self.warm,
            "step": self.step,
            "lr": self.lr,
            "entry": self.entry,
            "best": self.best,
            "skipped": self._skipped,
            "losses": dict(self._losses),
            "seconds": self.clocks.seconds(),
        }

    def epoch_batches(self, number: int) -> Iterator[tuple[Any, Tensor]]:
        """All batches of an epoch in their order, from epoch 0."""
        return batches(self.train_part, self.batch_size, number, self.settings.seed, last=self.last)  # type: ignore[arg-type]

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
