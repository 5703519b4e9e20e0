"""What the stages of training share: the clock, the optimiser, the moving average, and how they are resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from fastfit_watch.mini.networks import load_stage, read_json, save_stage, write_json
from fastfit_watch.mini.recorded import RecordedSteps, Variant
from fastfit_watch.mini.working_copy import channels_last, working_copy

PLAN_S = {"parser": 60.0, "vae": 150.0, "unet": 700.0, "decoder": 60.0}  # full training time of each stage on one H100
_BATCH = {"parser": 96, "vae": 32, "unet": 64, "decoder": 24}
_PEAK_RATE = {"parser": 2e-3, "vae": 1e-3, "unet": 7e-4, "decoder": 4e-4}
_EMA_DECAY = {"parser": 0.99, "vae": 0.998, "unet": 0.9993, "decoder": 0.995}
_WARMUP_STEPS = 100
_REFILL_EVERY = 8  # taking fresh looks costs as much as a step
_REPORT_EVERY = 200


@dataclass(frozen=True)
class Piece:
    """One run of the trainer. folder: the bundle. seconds: the most for each stage.

    plan_s and batch take the place of a stage's own full time and batch size, for a machine without a GPU.
    save_every_s: what a run that is killed loses at the most.
    """

    folder: Path
    device: str
    seconds: float
    plan_s: float | None = None
    batch: int | None = None
    save_every_s: float = 60.0


class Stage:
    """The clock, weights, optimiser and moving average that all stages share.

    Steps are taken on a copy, whose gradients move the float32 weights (Micikevicius et al. 2018).

    dtype : of the copy: bfloat16 on a GPU; float32 on a CPU, many of which have no instructions for bfloat16.
    progress : float32 (), share of the stage's whole plan that is over, where a recorded step can read it.
    """

    def __init__(self, name: str, piece: Piece, network: str = "", parts: tuple[str, ...] = ()) -> None:
        """network: whose weights are trained, if not those of the stage's own name. parts: only these modules of it."""
        self.name, self.folder, self.device = name, piece.folder, piece.device
        self._network_name = network or name
        self.network = channels_last(load_stage(piece.folder, self._network_name, piece.device))
        on_gpu = piece.device.startswith("cuda")
        self.dtype = torch.bfloat16 if on_gpu else torch.float32
        for weight, value in self.network.named_parameters():
            value.requires_grad_(not parts or weight.startswith(parts))
        # The master's tensors are laid out as the copy's, since the optimiser goes through memory in order.
        self._working = working_copy(self.network, piece.device)
        self._weights = _trained(self.network)
        self.batch = piece.batch or _BATCH[name]
        self._log = piece.folder / "training.json"
        record = read_json(self._log).get(name, {"seconds": 0.0, "steps": 0})
        self._before_s, self.steps = float(record["seconds"]), int(record["steps"])
        self._plan_s, self._save_every_s = piece.plan_s or PLAN_S[name], piece.save_every_s
        self._seconds = min(piece.seconds, self._plan_s - self._before_s)
        weights = self.network.state_dict()
        self._current, self._average = list(weights.values()), {name: value.clone() for name, value in weights.items()}
        self.progress = torch.zeros((), device=piece.device)
        self._rate = torch.ones((), device=piece.device)  # where a recorded step can read it
        self._optimiser = torch.optim.AdamW(
            self._weights,
            lr=self._rate if on_gpu else 1.0,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            fused=on_gpu,
            capturable=on_gpu,
        )
        self._started_s = time.monotonic()
        self.used_s = 0.0

    def run(
        self,
        loss_of: Callable[[nn.Module, Variant], Tensor],
        choose: Callable[[], Variant],
        refill: Callable[[], None],
    ) -> None:
        """Take steps on `loss_of(network, variant)` until the time of this piece or of the whole stage is used up.

        choose : the variant of the next step. What `loss_of` does of one variant is recorded (see `recorded`).
        refill : called between steps, to take fresh looks.
        """
        if self._seconds <= 0:
            return
        self._working.train()
        steps = RecordedSteps(partial(self._take_step, loss_of), self.device)
        self._started_s = time.monotonic()
        saved_s, total, counted = 0.0, 0.0, 0
        for step in self._clock():
            if step % _REFILL_EVERY == 0:
                refill()
            self.progress.fill_(self.done)
            self._set_rate(step)
            loss = steps(choose())
            self._follow(step)
            if step % 20 == 0:
                total, counted = total + float(loss.detach()), counted + 1
            if step % _REPORT_EVERY == 0:
                print(f"{self.name} step {self.steps} {self.used_s:6.0f} s loss {total / counted:.4f}", flush=True)
                total, counted = 0.0, 0
            if self.used_s - saved_s >= self._save_every_s:
                self.save()
                saved_s = self.used_s

    def _take_step(self, loss_of: Callable[[nn.Module, Variant], Tensor], variant: Variant) -> Tensor:
        self._working.zero_grad(set_to_none=True)
        loss = loss_of(self._working, variant)
        loss.backward()  # type: ignore[no-untyped-call]
        for weight, copied in zip(self._weights, _trained(self._working), strict=True):
            weight.grad = None if copied.grad is None else torch.empty_like(weight).copy_(copied.grad)
        nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimiser.step()
        with torch.no_grad():
            torch._foreach_copy_(_trained(self._working), self._weights)
        return loss

    def save(self, extra: dict[str, float] | None = None) -> None:
        """Write the averaged weights and this stage's clock."""
        save_stage(self.folder, self._network_name, self._average, extra)
        record = read_json(self._log)
        record[self.name] = {"seconds": round(self._before_s + self.used_s, 1), "steps": self.steps}
        write_json(self._log, record)

    def averaged(self) -> nn.Module:
        """The network with its averaged weights, for use by the next stage."""
        self.network.load_state_dict(self._average)
        return self.network.eval()

    def _clock(self) -> Iterator[int]:
        step = 0
        while self.used_s < self._seconds:
            yield step
            step, self.steps = step + 1, self.steps + 1
            self.used_s = time.monotonic() - self._started_s

    @property
    def done(self) -> float:
        """Share of the stage's whole plan that is over, 0..1."""
        return min(1.0, (self._before_s + self.used_s) / self._plan_s)

    def _set_rate(self, step: int) -> None:
        """Cosine over the stage's whole plan, with a short warm-up in every piece (its optimiser starts anew)."""
        fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.done))
        rate = _PEAK_RATE[self.name] * min(1.0, (step + 1) / _WARMUP_STEPS) * fall
        if self._optimiser.param_groups[0]["lr"] is self._rate:
            self._rate.fill_(rate)
        else:
            self._optimiser.param_groups[0]["lr"] = rate

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        decay = min(_EMA_DECAY[self.name], (1 + self.steps) / (10 + self.steps)) if step or self._before_s else 0.0
        torch._foreach_lerp_(list(self._average.values()), self._current, 1 - decay)


def _trained(network: nn.Module) -> list[Tensor]:
    return [value for value in network.parameters() if value.requires_grad]
