"""Using a trained optimizer as an optax transformation: loading, guarding, continuing, sharding and watching it.

What users call is exported by `lopt`.
"""
