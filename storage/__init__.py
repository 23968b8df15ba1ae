"""Bytes and records: checkpoints, timings, curves, tracked runs and the registry of promoted optimizers.

A leaf of the dependency picture: it works on pytrees of arrays and on plain JSON, and knows neither learned
optimizers nor tasks. Nothing here is pickled, so reading a file never runs code. Importing this package is
cheap; Zarr and MLflow (seconds) are imported by the functions that need them.
"""
