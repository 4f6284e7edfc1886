"""The feeds that a data set offers, one method each.

A framework is imported when its method is called, so that the others need not be installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ptycho_fast.batches.options import with_batch_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ptycho_fast.batches.options import BatchArguments
    from ptycho_fast.batches.source import BatchSource
    from ptycho_fast.feeds.torch import TorchFeed


class FeedMethods:
    """What `ptycho_fast.GroupedDataset` inherits to feed the frameworks."""

    @with_batch_options
    def to_tensorflow(
        self: BatchSource,
        batch_size: int,
        *,
        layout: str = "channels_last",
        redraw: bool = False,
        intensity_scale: float = 1.0,
        **options: Unpack[BatchArguments],
    ) -> Any:
        """Return a ``tf.data.Dataset`` of batches, for ``model.fit`` or a loop of your own.

        Each iteration over it is the next epoch. Its ``set_epoch(epoch)`` sets the epoch of the
        next iteration. Shapes are static, except for the number of groups if the last batch may be
        smaller.

        Parameters
        ----------
        batch_size : int
            Groups per batch.
        layout : {"channels_last", "channels_first", "ptychopinn"}
            As for `batches`; or, with "ptychopinn", pairs ``(inputs, targets)`` for the
            ``model.fit`` of PtychoPINN, all float32. With the amplitude
            ``a = intensity_scale * diffraction`` of a normalised data set, the inputs are
            ``(a, coords_relative)`` and the targets ``(object, a, a**2)``. The coordinates are
            those of the planned positions (``coords_start_relative``) if the scan has others than
            the true ones. ``object``, (B, N, N, 1), is the modulus of the object around the centre
            of the group, or zeros if the scan has no object. The number of groups is never static,
            because PtychoPINN's model would take it for the number of patterns.
        redraw : bool
            Draw new groups for each epoch, as `at_epoch` does. All epochs have the same number of
            batches: if an epoch has more groups than the first one had, the rest is dropped; if it
            has fewer, it starts again from its first.
        intensity_scale : float
            For ``layout="ptychopinn"`` only.
        **options
            ``shuffle``, ``seed``, ``epoch``, ``drop_last``, ``pad``, ``rank``, ``world_size`` and
            ``fields``, explained in `ptycho_fast.batches.options.BatchOptions`. ``epoch`` is that
            of the first iteration.

        Returns
        -------
        tf.data.Dataset
            Its elements are dicts of tensors with the keys of `batches`. If there is a GPU and one
            scan, patches are cut on the GPU.

        Raises
        ------
        ValueError
            As `batches` does, or if `layout`, ``fields`` and `intensity_scale` do not go together.
        ImportError
            If TensorFlow is not installed.

        Notes
        -----
        An error while a batch is made arrives as a ``tf.errors.OpError`` with the same text.

        `ptycho_fast.feeds.tensorflow` shows how to train with Keras, and with several workers.
        """
        from ptycho_fast.feeds.tensorflow import to_tensorflow  # noqa: PLC0415

        return to_tensorflow(
            self,
            batch_size,
            layout=layout,
            redraw=redraw,
            intensity_scale=intensity_scale,
            **options,
        )

    @with_batch_options
    def to_torch(
        self: BatchSource,
        batch_size: int,
        *,
        layout: str = "channels_first",
        redraw: bool = False,
        pin_memory: bool | None = None,
        resident: bool = False,
        device: Any = None,
        **options: Unpack[BatchArguments],
    ) -> TorchFeed:
        """Return an iterable of batches for PyTorch's ``DataLoader(feed, batch_size=None)``.

        Each iteration over it is the next epoch. Its ``set_epoch(epoch, start_batch=0)`` sets the
        epoch of the next iteration and the batch it begins with; ``state_dict()`` and
        ``load_state_dict()`` do the same for checkpoints. Its length is the number of batches in
        an epoch.

        Parameters
        ----------
        batch_size : int
            Groups per batch.
        layout : {"channels_first", "channels_last"}
            Shape of patterns and patches: ``(B, C, N, N)`` or ``(B, N, N, C)``.
        redraw : bool
            Draw new groups for each epoch, as `at_epoch` does.
        pin_memory : bool, optional
            Make batches in page-locked memory, from which copies to a GPU are fastest. By default
            where there is CUDA. The workers of a ``DataLoader`` cannot do this: use the
            ``pin_memory`` of the loader.
        resident : bool
            Keep all patterns on `device` and gather them there, so that only indices are sent in
            every batch. Patches are cut there too. It needs ``num_workers=0``.
        device : torch.device or str, optional
            For `resident`: by default the current CUDA device, else the CPU.
        **options
            ``shuffle``, ``seed``, ``epoch``, ``drop_last``, ``pad``, ``rank``, ``world_size`` and
            ``fields``, explained in `ptycho_fast.batches.options.BatchOptions`. ``epoch`` is that
            of the first iteration. Ranks that are left open are looked up in
            ``torch.distributed`` at the start of each iteration.

        Returns
        -------
        ptycho_fast.feeds.torch.TorchFeed
            Its elements are dicts of tensors with the keys of `batches`. A thread makes them
            ahead, so that a loader needs no workers.

        Raises
        ------
        ValueError
            As `batches` does, or if `device` or `pin_memory` cannot be used.
        ImportError
            If PyTorch is not installed.

        Examples
        --------
        >>> import ptycho_fast as pf
        >>> from torch.utils.data import DataLoader
        >>> scan = pf.simulate_scan(n_positions=60, N=16, seed=0)
        >>> data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, 50, seed=1))
        >>> loader = DataLoader(data.to_torch(batch_size=20, shuffle=True), batch_size=None)
        >>> [tuple(batch["diffraction"].shape) for batch in loader]
        [(20, 4, 16, 16), (20, 4, 16, 16), (10, 4, 16, 16)]
        """
        from ptycho_fast.feeds.torch import TorchFeed  # noqa: PLC0415

        return TorchFeed(
            self,
            batch_size,
            layout=layout,
            redraw=redraw,
            pin_memory=pin_memory,
            resident=resident,
            device=device,
            **options,
        )
