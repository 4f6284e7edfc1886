"""An image of a scan without a network: maximum likelihood with a prior."""
