"""How batches are made: which groups, in which memory, by which thread.

`GroupedDataset.batches` and the feeds put these pieces together:

- `options`: what a caller may ask for, `BatchOptions`, checked once.
- `processes`: which of several processes this one is, and its share of the threads.
- `source`: what a feed may ask of a data set, the protocol `BatchSource`.
- `schedule`: which groups each batch holds.
- `plan`: the coordinates of those groups.
- `gather`: their diffraction patterns and object patches.
- `buffers`: the memory that a batch is written to.
- `maker`: one batch from all of these.
- `ahead`: the iterator, and the thread that makes batches before they are asked for.
- `part`: one scan of a data set with its groups.
- `split`: which positions of a scan are held out for validation.
"""
