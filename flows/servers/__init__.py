"""`keirin up`, and every server that keirin starts."""
