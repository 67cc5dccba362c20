"""The zeros around an image before a convolution: a number for all sides, or one for each side."""

from collections.abc import Sequence

# A number for all four sides, or ((top, bottom), (left, right)).
Padding = int | tuple[tuple[int, int], tuple[int, int]]


def sides(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, bottom), (left, right))."""
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    return padding


def same_padding(
    size: Sequence[int], kernel_size: int, strides: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """TensorFlow's SAME: the output has ceil(size / strides) pixels, an odd zero goes to the end.

    Args:
      size: (height, width) of the input; the padding of a strided convolution depends on it.
      kernel_size: of the square kernel.
      strides: step between output pixels, the same in both directions.
    """

    def of(length: int) -> tuple[int, int]:
        total = max(0, (-(-length // strides) - 1) * strides + kernel_size - length)
        return total // 2, total - total // 2

    height, width = size
    return of(height), of(width)
