"""The sparse linear baselines: SLDD and Q-SENN on an elastic net."""
