"""The engine's own process: it prepares, denoises and saves one look after another."""
