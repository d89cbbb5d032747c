"""``from_pretrained``, ``save_pretrained`` and ``push_to_hub``: those of huggingface_hub where it is installed.

Folders work without it. What is saved and read is the folder of :mod:`coset.graphs.exported`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

from coset.core.errors import CosetError, not_installed

REACHED = 5.0
"""Seconds within which a hub answers, or is taken to be out of reach."""

if TYPE_CHECKING:

    class Pretrained:
        """See below: what both have in common."""

        def __init_subclass__(cls, **about: Any) -> None: ...

        def save_pretrained(self, save_directory: str | Path, **options: Any) -> Any: ...

        @classmethod
        def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Any: ...

        def push_to_hub(self, repo_id: str, **options: Any) -> Any: ...

else:
    try:
        from huggingface_hub import ModelHubMixin

        class Pretrained(ModelHubMixin):
            """That of huggingface_hub, which says in one line what it cannot have."""

            @classmethod
            def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Any:
                """Read a folder, or a repository of the hub.

                Raises:
                    CosetError: There is neither, or the hub cannot be reached.
                """
                name = pretrained_model_name_or_path
                if Path(name).is_dir():
                    return super().from_pretrained(name, **options)
                reason = None if options.get("local_files_only") else out_of_reach()
                if reason is not None:  # what was fetched before can be read
                    options["local_files_only"] = True
                with hub_or_folder(name, reason):
                    return super().from_pretrained(name, **options)

            def push_to_hub(self, repo_id: str, **options: Any) -> Any:
                """Upload the folder to a repository of the hub, which is made if there is none.

                Raises:
                    CosetError: The hub cannot be reached, or does not take it.
                """
                if (reason := out_of_reach()) is not None:
                    raise CosetError(f"{repo_id} was not uploaded: {reason}; save_pretrained(FOLDER) keeps the network")
                try:
                    return super().push_to_hub(repo_id, **options)
                except CosetError:
                    raise
                except _failures() as error:
                    raise CosetError(f"{repo_id} was not uploaded: {_first_line(error)}") from error
    except ImportError:

        class Pretrained:
            """Folders alone."""

            def __init_subclass__(cls, **about: Any) -> None:
                super().__init_subclass__()

            def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
                """Write the folder.

                Raises:
                    CosetError: An option needs huggingface_hub.
                """
                if options:
                    raise not_installed("huggingface_hub", "hub")
                self._save_pretrained(Path(save_directory))

            @classmethod
            def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Any:
                """Read a folder.

                Raises:
                    CosetError: It is none, and the name of something on a hub needs huggingface_hub.
                """
                if options or not Path(pretrained_model_name_or_path).is_dir():
                    raise not_installed("huggingface_hub", "hub")
                return cls._from_pretrained(model_id=str(pretrained_model_name_or_path))

            def push_to_hub(self, repo_id: str, **options: Any) -> None:
                """Not without huggingface_hub.

                Raises:
                    CosetError: Always.
                """
                raise not_installed("huggingface_hub", "hub")


def downloaded(model_id: str, files: list[str], **options: Any) -> Path:
    """The folder of that name, or files of a repository of the hub, in its cache."""
    if Path(model_id).is_dir():
        return Path(model_id)
    from huggingface_hub import snapshot_download

    known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
    fetch: Callable[..., str] = snapshot_download
    return Path(fetch(model_id, allow_patterns=files, **{key: options[key] for key in known if key in options}))


def out_of_reach() -> str | None:
    """Why the hub does not answer, or ``None`` if it does; after ``REACHED`` seconds at most.

    huggingface_hub itself tries six times, with pauses that grow. Looking up a name obeys no time limit of a client:
    hence the thread.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    found: Queue[Exception | None] = Queue()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=REACHED)
            found.put(None)
        except Exception as error:  # whatever client huggingface_hub has: the thread must not die in silence
            found.put(error)

    Thread(target=ask, daemon=True).start()
    try:
        error = found.get(timeout=REACHED)
    except Empty:
        return f"{constants.ENDPOINT} does not answer in {REACHED:g} seconds"
    return None if error is None else f"{constants.ENDPOINT} cannot be reached ({_first_line(error)})"


def _failures() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises where a hub refuses or a connection breaks, and what its HTTP client does."""
    from huggingface_hub.utils import get_session

    client = import_module(type(get_session()).__module__.partition(".")[0])
    return OSError, ValueError, client.HTTPError


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]


@contextmanager
def hub_or_folder(model_id: str | Path, reason: str | None = None) -> Iterator[None]:
    """What a hub cannot give is told in one line, with the reason where one is known before.

    Raises:
        CosetError: There is no such folder, and the hub has no such repository or cannot be reached.
    """
    try:
        yield
    except CosetError:
        raise
    except (OSError, ValueError) as error:  # also those of huggingface_hub: not found, offline, no name of a repository
        raise CosetError(
            f"{model_id} is no folder here, and no repository of that name came from the hub: "
            f"{reason or _first_line(error)}"
        ) from error
