"""What the stages of training share: the clock, the optimiser, the moving average, and how they are resumed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fastfit_watch.mini.networks import load_stage, read_json, save_stage

PLAN_S = {"parser": 70.0, "vae": 160.0, "unet": 330.0, "decoder": 60.0}  # full training time of each stage on one H200
_BATCH = {"parser": 96, "vae": 66, "unet": 128, "decoder": 48}
_PEAK_RATE = {"parser": 2e-3, "vae": 1e-3, "unet": 7e-4, "decoder": 4e-4}
_EMA_DECAY = {"parser": 0.99, "vae": 0.995, "unet": 0.9993, "decoder": 0.99}
_WARMUP_STEPS = 100
_REPORT_EVERY = 200


@dataclass(frozen=True)
class Piece:
    """One run of the trainer. folder: the bundle. seconds: the most for each stage.

    plan_s and batch take the place of a stage's own full time and batch size, for a machine without a GPU.
    """

    folder: Path
    device: str
    seconds: float
    plan_s: float | None = None
    batch: int | None = None


class Stage:
    """The clock, optimiser and moving average that the three stages share."""

    def __init__(self, name: str, piece: Piece, network: str = "", parts: tuple[str, ...] = ()) -> None:
        """network: whose weights are trained, if not those of the stage's own name. parts: only these modules of it."""
        self.name, self.folder, self.device = name, piece.folder, piece.device
        self._network_name = network or name
        loaded = load_stage(piece.folder, self._network_name, piece.device)
        self.network: nn.Module = loaded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for weight, value in self.network.named_parameters():
            value.requires_grad_(not parts or weight.startswith(parts))
        self.batch = piece.batch or _BATCH[name]
        self._log = piece.folder / "training.json"
        record = read_json(self._log).get(name, {"seconds": 0.0, "steps": 0})
        self._before_s, self.steps = float(record["seconds"]), int(record["steps"])
        self._plan_s = piece.plan_s or PLAN_S[name]
        self._seconds = min(piece.seconds, self._plan_s - self._before_s)
        weights = self.network.state_dict()
        self._current, self._average = list(weights.values()), {name: value.clone() for name, value in weights.items()}
        self._optimiser = torch.optim.AdamW(
            [value for value in self.network.parameters() if value.requires_grad],
            lr=1.0,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            fused=piece.device == "cuda",
        )
        self._started_s = time.monotonic()
        self.used_s = 0.0

    def run(self, loss_of: Callable[[nn.Module], Tensor]) -> None:
        """Take steps on `loss_of(network)` until the time of this piece or of the whole stage is used up."""
        if self._seconds <= 0:
            return
        self.network.train()
        self._started_s = time.monotonic()
        total, counted = 0.0, 0
        for step in self._clock():
            loss = loss_of(self.network)
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            for group in self._optimiser.param_groups:
                group["lr"] = self._rate(step)
            self._optimiser.step()
            self._follow(step)
            if step % 20 == 0:
                total, counted = total + float(loss.detach()), counted + 1
            if step % _REPORT_EVERY == 0:
                print(f"{self.name} step {self.steps} {self.used_s:6.0f} s loss {total / counted:.4f}", flush=True)
                total, counted = 0.0, 0

    def save(self, extra: dict[str, float] | None = None) -> None:
        """Write the averaged weights and this stage's clock."""
        save_stage(self.folder, self._network_name, self._average, extra)
        record = read_json(self._log)
        record[self.name] = {"seconds": round(self._before_s + self.used_s, 1), "steps": self.steps}
        self._log.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

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

    def _rate(self, step: int) -> float:
        """Cosine over the stage's whole plan, with a short warm-up in every piece (its optimiser starts anew)."""
        return (
            _PEAK_RATE[self.name]
            * min(1.0, (step + 1) / _WARMUP_STEPS)
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.done)))
        )

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        decay = min(_EMA_DECAY[self.name], (1 + self.steps) / (10 + self.steps)) if step or self._before_s else 0.0
        torch._foreach_lerp_(list(self._average.values()), self._current, 1 - decay)
