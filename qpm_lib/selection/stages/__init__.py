"""The stages of the solver, each with its own idea."""
