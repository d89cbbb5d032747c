"""``from_pretrained``, ``save_pretrained`` and ``push_to_hub``: those of huggingface_hub where it is installed.

Folders work without it. What is saved and read is the folder of :mod:`coset.graphs.exported`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coset.core.errors import CosetError, not_installed

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
                with nullcontext() if Path(name).is_dir() else hub_or_folder(name):
                    return super().from_pretrained(name, **options)
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


@contextmanager
def hub_or_folder(model_id: str | Path) -> Iterator[None]:
    """What a hub cannot give is told in one line.

    Raises:
        CosetError: There is no such folder, and the hub has no such repository or cannot be reached.
    """
    try:
        yield
    except CosetError:
        raise
    except (OSError, ValueError) as error:  # also those of huggingface_hub: not found, offline, no name of a repository
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CosetError(
            f"{model_id} is no folder here, and no repository of that name came from the hub: {first[:160]}"
        ) from error
