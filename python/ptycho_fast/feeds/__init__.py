"""Batches as a framework wants them: one module a framework."""
