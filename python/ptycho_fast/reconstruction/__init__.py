"""The image that explains the patterns of a scan best."""
