"""Evaluating a training run's checkpoints as they appear."""
