"""What learning curves say about an optimizer beside others: pure functions of curves."""
