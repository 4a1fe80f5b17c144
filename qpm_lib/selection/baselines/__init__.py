"""The sparse linear baselines: SLDD and Q-SENN on an elastic net.

Another one needs a layer in `sldd.LAYERS`, its name in `SelectionConfig.method` (`core/config.py`), and its title and
fine-tuning in `core/profiles.py`.
"""
