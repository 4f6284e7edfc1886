"""Patches of an object under groups of positions: one module a framework, one answer.

``patch[b, r, k, c] = bilinear(object, row = r + y[b,c] - N//2, column = k + x[b,c] - N//2)``,
and the object is 0 outside its bounds.
"""
