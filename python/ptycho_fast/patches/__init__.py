"""Patches of an object at sub-pixel positions: one file a framework, the same values from each.

Patch (b, c) is the object around position (x, y) = ``positions[b, :, c]``, interpolated
bilinearly::

    patch[b, r, k, c] = object(row = r + y - N // 2, column = k + x - N // 2)

The object is 0 outside its bounds.
"""
