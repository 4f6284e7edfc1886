"""Training of a `PtychoModel`. Nothing here is imported before a model is trained."""
