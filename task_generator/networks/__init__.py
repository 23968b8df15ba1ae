"""The larger inner models, one file each, and what they share.

Equal layers are written out, not scanned: measured on ten encoder layers and on four groups of four residual
blocks, a `lax.scan` over stacked parameters compiled no faster on CPUs (8.4 s against 8.5 s, 24 s against 10 s)
and ran no faster, and learned optimizers want one tensor per layer.
"""
