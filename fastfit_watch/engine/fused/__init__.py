"""The quick form of the networks: fused blocks, own kernels, CUDA graphs."""
