"""A network's launches recorded once as a CUDA graph and replayed in one, for calls too small to fill a GPU.

A network here starts several hundred kernels per call; at batch 1 or 4 a GPU waits for Python to start them.  A graph
starts them all at once.  What that asks for (fixed addresses, no Python in between) is hidden behind an ordinary call.

Unverified on a GPU: the bookkeeping is tested on a CPU with recorders of its own; `record_on_cuda` has never run.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

WARM_UPS = 3  # compile Triton's kernels, let cuDNN choose, fill the allocator: none of it may happen in a recording

# (function that computes the output, device) -> (what runs it again, the output it runs into)
Recorder = Callable[[Callable[[], Tensor], torch.device], tuple[Callable[[], None], Tensor]]


def record_on_cuda(run: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], None], Tensor]:
    """Warm up on a side stream, then record.  Unverified on a GPU.

    "thread_local": while this thread records, nnU-Net's other one may move the next window to the GPU.
    """
    # Entering the present stream brings it back at the end; torch's own context leaves it lost if a recording fails.
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            output = run()
    return graph.replay, output


@dataclass(frozen=True)
class _Graph:
    """A recording: copy an image into `image`, `replay`, and read `output`."""

    image: Tensor
    replay: Callable[[], None]
    output: Tensor


class GraphedNetwork:
    """Calls a network through CUDA graphs where that is safe, and as it is everywhere else; the same logits.

    One graph for each shape, dtype, device, autocast state and setting of deep supervision, recorded at the first call.
    Straight through go calls in training mode or with gradients enabled, on other devices, during another recording,
    beyond `limit` different graphs, and whatever could not be recorded (one line in the log each, and ordinary calls
    from then on).  Weights that are overwritten in place, as `load_state_dict` does between nnU-Net's folds, are seen;
    if one has been moved or replaced, all is recorded anew.  After other changes to the network (`set_backend`, hooks)
    call `clear`.  Not for two threads at a time.

    A graph keeps the memory of a call's activations until it is cleared.  Unverified on a GPU.

    Args:
        network: in evaluation mode it must return one tensor to be recorded.
        limit: graphs at most.
        record: how to record; replaced in tests.
        device_type: of the inputs that are recorded.
    """

    def __init__(
        self, network: nn.Module, *, limit: int = 4, record: Recorder = record_on_cuda, device_type: str = "cuda"
    ) -> None:
        self.network = network
        self._limit = limit
        self._record = record
        self._device_type = device_type
        self._graphs: dict[Any, _Graph | None] = {}  # None: could not be recorded
        self._weights: list[tuple[dict[str, Any], str, Tensor, int]] = []
        self._said_full = False

    def clear(self) -> None:
        """Forget all recordings and give their memory back to torch."""
        self._graphs.clear()
        self._weights.clear()

    def __call__(self, x: Tensor) -> Tensor:
        """`network(x)`, (B, C, ...) -> (B, heads, ...)."""
        if x.device.type != self._device_type or self.network.training or torch.is_grad_enabled() or _recording(x):
            return self.network(x)
        if self._graphs and not self._weights_in_place():
            self.clear()
        key = self._key(x)
        if key not in self._graphs:
            if len(self._graphs) >= self._limit:
                self._say_full(x)
                return self.network(x)
            if not self._graphs:
                self._watch_weights()
            self._graphs[key] = self._try_to_record(x)
        graph = self._graphs[key]
        if graph is None:
            return self.network(x)
        graph.image.copy_(x)
        graph.replay()
        return graph.output.clone()

    def _key(self, x: Tensor) -> tuple:
        """What a recording has built into it.  Tensors made in inference mode cannot be written to outside of it."""
        kind = x.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        heads = getattr(getattr(self.network, "decoder", None), "deep_supervision", None)
        return tuple(x.shape), x.dtype, x.device, autocast, heads, torch.is_inference_mode_enabled()

    def _try_to_record(self, x: Tensor) -> _Graph | None:
        kind = x.device.type
        image = x.clone(memory_format=torch.contiguous_format)
        enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

        def run() -> Tensor:
            # Without the cache: it would put half-precision copies of these weights into the recording, for good.
            with torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False):
                output = self.network(image)
            if not isinstance(output, Tensor):
                raise TypeError(f"the network returns a {type(output).__name__}, not one tensor")
            return output

        try:
            replay, output = self._record(run, x.device)
        except torch.cuda.OutOfMemoryError:  # whoever called may try fewer images
            raise
        except Exception as error:  # whatever it is, the ordinary call works or says it better
            reason = " ".join(str(error).split())
            logger.warning("no CUDA graph for an image of shape %s, predicting without (%s: %s)",
                           tuple(x.shape), type(error).__name__, reason)  # fmt: skip
            return None
        logger.info("recorded a CUDA graph for images of shape %s", tuple(x.shape))
        return _Graph(image, replay, output)

    def _say_full(self, x: Tensor) -> None:
        if not self._said_full:
            logger.warning("%d CUDA graphs are recorded already; images of shape %s and other new ones are predicted "
                           "without", self._limit, tuple(x.shape))  # fmt: skip
            self._said_full = True

    def _watch_weights(self) -> None:
        holders = [held for module in self.network.modules() for held in (module._parameters, module._buffers)]
        named = [(held, name, value) for held in holders for name, value in held.items() if value is not None]
        self._weights = [(held, name, value, value.data_ptr()) for held, name, value in named]

    def _weights_in_place(self) -> bool:
        """Whether every weight is the tensor it was, at the address it was; some tens of microseconds."""
        return all(held.get(name) is value and value.data_ptr() == at for held, name, value, at in self._weights)


def _recording(x: Tensor) -> bool:
    return x.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
