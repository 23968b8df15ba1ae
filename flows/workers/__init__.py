"""Dask: the cluster, the pool and the stream that run units of work."""
