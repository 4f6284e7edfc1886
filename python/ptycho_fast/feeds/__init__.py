"""Batches for the data loaders of machine-learning frameworks, one file a framework.

A feed imports its framework and what it needs of `ptycho_fast.batches`, never the data set;
`methods` holds the methods by which a data set offers them.
"""
