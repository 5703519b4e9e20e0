"""What a device is, for people."""

from __future__ import annotations

import torch


def card_name(device: str) -> str:
    """What the device is: `NVIDIA H200`, or `cpu`."""
    return str(torch.cuda.get_device_properties(device).name) if device.startswith("cuda") else device


def describe_card(device: str) -> str:
    """What the device is, with its memory."""
    if not device.startswith("cuda"):
        return device
    return f"{card_name(device)}, {torch.cuda.get_device_properties(device).total_memory / 2**30:.1f} GiB"
