"""FastFit's UNet: diffusers' own `UNet2DConditionModel` without cross-attention, plus a door for garments.

Source: FastFit inference specification, sections 1.1 to 1.9. Released weights load with `strict=True`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from fastfit_watch.engine.networks.reference_attention import KeysValues, ReferenceAttention, ReferenceCache

# diffusers cannot build its blocks without a width for cross-attention. Those layers are removed right after.
_REMOVED_WIDTH = 8


class FastFitUNet(UNet2DConditionModel):  # type: ignore[misc]  # diffusers has no types
    """Predicts the noise of an inpainting latent while attending to garment latents.

    Build it with `from_config_dict`. It keeps no state: see `attention.py`. Gradients flow; whoever only infers wraps
    its calls in `torch.inference_mode`.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__(**config | {"cross_attention_dim": _REMOVED_WIDTH})
        self.register_to_config(cross_attention_dim=None)
        for block in self.modules():
            if isinstance(block, BasicTransformerBlock):
                block.attn2 = None
                block.norm2 = None
        self.condition_conv_in = nn.Conv2d(
            self.config.out_channels, self.config.block_out_channels[0], kernel_size=3, padding=1
        )
        layers = [name.removesuffix(".processor") for name in self.attn_processors]
        self.set_attn_processor({f"{layer}.processor": ReferenceAttention(layer) for layer in layers})

    @classmethod
    def from_config_dict(cls, config: Mapping[str, Any]) -> FastFitUNet:
        """Build an untrained network from a released `config.json`, whose `cross_attention_dim` is null.

        Entries that diffusers' UNet does not know are left out: they concern code that never runs at inference
        (section 1.10), and a wrong shape still fails when weights are loaded.
        """
        known = inspect.signature(UNet2DConditionModel.__init__).parameters
        return cls(**{name: value for name, value in config.items() if name in known})

    def read_reference(self, latents: Tensor, labels: Tensor) -> ReferenceCache:
        """Run one garment through the network and keep the keys and values of all attention layers (section 1.4).

        Parameters
        ----------
        latents : (B, 4, h, w), scaled VAE latents; zeros in the unconditional rows.
        labels : int64 (B,), `Category.label`.
        """
        collected: dict[str, KeysValues] = {}
        self(latents, labels=labels, collect=collected)
        return ReferenceCache(collected)

    def denoise(self, sample: Tensor, timestep: Tensor | int, references: ReferenceCache | None) -> Tensor:
        """Predict the noise in a sample (section 1.5).

        Parameters
        ----------
        sample : (B, 9, h, w): noisy latents 4, mask 1, masked person's latents 4.
        timestep : 0..999; one for all, or (B,).
        references : a cache with the same batch rows; None attends to nothing but the sample.

        Returns
        -------
        (B, 4, h, w).
        """
        noise: Tensor = self(sample, timestep=timestep, references=references)
        return noise

    def forward(
        self,
        sample: Tensor,
        *,
        timestep: Tensor | int | None = None,
        labels: Tensor | None = None,
        collect: dict[str, KeysValues] | None = None,
        references: ReferenceCache | None = None,
    ) -> Tensor:
        """Run all blocks. Exactly one of `timestep` and `labels` is given: it selects the input door (section 1.3).

        References thus see no timestep, which is why one pass serves all steps.
        """
        if labels is not None:
            embedding, features = self.class_embedding(labels).to(sample.dtype), self.condition_conv_in(sample)
        else:
            embedding = self.time_embedding(self.get_time_embed(sample=sample, timestep=timestep))
            features = self.conv_in(sample)
        attention = {"collect": collect, "references": references}

        skips = [features]
        for block in self.down_blocks:
            features, passed = block(features, embedding, **_attention_arguments(block, attention))
            skips.extend(passed)
        features = self.mid_block(features, embedding, **_attention_arguments(self.mid_block, attention))
        for index, block in enumerate(self.up_blocks):
            if collect is not None and not any(_attends(later) for later in self.up_blocks[index:]):
                result: Tensor = features  # the rest of a reference pass is thrown away
                return result
            count = len(block.resnets)
            taken, skips = tuple(skips[-count:]), skips[:-count]
            # A side that is no multiple of 8 loses a pixel on the way down; the waiting skip knows what to go back to.
            size = skips[-1].shape[2:] if skips else None
            arguments = _attention_arguments(block, attention)
            features = block(features, taken, embedding, upsample_size=size, **arguments)
        output: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(features)))
        return output


def _attention_arguments(block: nn.Module, attention: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments for a block: those without attention layers take none."""
    return {"cross_attention_kwargs": attention} if _attends(block) else {}


def _attends(block: nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))
