"""The real daemon with `protocol_worker` as its engine process: ROOT [--once]. Settings: ROOT/settings.yaml."""

from __future__ import annotations

import sys
from pathlib import Path

from fastfit_watch.config.settings import Config, load_config
from fastfit_watch.daemon.daemon import Daemon

WORKER = Path(__file__).with_name("protocol_worker.py")


def run(root: Path, *, once: bool) -> int:
    settings = root / "settings.yaml"

    def command(config: Config, device: str) -> list[str]:
        return [sys.executable, str(WORKER), str(root / "notes")]

    return Daemon(load_config(settings), once=once, reread=lambda: load_config(settings), command=command).run()


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), once="--once" in sys.argv))
