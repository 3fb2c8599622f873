"""A function over many items on a Ray cluster (extra `ray`), each machine of which has the package installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 3


def map_on_ray(function: Callable[..., R], shared: tuple[Any, ...], items: Sequence[T]) -> Iterator[tuple[T, R]]:
    """Yield (item, function(*shared, item)) as they come; each takes a core somewhere.

    Uses the cluster that Ray finds running here or in RAY_ADDRESS, else this machine as one. A task whose process or
    machine dies is done again elsewhere, three times. Raises what the function raised, and ValueError without Ray
    and for a task that dies each time.
    """
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError:
        raise ValueError("--engine ray needs Ray: pip install 'electra-toolkit[ray]'") from None
    is_own = not ray.is_initialized()
    if is_own:
        try:
            ray.init(address="auto", log_to_driver=False)
        except ConnectionError:
            ray.init(log_to_driver=False, include_dashboard=False)
    try:
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(function)
        given = [ray.put(value) for value in shared]
        pending = {task.remote(*given, item): item for item in items}
        while pending:
            for done in ray.wait(list(pending))[0]:
                item = pending.pop(done)
                try:
                    result = ray.get(done)
                except RayTaskError as error:
                    raise error.cause from None
                except RayError as error:
                    reason = str(error).split("\n")[0]
                    raise ValueError(f"a task died {RETRIES + 1} times on the Ray cluster ({reason})") from None
                yield item, result
    finally:
        if is_own:
            ray.shutdown()
