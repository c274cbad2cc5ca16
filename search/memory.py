"""When memory runs out: how it shows, and what a smaller micro-batch is.

A batch passes through the network in `parts`; the gradients of the parts add up to the batch's.
"""

import math

import torch

CPU_SIGNS = ("can't allocate memory", "not enough memory", "could not create a primitive\n")
"""What torch's CPU allocator says, and oneDNN as its whole sentence; they raise a bare RuntimeError."""
LIBRARY_SIGNS = (
    "CUDA error: out of memory",
    "STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "unable to find an engine to execute this computation",
)
"""What the CUDA driver, cuBLAS and cuDNN say when they get no memory of their own; torch passes it on as it is
(pytorch/pytorch#108645 for the last one)."""


class TrainingError(RuntimeError):
    """This configuration cannot be trained; running it again would end the same way."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the host or on a device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, TrainingError) or not isinstance(error, RuntimeError):
        return False
    if isinstance(error.__context__, MemoryError):  # torch.save says what its file format makes of half a file
        return True
    return any(sign in f"{error}\n" for sign in CPU_SIGNS + LIBRARY_SIGNS)


def micro_batch(batch_size: int, parts: int) -> int:
    """Images of a batch's largest part."""
    return math.ceil(batch_size / parts)


def more_parts(batch_size: int, parts: int) -> int:
    """Parts that halve the micro-batch.

    Raises:
        TrainingError: A single image is too large already.
    """
    size = micro_batch(batch_size, parts)
    if size == 1:
        raise TrainingError(
            "Memory must hold the network and one training image at least, and it does not. "
            "Choose a smaller backbone or image size, or run fewer trials at a time."
        )
    return math.ceil(batch_size / (size // 2))
