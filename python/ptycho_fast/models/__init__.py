"""A reconstruction network in PyTorch, and the classical passes around it."""
