"""The published order of work, written plainly, to be timed beside the engine in the same run.

For every picture: every reference encoded, and read with both halves of guidance; in every step the references' keys
and values put together anew, and all of them doubled, as the fused projection does it (FastFit inference
specification, section 1.7); PyTorch's default attention; diffusers' own modules, eager.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastfit_watch.domain.look import Category
from fastfit_watch.engine.bundle import Bundle, load_scheduler, load_unet, load_vae
from fastfit_watch.engine.networks.reference_attention import KeysValues, ReferenceCache, split_heads
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.engine.pixels import Pixels, composite, make_condition, mask_to_tensor, to_pixels, to_tensor


class PublishedBaseline:
    """Published order of work over networks of its own, in diffusers' usual layout, on one device."""

    def __init__(self, bundle: Bundle, device: str, dtype: torch.dtype) -> None:
        self._unet, self._vae = load_unet(bundle, device, dtype), load_vae(bundle, device, dtype)
        self._scheduler = load_scheduler(bundle)
        layers = [name.removesuffix(".processor") for name in self._unet.attn_processors]
        self._unet.set_attn_processor({f"{layer}.processor": _Doubling(self._unet, layer) for layer in layers})

    @property
    def stride(self) -> int:
        """Pixels that a latent covers, across and down."""
        return 1 << (len(self._vae.config.block_out_channels) - 1)

    @torch.inference_mode()
    def dress(
        self,
        person: Pixels,
        covered: Tensor,
        mask: Pixels,
        garments: Mapping[Category, Pixels],
        steps: int,
        guidance: float,
        noise: Tensor,
        posterior: Mapping[str, Tensor],
    ) -> Pixels:
        """Make one picture: everything but parsing.

        Parameters
        ----------
        person, mask, garments : uint8, at the model's sizes. covered : from `cover_person`.
        noise : float32 (steps + 1, 1, 4, h, w): the initial one, then one for each step.
        posterior : the VAE posterior's noise for "person" and every slot.

        Returns
        -------
        uint8 (H, W, 3).
        """
        device, dtype = self._unet.device, self._unet.dtype
        masked = self._encode(covered, posterior["person"])
        condition = make_condition(mask_to_tensor(mask).to(device), masked).to(dtype)
        condition = torch.cat([condition, condition])
        caches = []
        for category, pixels in garments.items():
            latents = self._encode(to_tensor(pixels), posterior[category]).to(dtype)
            labels = torch.full((2,), category.label, device=device)
            collected: dict[str, KeysValues] = {}
            self._unet(torch.cat([torch.zeros_like(latents), latents]), labels=labels, collect=collected)
            caches.append(ReferenceCache(collected))
        self._scheduler.set_timesteps(steps, device=device)
        latents = noise[0].to(device)
        for index, timestep in enumerate(self._scheduler.timesteps):
            sample = torch.cat([torch.cat([latents.to(dtype)] * 2), condition], dim=1)
            predicted: Any = self._unet(sample, timestep=timestep, references=caches)
            unconditional, conditional = predicted.float().chunk(2)
            predicted = unconditional + guidance * (conditional - unconditional)
            latents = self._step(predicted, timestep, latents, noise[index + 1].to(device))
        pixels = self._vae.decode((latents / self._vae.config.scaling_factor).to(dtype)).sample
        return composite(to_pixels(pixels.float()), person, mask)

    def _encode(self, pixels: Tensor, noise: Tensor) -> Tensor:
        posterior = self._vae.encode(pixels.to(self._vae.device, self._vae.dtype)).latent_dist
        drawn: Tensor = posterior.mean.float() + posterior.std.float() * noise.to(self._vae.device)
        return drawn * float(self._vae.config.scaling_factor)

    def _step(self, predicted: Tensor, timestep: Tensor, latents: Tensor, fresh: Tensor) -> Tensor:
        """DDPM as diffusers takes it, with the same noise as the engine: indexed on the host at every step."""
        scheduler = self._scheduler
        here = scheduler.alphas_cumprod[timestep.cpu()].item()
        before = int(scheduler.previous_timestep(timestep))
        there = scheduler.alphas_cumprod[before].item() if before >= 0 else 1.0
        picture = (latents - (1 - here) ** 0.5 * predicted) / here**0.5
        kept = here / there
        mean = there**0.5 * (1 - kept) / (1 - here) * picture + kept**0.5 * (1 - there) / (1 - here) * latents
        variance = max((1 - there) / (1 - here) * (1 - kept), 1e-20)
        taken: Tensor = mean + variance**0.5 * fresh
        return taken


class _Doubling:
    """Attention with a fused projection, references joined at every step, and every key and value twice."""

    def __init__(self, unet: FastFitUNet, layer: str) -> None:
        attn = unet.get_submodule(layer)
        self._layer = layer
        self._project = torch.cat([attn.to_q.weight, attn.to_k.weight, attn.to_v.weight]).detach()

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        collect: dict[str, KeysValues] | None = None,
        references: Sequence[ReferenceCache] | None = None,
    ) -> Tensor:
        projected = functional.linear(hidden_states, self._project)
        query, keys, values = (split_heads(part, attn.heads) for part in projected.chunk(3, dim=-1))
        if collect is not None:
            collect[self._layer] = KeysValues(keys, values)
        if references is not None:
            seen = [cache.layers[self._layer] for cache in references]
            keys = torch.cat([*(part.keys for part in seen), keys], dim=2)
            values = torch.cat([*(part.values for part in seen), values], dim=2)
        keys, values = torch.cat([keys, keys], dim=2), torch.cat([values, values], dim=2)
        mixed = functional.scaled_dot_product_attention(query, keys, values)
        output: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return output
