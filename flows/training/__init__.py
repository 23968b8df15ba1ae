"""Step 4: running one phase, following it, changing it."""
