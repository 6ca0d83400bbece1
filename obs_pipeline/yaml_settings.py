"""A short YAML file of settings, read into the model of the room whose file it is.

For files that an operator writes by hand and that need no more than their mistakes named by field. Files of an untrusted hand, or
whose mistakes are told by their line, are read with ``yaml_positions``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from obs_pipeline.errors import ObsError

Model = TypeVar("Model", bound=BaseModel)


def read_settings(
    path: Path, model: type[Model], invalid: type[ObsError], load: Callable[[str], Any] = yaml.safe_load
) -> Model:
    """What a file says; one that is empty or not there says nothing, so the model's defaults hold.

    Raises ``invalid``: the file cannot be read, or not used; every field that is wrong is named.
    """
    if not path.exists():
        return model()
    try:
        return model.model_validate(load(path.read_text(encoding="utf-8")) or {})
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors())
        raise invalid(f"{path}: {told}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise invalid(f"{path} cannot be read: {error}") from None
