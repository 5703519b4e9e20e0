"""The `mini` bundle: drawn people and garments, the small networks trained on them, and their evaluation."""
